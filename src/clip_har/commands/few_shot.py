"""`compare --shots 1,2,4,8,16`: a comparison for each number of training images per class, and what they say together.

One comparison is compare.py's; each has a folder of its own, shots-K, with its runs, tables and report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clip_har import distributed, report
from clip_har.config import CompareConfig
from clip_har.errors import TrainingError
from clip_har.evaluation import ComparisonRow, EvalResult
from clip_har.evaluation.few_shot import FewShotTable, few_shot_table
from clip_har.evaluation.model_comparison import Evaluations
from clip_har.experiment.evaluation import shared_facts
from clip_har.experiment.setup import Experiment
from clip_har.files import remove_stray_temporaries
from clip_har.progress import Progress
from clip_har.wording import counted


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What one comparison found."""

    rows: Sequence[ComparisonRow]
    results: Mapping[str, EvalResult]
    evaluations: Evaluations = field(default_factory=dict)
    """Method -> training seed -> its evaluation, of the rows; not for several numbers of images."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Method without a row -> the reason."""


def compare_shots(
    config: CompareConfig,
    experiment: Experiment,
    compare_one: Callable[[CompareConfig], Compared],
    progress: Progress,
    command: str,
) -> FewShotTable:
    """Run the comparison for each number of images per class, and write few_shot.csv, .json, .png and report.html.

    A number at which every training fails is skipped.

    Args:
        config: with several numbers of shots.
        compare_one: runs the comparison of a config with one number.

    Raises:
        TrainingError: every training failed at every number.
    """
    _say_small_classes(config, experiment, progress)
    found: dict[int, Compared] = {}
    failure: TrainingError | None = None
    for shots in config.shots_compared:
        progress.note(f"{counted(shots, 'training image')} per class")
        try:
            found[shots] = compare_one(dataclasses.replace(config, shots=shots, out=shots_folder(config.out, shots)))
        except TrainingError as error:  # the other numbers are still worth comparing
            progress.warn(f"{counted(shots, 'image')} per class skipped: {error}")
            failure = error
    if failure is not None and not found:
        raise failure
    first = next(result for one in found.values() for result in one.results.values())
    table = few_shot_table(
        {shots: one.rows for shots, one in found.items()},
        zero_shot=first.baseline.metrics.accuracy,
        split=first.split,
        images=first.n,
    )
    if distributed.is_main():
        remove_stray_temporaries(config.out)
        report.write_few_shot(
            table,
            config.out,
            facts=shared_facts(experiment, config.seeds[0]),
            reports={shots: shots_folder(config.out, shots) / "report.html" for shots in found},
            command=command,
        )
    return table


def shots_folder(out: Path, shots: int) -> Path:
    """The folder of the comparison with one number of images per class."""
    return out / f"shots-{shots}"


def _say_small_classes(config: CompareConfig, experiment: Experiment, progress: Progress) -> None:
    """Warn of classes that have fewer training images than the largest number asked for."""
    counts = dict.fromkeys(experiment.dataset.classes, 0)
    for record in experiment.dataset.split("train"):
        counts[record.label] += 1
    name = min(counts, key=counts.__getitem__)
    if counts[name] < config.shots_compared[-1]:
        progress.warn(
            f"{name} has {counted(counts[name], 'training image')}: larger numbers of --shots use all of them for it"
        )
