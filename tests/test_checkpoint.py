"""Run folders: what is accepted, what is refused, and what survives a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_har import checkpoint
from clip_har.errors import RunError
from clip_har.methods.lora import Lora
from clip_har.trainer import fit
from tasks import make_task, settings


def save_three(folder: Path) -> list[dict[str, torch.Tensor]]:
    method = Lora(settings(epochs=3, batch_size=64))
    task = make_task()
    classifier = method.build(task)
    weights = []
    for state in fit(method, classifier, task, method.settings):
        if state.epoch_end:
            snapshot = state.snapshot()
            weights.append(snapshot.tensors)
            history = [{"epoch": state.epoch}]
            checkpoint.save_state(folder, snapshot, history, seconds=1.5 * state.epoch, weights_hash="abc")
    return weights


def test_the_newest_state_comes_back_whole(tmp_path: Path) -> None:
    weights = save_three(tmp_path)
    saved = checkpoint.load_state(tmp_path)
    assert saved is not None
    assert saved.weights_hash == "abc"
    assert (saved.epoch, saved.seconds, saved.history) == (3, 4.5, [{"epoch": 3}])
    assert saved.snapshot.tensors.keys() == weights[-1].keys()
    assert all(torch.equal(saved.snapshot.tensors[key], weights[-1][key]) for key in weights[-1])
    slots = {key.rpartition(".")[2] for key in weights[-1] if key.startswith("optimizer.")}
    assert slots == {"step", "exp_avg", "exp_avg_sq"}
    assert {key.partition(".")[0] for key in weights[-1]} == {"classifier", "optimizer", "generator"}
    assert saved.snapshot.values["step"] == 6 and saved.snapshot.values["batch_size"] == 64


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_newest_state_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    weights = save_three(tmp_path)
    newest = sorted((tmp_path / "last").glob("step-*"))[-1]
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[-5] ^= 0x40
    newest.write_bytes(content[: len(content) // 2] if damage == "cut" else b"" if damage == "empty" else content)
    saved = checkpoint.load_state(tmp_path)
    assert saved is not None and saved.epoch == 2
    assert all(torch.equal(saved.snapshot.tensors[key], weights[1][key]) for key in weights[1])


def test_only_the_two_newest_states_are_kept(tmp_path: Path) -> None:
    save_three(tmp_path)
    names = [path.name for path in sorted((tmp_path / "last").iterdir())]
    assert names == ["step-00000004.safetensors", "step-00000006.safetensors"]


def test_no_state_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_state(tmp_path) is None


# --- folders --------------------------------------------------------------------------------------------


def finished(folder: Path, **card: Any) -> Path:
    """A run folder with a card, prompts and weights."""
    method = Lora(settings())
    task = make_task()
    classifier = method.build(task)
    checkpoint.save_weights(folder, method, classifier, "demo")
    checkpoint.save_prompts(folder, task.prompts_CD)
    checkpoint.write_json(folder / "config.json", settings())
    content = {
        "format_version": 1,
        "method": "lora",
        "backbone": {"name": "demo", "weights_hash": "0" * 64, "logit_scale": 20.0},
        "classes": list(task.classes),
        "templates": ["a {}"],
        "preprocessing": {},
        "settings": settings(),
        "seed": 0,
        "trainable_params": 769,
    }
    checkpoint.write_json(folder / "card.json", {**content, **card})
    return folder


def test_a_run_is_found_by_its_folder_a_file_in_it_or_its_historic_name(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    for path in (run, run / "adapter_model.safetensors", run / "card.json", run / "clip_lora_best.pt"):
        assert checkpoint.resolve_run(path) == run


def test_what_is_no_run_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no run folder"):
        checkpoint.resolve_run(tmp_path / "missing")
    with pytest.raises(RunError, match="not a run folder"):
        checkpoint.resolve_run(tmp_path)
    with pytest.raises(RunError, match="There is no run folder"):
        checkpoint.resolve_run(finished(tmp_path / "run") / "clip_lora_bset.pt")
    begun = tmp_path / "begun"
    checkpoint.write_json(begun / "config.json", {})
    with pytest.raises(RunError, match=r"not finished\. Finish it with"):
        checkpoint.resolve_run(begun)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"method": "telepathy"}, "not a card"),
        ({"format_version": "one"}, "not a card"),
        ({"format_version": 99, "package_version": "7.0"}, r"written by clip-har 7\.0"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused(tmp_path: Path, card: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        checkpoint.load_run(finished(tmp_path, **card))


def test_a_card_with_missing_keys_or_no_json_is_refused(tmp_path: Path) -> None:
    run = finished(tmp_path)
    card = json.loads((run / "card.json").read_text())
    del card["classes"]
    (run / "card.json").write_text(json.dumps(card))
    with pytest.raises(RunError, match="not a card"):
        checkpoint.load_run(run)
    (run / "card.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.load_run(run)


def test_damaged_missing_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    run = checkpoint.load_run(finished(tmp_path))
    assert run.classifier().training is False
    weights = tmp_path / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(RunError, match="is damaged"):
        run.classifier()
    weights.write_bytes((tmp_path / "prompts.safetensors").read_bytes())
    with pytest.raises(RunError, match="does not hold the weights of the method 'lora'"):
        run.classifier()
    weights.unlink()
    with pytest.raises(RunError, match="is missing"):
        run.classifier()


def test_a_pickle_under_the_weights_name_is_not_executed(tmp_path: Path) -> None:
    run = checkpoint.load_run(finished(tmp_path))
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return eval, (f"open({str(marker)!r}, 'w')",)

    torch.save({"x": Hostile()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(RunError):
        run.classifier()
    assert not marker.exists()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    checkpoint.check_folder(tmp_path / "new", settings(), resume=False)
    run = finished(tmp_path / "run")
    with pytest.raises(RunError, match=r"already holds a run.*--resume"):
        checkpoint.check_folder(run, settings(), resume=False)
    checkpoint.check_folder(run, settings(workers=7, data="elsewhere"), resume=True)
    with pytest.raises(RunError, match=r"other settings: epochs 15 -> 3, rank 16 -> 8"):
        checkpoint.check_folder(run, settings(epochs=3, rank=8), resume=True)


def test_a_run_that_died_before_its_first_epoch_may_be_started_again(tmp_path: Path) -> None:
    checkpoint.write_json(tmp_path / "config.json", settings())
    checkpoint.check_folder(tmp_path, settings(epochs=3), resume=False)


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run .* to resume"):
        checkpoint.check_folder(tmp_path, settings(), resume=True)


def test_a_file_in_the_run_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        checkpoint.check_folder(tmp_path / "file", settings(), resume=False)
