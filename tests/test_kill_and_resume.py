"""kill -9 before each rename and at random moments: what continues ends bit-identical to what was never stopped."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path

import pytest

from clip_har import checkpoint
from forked import RENAMES, Server, random_wait
from samples import write_dataset

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

RANDOM_KILLS = 5
TOWERS = ("--epochs=2", "--batch-size=8", "--lr=1e-3", "--save-steps=2")
COMMANDS = {
    "lora": ("train", "--method=lora", "--epochs=3", "--batch-size=8", "--save-steps=2"),
    "lora-attention": ("train", "--method=lora", "--placement=attention", "--augment=strong", "--mixup=0.3", *TOWERS),
    "full": ("train", "--method=full", "--hard-pairs=0.5", "--ema=0.9", "--accumulate=2", "--loss=supcon", *TOWERS),
    "refit": ("train", "--method=lp-ft", "--refit", *TOWERS),
    "compare": ("compare", "--methods=zero-shot,lora", "--epochs=2", "--batch-size=8"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), train=10, test=2)


def command_of(name: str, data: Path, model: str, out: Path, *flags: str) -> list[str]:
    given = (f"--data={data}", f"--model={model}", f"--out={out}", "--precision=float32", "--workers=0")
    return [*COMMANDS[name], *given, f"--cache={out.parent / 'cache'}", *flags]


def again(name: str, data: Path, model: str, out: Path) -> list[str]:
    """The command that continues: a comparison's is the same."""
    resume = ("--resume",) if name != "compare" and checkpoint.has_run(out) else ()
    return command_of(name, data, model, out, *resume)


def outcome(out: Path) -> dict[str, str]:
    """The hash of everything that a training decides: weights, class embeddings, splits, and predictions."""
    runs = sorted(card.parent for card in out.rglob("card.json"))
    files = {}
    for run in runs:
        loaded = checkpoint.load_run(run)
        for file in (loaded.weights_file, "prompts.safetensors", "manifest.csv", "eval/predictions.csv"):
            if (run / file).is_file():
                content = (run / file).read_bytes()
                files[f"{run.relative_to(out)}/{file}"] = hashlib.sha256(content).hexdigest()
    return files


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name == ".lock" or path.name.endswith(".tmp")]


@pytest.mark.slow  # two trainings of a tiny model for each rename
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_before_some_renames_it_ends_bit_identical(
    name: str, server: Server, data: Path, tiny_model: str, tmp_path: Path
) -> None:
    kill_before_renames(name, server, data, tiny_model, tmp_path, count=5)


@pytest.mark.fuzz  # the same for all of them
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_before_each_rename_it_ends_bit_identical(
    name: str, server: Server, data: Path, tiny_model: str, tmp_path: Path
) -> None:
    kill_before_renames(name, server, data, tiny_model, tmp_path)


def kill_before_renames(
    name: str, server: Server, data: Path, tiny_model: str, tmp_path: Path, count: int | None = None
) -> None:
    """Kill before each rename of a command, or before `count` of them that nobody chose, and let it continue."""
    # The first command of all writes one file more, the hash of the model's weights.
    for place in ("first", "whole"):
        (whole,) = server.run(command_of(name, data, tiny_model, tmp_path / place / "out"), log=tmp_path / "log")
        assert whole["code"] == 0, (tmp_path / "log.0").read_text()
    expected = outcome(tmp_path / "whole" / "out")
    assert len(expected) >= 3 and whole[RENAMES] >= 10
    numbers = range(1, whole[RENAMES] + 1)
    for number in numbers if count is None else random.Random(time.time_ns()).sample(numbers, count):
        out = tmp_path / str(number) / "out"
        (killed,) = server.run(command_of(name, data, tiny_model, out), log=tmp_path / "log", at_rename=number)
        assert killed["code"] == -9
        (done,) = server.run(again(name, data, tiny_model, out), log=tmp_path / "log")
        assert done["code"] == 0, (number, (tmp_path / "log.0").read_text())
        assert outcome(out) == expected, f"killed before rename {number}"
        assert not [path for path in leftovers(out) if path.name == ".lock"]


@pytest.mark.slow  # several trainings of a tiny model
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments_it_ends_bit_identical(
    name: str, server: Server, data: Path, tiny_model: str, tmp_path: Path
) -> None:
    started = time.perf_counter()
    server.run(command_of(name, data, tiny_model, tmp_path / "whole" / "out"), log=tmp_path / "log")
    seconds = time.perf_counter() - started
    out = tmp_path / "killed" / "out"
    waits = []
    for _ in range(RANDOM_KILLS):
        waits.append(random_wait(seconds))
        server.run(again(name, data, tiny_model, out), log=tmp_path / "log", after=waits[-1])
    (done,) = server.run(again(name, data, tiny_model, out), log=tmp_path / "log")
    assert done["code"] == 0, (waits, (tmp_path / "log.0").read_text())
    assert outcome(out) == outcome(tmp_path / "whole" / "out"), waits


@pytest.mark.slow  # three trainings
def test_of_two_trainings_into_one_folder_one_is_refused_and_the_other_is_whole(
    server: Server, data: Path, tiny_model: str, tmp_path: Path
) -> None:
    out = tmp_path / "both" / "out"
    seeds = [command_of("full", data, tiny_model, out, f"--seed={seed}") for seed in (0, 1)]
    codes = [answer["code"] for answer in server.run(*seeds, log=tmp_path / "log")]
    assert sorted(codes) == [0, 2]
    refused = (tmp_path / f"log.{codes.index(2)}").read_text()
    assert "is being written to by process" in refused and "--out" in refused
    seed = codes.index(0)
    assert checkpoint.load_run(out).card.seed == seed
    alone = tmp_path / "alone" / "out"
    server.run(command_of("full", data, tiny_model, alone, f"--seed={seed}"), log=tmp_path / "log")
    assert outcome(out) == outcome(alone)
