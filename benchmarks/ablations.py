"""What each choice is worth that clip-har makes differently from the project it succeeds: one change per row.

    python benchmarks/ablations.py --name synthetic [--data FOLDER --model MODEL] [--seeds 0,1,2] [--towers]
    python benchmarks/ablations.py --tables

Each row is the reference run with one choice changed, on the same images, with the difference in test accuracy and a
paired 95 % bootstrap interval over the images. Results go to benchmarks/results/ablations-NAME.json; --tables writes
the tables of docs/ablations.md from these files. Without --data, the synthetic images of clip-har quickstart are drawn.
Finished runs are reused. Rows that train the encoders need --towers and are trained with the first seed only.

It is not a preset of `clip-har compare`, whose methods share model, precision, prompts and selection: four of the rows
change just these.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from clip_har import checkpoint
from clip_har.commands.quickstart import draw_demo
from clip_har.config import DataConfig, TrainConfig, apply_preset, with_values
from clip_har.console import ConsoleProgress
from clip_har.evaluation.statistics import flip_p
from clip_har.experiment.fit import TrainingRun
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment, prepare
from clip_har.experiment.training import finished_or_trained
from clip_har.files import write_atomically
from clip_har.locking import exclusive

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "ablations.md"
RESAMPLES = 10_000
CorrectArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One choice changed."""

    name: str
    here: str
    """What clip-har does by default."""
    there: str
    """What this row does instead."""
    changes: Mapping[str, Any]
    """Settings of train, by their names in a config file."""
    reference: str = "lora"
    last_epoch: bool = False
    """Whether the last epoch's weights are kept, and not the best on validation."""
    towers: bool = False
    """Whether the encoders are trained."""
    interpolated: bool = False
    """Whether it starts from the reference's run."""


REFERENCES: Mapping[str, Mapping[str, Any]] = {"lora": {"method": "lora"}, "ridge": {"method": "ridge"}}
ONE_TEMPLATE = ["a photo of a person {}."]
LOSS, FEATURES, RANK, ALPHA = (
    "cross-entropy over the class prompts",
    "features before the projection",
    "rank 16",
    "alpha 32",
)
ENCODER, PLACE = "float32 encoder", "LoRA on the output embeddings"
IN_ATTENTION = "LoRA in the attention layers of both encoders, with its defaults (rank 2, lr 5e-4, 10 epochs)"
ROWS = (
    Row(
        name="loss-infonce",
        here=LOSS,
        there="InfoNCE in the batch: captions of the same class are negatives",
        changes={"loss": "infonce"},
    ),
    Row(
        name="loss-supcon",
        here=LOSS,
        there="contrastive in the batch: captions of the same class are positives",
        changes={"loss": "supcon"},
    ),
    Row(name="last-epoch", here="best epoch on validation", there="last epoch", changes={}, last_epoch=True),
    Row(name="bfloat16", here=ENCODER, there="bfloat16 encoder", changes={"precision": "bfloat16"}),
    Row(
        name="one-template",
        here="mean of seven templates",
        there="one template",
        changes={"templates": ONE_TEMPLATE},
    ),
    Row(
        name="embedding",
        here=FEATURES,
        there="embeddings, with their default lr (1e-3 for 3e-3)",
        changes={"features": "embedding"},
    ),
    Row(
        name="embedding-same-lr",
        here=FEATURES,
        there="embeddings, with the same lr (3e-3)",
        changes={"features": "embedding", "lr": 3e-3},
    ),
    Row(name="rank-4", here=RANK, there="rank 4 (alpha / r is 8, not 2)", changes={"rank": 4}),
    Row(name="rank-64", here=RANK, there="rank 64 (alpha / r is 0.5, not 2)", changes={"rank": 64}),
    Row(name="alpha-8", here=ALPHA, there="alpha 8", changes={"alpha": 8.0}),
    Row(name="alpha-128", here=ALPHA, there="alpha 128", changes={"alpha": 128.0}),
    Row(name="no-dropout", here="dropout 0.1", there="no dropout", changes={"dropout": 0.0}),
    Row(
        name="wise-ft",
        here="the trained weights",
        there="interpolated with zero-shot (WiSE-FT), weight selected on validation",
        changes={"method": "wise-ft"},
        interpolated=True,
    ),
    Row(
        name="no-refit",
        here="fitted on training and validation images, penalty by cross-validation",
        there="fitted on the training images, penalty by validation",
        changes={"refit": False},
        reference="ridge",
    ),
    Row(
        name="ridge-bfloat16",
        here=ENCODER,
        there="bfloat16 encoder",
        changes={"precision": "bfloat16"},
        reference="ridge",
    ),
    Row(name="attention", here=PLACE, there=IN_ATTENTION, changes={"placement": "attention"}, towers=True),
    Row(
        name="attention-image",
        here=PLACE,
        there="the same in the image encoder only",
        changes={"placement": "attention", "towers": ["image"]},
        towers=True,
    ),
    Row(
        name="attention-all",
        here=PLACE,
        there="LoRA in all layers of both encoders",
        changes={"placement": "all"},
        towers=True,
    ),
)


