"""One method's evaluations, over one seed or several -> its row in a comparison.

What the numbers mean compared with zero-shot's is put into words in `report.standing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from clip_har.evaluation.evaluate import BASELINE_NAME
from clip_har.evaluation.findings import BaseNovel
from clip_har.evaluation.metrics import COLLAPSE_SHARE, collapse_of
from clip_har.evaluation.records import SCALARS, BoolArray, EvalResult, Interval, plain
from clip_har.evaluation.resampling import interval_over_seeds
from clip_har.evaluation.statistics import sign_flip_p


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One metric over the seeds of a row."""

    mean: float
    std: float | None
    """Sample standard deviation over the seeds (n - 1 below the line); None for one."""
    ci95: Interval
    """Of the mean, over images for one seed, over images and seeds for several; `interval_over_seeds` says how."""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """What one method or preset reached, and what it cost, on the images that all compared entries share."""

    name: str
    """The entry as it was asked for: a method or a preset, such as "lora-attention"."""
    method: str
    """The method behind the entry, such as "lora"."""
    seeds: tuple[int, ...]
    """Seeds of the trainings, one at least."""
    accuracies: tuple[float, ...]
    """Accuracy of each seed's training."""
    accuracy: float
    """Mean over the seeds."""
    accuracy_ci95: Interval
    """Over images for one seed, over images and seeds for several; `interval_over_seeds` says how."""
    accuracy_std: float | None
    """Sample standard deviation over the seeds (n - 1 below the line); None for one."""
    macro_f1: float
    """Mean over the seeds."""
    macro_f1_std: float | None
    ece: float
    """Mean over the seeds."""
    trainable_params: int
    trainable_fraction: float
    peak_memory_bytes: int | None
    """Of the training that needed most; None where it was not measured."""
    train_seconds: float | None
    """Mean over the seeds; None where it was not measured."""
    mcnemar_p: float | None
    """Against zero-shot on the same images, None for zero-shot itself. One seed: McNemar's test. Several: the
    sign-flip test that McNemar's becomes when the seeds' answers are averaged image by image (`sign_flip_p`)."""
    collapsed: bool
    """Whether any seed's training answers one class for over 90 % of the images."""
    note: str = ""
    """What a reader must know of this row, in words."""
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    """Each of `SCALARS` over the seeds."""
    unseen: BaseNovel | None = None
    """Accuracy on trained and on held-out actions, mean over the seeds; None where none were held out."""

    @property
    def paired_test(self) -> str | None:
        """The test that `mcnemar_p` comes from: "mcnemar" or "sign-flip"."""
        if self.mcnemar_p is None:
            return None
        return "mcnemar" if len(self.seeds) == 1 else "sign-flip"

    def to_json(self) -> dict[str, Any]:
        """One entry of comparison.json, where "method" is the entry as it was asked for.

        "mcnemar_p" is the former name of "p", from before there were several seeds and another test for them.
        """
        return {
            "method": self.name,
            "base_method": self.method,
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "accuracy_std": self.accuracy_std,
            "seeds": list(self.seeds),
            "accuracies": list(self.accuracies),
            "macro_f1": self.macro_f1,
            "macro_f1_std": self.macro_f1_std,
            "ece": self.ece,
            "trainable_params": self.trainable_params,
            "trainable_fraction": self.trainable_fraction,
            "peak_memory_bytes": self.peak_memory_bytes,
            "train_seconds": self.train_seconds,
            "p": self.mcnemar_p,
            "mcnemar_p": self.mcnemar_p,
            "paired_test": self.paired_test,
            "collapsed": self.collapsed,
            "note": self.note,
            "metrics": {name: plain(asdict(summary)) for name, summary in self.summaries.items()},
            **({} if self.unseen is None else {"unseen": asdict(self.unseen)}),
        }


