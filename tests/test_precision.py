"""What --precision auto leads to, on a processor that multiplies bfloat16 and on one that does not: on any machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import machine
from clip_har import backbone, cli
from clip_har.trainer.engine import Engine


@pytest.mark.parametrize(("multiplies", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_every_command_computes_as_the_processor_has_it(
    multiplies: bool,
    precision: str,
    photos: Path,
    tiny_model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    own_cache: Path,
) -> None:
    monkeypatch.setattr(backbone, machine.QUESTION, lambda: multiplies)
    run, photo = tmp_path / "run", photos / "test" / "running" / "running_000.jpg"
    data = ["--data", str(photos), "--workers", "0"]
    assert cli.main(["train", *data, "--model", tiny_model, "--epochs", "2", "--out", str(run)]) == 0
    assert json.loads((run / "card.json").read_text())["precision"] == precision
    assert cli.main(["evaluate", *data, "--checkpoint", str(run)]) == 0
    assert len(list(own_cache.glob("features/*"))) == 1, "a precision of its own would have a store of its own"

    def predicted(*flags: str) -> object:
        capsys.readouterr()
        assert cli.main(["predict", str(run), str(photo), "--json", *flags]) == 0
        return json.loads(capsys.readouterr().out)

    other = {"float32": "bfloat16", "bfloat16": "float32"}[precision]
    assert predicted() == predicted("--precision", precision) != predicted("--precision", other)


@pytest.mark.parametrize(("amx", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_encoders_train_in_bfloat16_where_the_processor_has_amx(
    amx: bool, dtype: torch.dtype, photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, machine.QUESTION, lambda: True)
    monkeypatch.setattr(backbone, machine.AMX, lambda: amx)
    seen: set[torch.dtype] = set()
    train = ["train", "--data", str(photos), "--workers", "0", "--model", tiny_model, "--method", "full"]
    original = Engine.accumulate

    def accumulate(engine: Engine, batches: list[Any]) -> float:
        visual = engine.classifier.get_submodule("model.visual")
        handle = visual.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
        loss = original(engine, batches)
        handle.remove()
        return loss

    monkeypatch.setattr(Engine, "accumulate", accumulate)
    assert cli.main([*train, "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert seen == {dtype}


def test_convolutions_in_groups_train_in_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, machine.AMX, lambda: True)
    cpu, grouped = torch.device("cpu"), torch.nn.Conv2d(4, 4, 3, groups=4)
    assert backbone.autocast_pays(cpu, torch.nn.Conv2d(4, 4, 3))
    assert not backbone.autocast_pays(cpu, torch.nn.Sequential(grouped))
    assert backbone.autocast_pays(torch.device("cuda"), grouped) and not backbone.autocast_pays(
        torch.device("mps"), grouped
    )
