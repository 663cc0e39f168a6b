"""Run folders: what is accepted, what is refused, and what survives a kill."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_har import checkpoint, run_card, run_folders
from clip_har.errors import RunError
from clip_har.integrity import sealed
from clip_har.methods import METHODS
from clip_har.methods.embedding_lora import Lora
from clip_har.run_card import RunCard, add_to_card, write_card
from clip_har.trainer import fit
from clip_har.training_states import Start, load_state, save_state
from tasks import given, make_task, settings

START = Start(weights="abc", manifest="def", prompts="012")


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
            save_state(folder, snapshot, history, seconds=1.5 * state.epoch, start=START)
    return weights


def test_the_newest_state_comes_back_whole(tmp_path: Path) -> None:
    weights = save_three(tmp_path)
    saved = load_state(tmp_path)
    assert saved is not None
    assert saved.start == START
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
    saved = load_state(tmp_path)
    assert saved is not None and saved.epoch == 2
    assert all(torch.equal(saved.snapshot.tensors[key], weights[1][key]) for key in weights[1])


def test_only_the_two_newest_states_are_kept(tmp_path: Path) -> None:
    save_three(tmp_path)
    names = [path.name for path in sorted((tmp_path / "last").iterdir())]
    assert names == ["step-00000004.safetensors", "step-00000006.safetensors"]


def test_no_state_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None


# --- folders --------------------------------------------------------------------------------------------


def finished(folder: Path, **card: Any) -> Path:
    """A run folder with a card, prompts and weights."""
    method = Lora(settings())
    task = make_task()
    classifier = method.build(task)
    checkpoint.save_weights(folder, method, classifier, "demo")
    checkpoint.save_prompts(folder, task.prompts_CD)
    checkpoint.write_config(folder, given(epochs=15, rank=16))
    content = {
        "format_version": 2,
        "method": "lora",
        "backbone": {"name": "demo", "weights_hash": "0" * 64, "logit_scale": 20.0},
        "classes": list(task.classes),
        "templates": ["a {}"],
        "preprocessing": {},
        "settings": settings().to_json(),
        "seed": 0,
        "trainable_params": 769,
    }
    write_card(folder, RunCard.from_json(content), checkpoint.recorded_files(method, ()))
    if card:  # what no RunCard can be
        written = json.loads((folder / "card.json").read_text())
        checkpoint.write_json(folder / "card.json", sealed({**written, **card}))
    return folder


def test_a_run_is_found_by_its_folder_a_file_in_it_or_its_historic_name(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    for path in (run, run / "adapter_model.safetensors", run / "card.json", run / "clip_lora_best.pt"):
        assert checkpoint.resolve_run(path) == run


def test_what_is_no_run_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Run folder .* not found"):
        checkpoint.resolve_run(tmp_path / "missing")
    with pytest.raises(RunError, match="not a run folder"):
        checkpoint.resolve_run(tmp_path)
    with pytest.raises(RunError, match=r"Run folder .* not found"):
        checkpoint.resolve_run(finished(tmp_path / "run") / "clip_lora_bset.pt")
    begun = tmp_path / "begun"
    checkpoint.write_json(begun / "config.json", {})
    with pytest.raises(RunError, match=r"an unfinished run\. Finish it with"):
        checkpoint.resolve_run(begun)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"method": "telepathy"}, "not the card of a run: there is no method 'telepathy'"),
        ({"format_version": "one"}, "not the card of a run: format_version missing or invalid"),
        ({"classes": [1, 2]}, "not the card of a run: classes missing or invalid"),
        ({"backbone": {}, "seed": -1}, "backbone, seed missing or invalid"),
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
    with pytest.raises(RunError, match="classes missing"):
        checkpoint.load_run(run)
    for content in ("{", "[" * 200_000, "7"):
        (run / "card.json").write_text(content)
        with pytest.raises(RunError, match="is not the card" if content == "7" else "is not valid JSON"):
            checkpoint.load_run(run)


def test_damaged_missing_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    run = checkpoint.load_run(finished(tmp_path))
    assert run.classifier().training is False
    weights = tmp_path / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(RunError, match="is damaged"):
        run.classifier()
    weights.unlink()
    with pytest.raises(RunError, match="is missing"):
        run.classifier()
    weights.write_bytes((tmp_path / "prompts.safetensors").read_bytes())
    write_card(tmp_path, run.card, ["adapter_model.safetensors"])  # whole, but of something else
    with pytest.raises(RunError, match="does not contain the weights of the method 'lora'"):
        checkpoint.load_run(tmp_path).classifier()


def test_a_run_of_format_1_loads_and_warns_that_it_has_no_checksums(tmp_path: Path) -> None:
    run = checkpoint.load_run(finished(tmp_path))
    assert run.caution is None
    card = {key: value for key, value in run.card.to_json().items() if key != "files"}
    (tmp_path / "card.json").write_text(json.dumps({**card, "format_version": 1}))
    older = checkpoint.load_run(tmp_path)
    assert older.caution is not None and "no checksums" in older.caution
    assert older.classifier().training is False
    (tmp_path / "card.json").write_text(json.dumps(card))  # of format 2, which has a seal
    with pytest.raises(RunError, match="checksum does not match"):
        checkpoint.load_run(tmp_path)


def test_adding_to_a_card_seals_it_again(tmp_path: Path) -> None:
    finished(tmp_path)
    add_to_card(tmp_path, confidence={"temperature": 1.5})
    assert checkpoint.load_run(tmp_path).card.confidence == {"temperature": 1.5}


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
    run_folders.check_folder(tmp_path / "new", given(), resume=False)
    run = finished(tmp_path / "run")
    with pytest.raises(RunError, match=r"already contains a run.*--resume"):
        run_folders.check_folder(run, given(), resume=False)
    run_folders.check_folder(run, given(epochs=15, rank=16, workers=7, data="elsewhere"), resume=True)
    with pytest.raises(RunError, match=r"other settings: epochs 15 -> 3, rank 16 -> 8"):
        run_folders.check_folder(run, given(epochs=3, rank=8), resume=True)


def test_a_run_that_died_before_its_first_epoch_may_be_started_again(tmp_path: Path) -> None:
    checkpoint.write_config(tmp_path, given())
    run_folders.check_folder(tmp_path, given(epochs=3), resume=False)


def test_a_folder_without_a_run_may_be_resumed(tmp_path: Path) -> None:
    run_folders.check_folder(tmp_path, given(), resume=True)
    run_folders.check_folder(tmp_path / "new", given(), resume=True)


def test_a_file_in_the_run_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        run_folders.check_folder(tmp_path / "file", given(), resume=False)


def test_a_method_that_gives_nothing_to_save_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    method = METHODS["linear-probe"](settings())
    monkeypatch.setattr(type(method), "tensors", lambda *_: {})
    with pytest.raises(ValueError, match="linear-probe: `tensors` returns nothing to save"):
        checkpoint.save_weights(tmp_path, method, method.build(task), "demo")
    zero_shot = METHODS["zero-shot"](settings())
    assert checkpoint.save_weights(tmp_path, zero_shot, zero_shot.build(task), "demo") == ()


def test_every_field_of_the_card_is_checked() -> None:
    assert list(run_card._KINDS) == [field.name for field in dataclasses.fields(RunCard)]
    assert list(run_card._MODEL_KINDS) == [field.name for field in dataclasses.fields(run_card.ModelOfRun)]