def comparison_row(
    name: str,
    method: str,
    results: Mapping[int, EvalResult],
    *,
    trainable_params: int,
    trainable_fraction: float,
    peak_memory_bytes: Sequence[int | None],
    train_seconds: Sequence[float | None],
    note: str = "",
    seed: int = 0,
) -> ComparisonRow:
    """The row of one method or preset.

    Args:
        name: the entry as it was asked for.
        method: the method behind it.
        results: training seed -> its evaluation, all on the same images.
        trainable_params: parameters adapted, the same for every seed.
        trainable_fraction: their share of the model's, in [0, 1].
        peak_memory_bytes: of each training, in the order of `results`; None where it was not measured.
        train_seconds: likewise.
        note: what is already known to matter for this row; more may be added to it.
        seed: seed of the resampling of training seeds; the images' resamples are those of the evaluations.
    """
    evaluations = list(results.values())
    _check(evaluations, peak_memory_bytes, train_seconds)
    first = evaluations[0]
    before_N = first.baseline.predictions == first.targets_N
    correct_SN = np.array([result.best.predictions == result.targets_N for result in evaluations])
    accuracies = [result.best.metrics.accuracy for result in evaluations]
    summaries = {name: _summary(name, evaluations, seed) for name in SCALARS}
    collapse = _collapse_remark(evaluations)
    remarks = [note, collapse, _seeds_below(accuracies, first.baseline.metrics.accuracy)]
    return ComparisonRow(
        name=name,
        method=method,
        seeds=tuple(results),
        accuracies=tuple(accuracies),
        accuracy=summaries["accuracy"].mean,
        accuracy_ci95=summaries["accuracy"].ci95,
        accuracy_std=summaries["accuracy"].std,
        macro_f1=summaries["macro_f1"].mean,
        macro_f1_std=summaries["macro_f1"].std,
        ece=summaries["ece"].mean,
        trainable_params=trainable_params,
        trainable_fraction=trainable_fraction,
        peak_memory_bytes=max((size for size in peak_memory_bytes if size is not None), default=None),
        train_seconds=_mean_known(train_seconds),
        mcnemar_p=_paired_p(first, before_N, correct_SN),
        collapsed=bool(collapse),
        note="; ".join(remark for remark in remarks if remark),
        summaries=summaries,
    )


def baseline_row(rows: Sequence[ComparisonRow]) -> ComparisonRow | None:
    """The row of zero-shot, if it is among them: the one of that name, or else the first of that method."""
    named = [row for row in rows if row.name == BASELINE_NAME]
    return next(iter(named or [row for row in rows if row.method == BASELINE_NAME]), None)


def _check(
    evaluations: Sequence[EvalResult], peak_memory_bytes: Sequence[object], train_seconds: Sequence[object]
) -> None:
    if not evaluations:
        raise ValueError("a row needs at least one evaluation")
    if not len(peak_memory_bytes) == len(train_seconds) == len(evaluations):
        raise ValueError(
            f"{len(evaluations)} evaluations, {len(peak_memory_bytes)} peak memories and {len(train_seconds)} times"
        )
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.paths != first.paths or not np.array_equal(other.targets_N, first.targets_N):
            raise ValueError("the seeds of one row must be evaluated on the same images")
        if not np.array_equal(other.baseline.predictions, first.baseline.predictions):
            raise ValueError("the seeds of one row must be measured against the same zero-shot model")
        if other.bootstrap_seed != first.bootstrap_seed:
            raise ValueError("the seeds of one row must be evaluated with the same seed of the bootstrap")


def _summary(name: str, evaluations: Sequence[EvalResult], seed: int) -> Summary:
    values = [getattr(result.best.metrics, name) for result in evaluations]
    samples_SR = np.stack([result.best.samples[name] for result in evaluations])
    return Summary(
        mean=float(np.mean(values)),
        std=_spread(values),
        ci95=interval_over_seeds(name, values, samples_SR, seed=seed),
    )


def _paired_p(first: EvalResult, before_N: BoolArray, correct_SN: BoolArray) -> float | None:
    if first.finetuned is None:
        return None
    return first.mcnemar_p if len(correct_SN) == 1 else sign_flip_p(before_N, correct_SN)


def _collapse_remark(results: Sequence[EvalResult]) -> str:
    """What a collapsed training answers; for several seeds, how many have collapsed."""
    found = [collapse for result in results if (collapse := collapse_of(result.best.metrics)) is not None]
    if not found:
        return ""
    if len(results) == 1:
        return f"predicts {found[0][0]} for {found[0][1]:.0%} of the images"
    answers = ", ".join(dict.fromkeys(answer for answer, _ in found))
    seeds = f"{len(found)} of {len(results)} seeds"
    return f"{seeds} predict one class for over {COLLAPSE_SHARE:.0%} of the images ({answers})"


def _seeds_below(accuracies: Sequence[float], level: float) -> str:
    """A remark where the mean hides that some trainings did harm."""
    below = sum(accuracy < level for accuracy in accuracies)
    if not below or np.mean(accuracies) <= level:
        return ""
    return f"{below} of {len(accuracies)} seeds {'is' if below == 1 else 'are'} below zero-shot"


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