@dataclass(kw_only=True)
class Bench:
    """One dataset and model, and what was trained on it."""

    base: TrainConfig
    work: Path
    progress: ConsoleProgress
    experiments: dict[object, Experiment] = field(default_factory=dict)
    runs: dict[tuple[str, int], checkpoint.Run] = field(default_factory=dict)

    def experiment(self, config: TrainConfig) -> Experiment:
        if config.backbone not in self.experiments:
            prepared = prepare(config.data, config.backbone, out=self.work, progress=self.progress)
            self.experiments[config.backbone] = prepared
        return self.experiments[config.backbone]

    def correct(self, name: str, changes: Mapping[str, Any], seed: int, *, last_epoch: bool = False) -> CorrectArray:
        """Whether each test image is right after a training."""
        config = apply_preset(with_values(self.base, {**changes, "seed": seed}))
        folder = self.work / name / str(seed)
        experiment = self.experiment(config)
        with exclusive(folder), keeping_the_last() if last_epoch else contextlib.nullcontext():
            run = finished_or_trained(config, folder, experiment, self.progress, "")
        self.runs[name, seed] = run
        test = experiment.images("test")
        probabilities_NC = Predictions(run, experiment, self.progress).finetuned(test)
        assert probabilities_NC is not None
        right: CorrectArray = probabilities_NC.argmax(axis=1) == test.labels_N.numpy()
        return right


@contextlib.contextmanager
def keeping_the_last() -> Iterator[None]:
    """Each epoch counts as better than the one before it."""
    with patch.object(TrainingRun, "_rank", lambda _self, entry: (entry["epoch"], 0.0)):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="synthetic")
    parser.add_argument("--about", default="the synthetic images of clip-har quickstart, demo model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--towers", action="store_true")
    parser.add_argument("--only", default="", help="rows to measure, comma-separated")
    parser.add_argument("--work", type=Path, default=Path("ablations"))
    parser.add_argument("--tables", action="store_true")
    asked = parser.parse_args()
    if asked.tables:
        write_tables()
        return
    progress = ConsoleProgress()
    data = asked.data or draw_demo(asked.work / "data", seed=0, progress=progress)
    base = with_values(TrainConfig(data=DataConfig(data=data)), {"model": asked.model, "precision": "float32"})
    bench = Bench(base=base, work=asked.work / asked.name, progress=progress)
    seeds = [int(text) for text in asked.seeds.split(",")]
    only = set(filter(None, asked.only.split(",")))
    rows = [row for row in ROWS if (asked.towers or not row.towers) and (not only or row.name in only)]
    measure(bench, rows, seeds, asked.name, asked.about)


