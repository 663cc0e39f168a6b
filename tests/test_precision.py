"""What --precision auto leads to, on a processor that multiplies bfloat16 and on one that does not: on any machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import machine
from clip_har import backbone, cli


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