def measure(bench: Bench, rows: Sequence[Row], seeds: Sequence[int], name: str, about: str) -> None:
    """Train and compare; the file is written after each row."""
    references = {
        kind: {seed: bench.correct(kind, changes, seed) for seed in seeds} for kind, changes in REFERENCES.items()
    }
    path = RESULTS / f"ablations-{name}.json"
    found = earlier_rows(path, seeds)
    for row in rows:
        own = seeds[:1] if row.towers else seeds
        started = time.perf_counter()
        changed = {
            seed: bench.correct(row.name, _changes(row, seed, bench), seed, last_epoch=row.last_epoch) for seed in own
        }
        seconds = time.perf_counter() - started
        found[row.name] = {**_compared(row, references[row.reference], changed), "seconds": seconds}
        bench.progress.note(f"{row.name}: {100 * found[row.name]['difference']:+.2f} points")
        content = {
            "about": about,
            "model": bench.base.backbone.model,
            "images": len(references["lora"][seeds[0]]),
            "seeds": list(seeds),
            "machine": platform.machine(),
            "references": {
                kind: float(np.mean([right.mean() for right in by_seed.values()]))
                for kind, by_seed in references.items()
            },
            "rows": [found[row.name] for row in ROWS if row.name in found],
        }
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_atomically(path, text + "\n")


def earlier_rows(path: Path, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The rows that an earlier command with the same seeds has measured."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {row["name"]: row for row in content["rows"]} if content["seeds"] == list(seeds) else {}


def _changes(row: Row, seed: int, bench: Bench) -> dict[str, Any]:
    changes = {**REFERENCES[row.reference], **row.changes}
    if row.interpolated:
        changes["start_from"] = str(bench.runs[row.reference, seed].folder)
    return changes


def _compared(row: Row, reference: Mapping[int, CorrectArray], changed: Mapping[int, CorrectArray]) -> dict[str, Any]:
    """The row's accuracy, and its difference from the reference with the same seeds, paired by image."""
    before_SN = np.stack([reference[seed] for seed in changed])
    after_SN = np.stack(list(changed.values()))
    gains_N = after_SN.sum(axis=0, dtype=np.int64) - before_SN.sum(axis=0, dtype=np.int64)
    count, draw = len(gains_N), np.random.default_rng(0)
    means = [gains_N[draw.integers(0, count, count)].mean() / len(changed) for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    described = {item.name: getattr(row, item.name) for item in dataclasses.fields(row)}
    return {
        **{key: described[key] for key in ("name", "here", "there", "reference", "changes")},
        "seeds": len(changed),
        "accuracy": float(after_SN.mean()),
        "difference": float(gains_N.mean() / len(changed)),
        "ci95": [float(low), float(high)],
        "p": flip_p(gains_N),
    }


def write_tables() -> None:
    """Put a table for each result file between its marks in docs/ablations.md."""
    page = PAGE.read_text(encoding="utf-8")
    for path in sorted(RESULTS.glob("ablations-*.json")):
        name = path.stem.removeprefix("ablations-")
        start, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        if start not in page:
            raise SystemExit(f"{PAGE} has no mark for {path.name}: {start.strip()}")
        before, rest = page.split(start, 1)
        _, after = rest.split(end, 1)
        page = before + start + "\n" + table(json.loads(path.read_text(encoding="utf-8"))) + "\n" + end + after
    write_atomically(PAGE, page)


def table(content: Mapping[str, Any]) -> str:
    """A result file as Markdown."""
    lines = [
        "| reference | choice here | changed to | seeds | accuracy | difference in points (95 % CI) | p |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in content["rows"]:
        low, high = (100 * bound for bound in row["ci95"])
        p = "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
        reference = f"`{row['reference']}` {content['references'][row['reference']]:.1%}"
        gain = f"{100 * row['difference']:+.1f} ({low:+.1f} to {high:+.1f})"
        cells = [reference, row["here"], row["there"], row["seeds"], f"{row['accuracy']:.1%}", gain, p]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines).replace("%", " %").replace("  %", " %") + "\n"


if __name__ == "__main__":
    main()
