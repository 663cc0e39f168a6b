"""Zero-shot and, where there is one, an adapted model on the same images -> `EvalResult`.

Also says what limits the result: classes without images, and a model that has collapsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_har.dataset import missing_classes_warning
from clip_har.evaluation.metrics import collapse_of, measured
from clip_har.evaluation.records import SCALARS, EvalResult, Evaluated, IntArray, Interval, Metrics
from clip_har.evaluation.resampling import difference_interval
from clip_har.evaluation.statistics import mcnemar_p

BASELINE_NAME = "zero-shot"


def evaluate(
    *,
    classes: Sequence[str],
    paths: Sequence[str],
    targets_N: npt.ArrayLike,
    baseline_NC: npt.ArrayLike,
    finetuned_NC: npt.ArrayLike | None = None,
    finetuned_name: str = "lora",
    split: str = "test",
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> EvalResult:
    """Measures zero-shot and, if given, an adapted model on the same images.

    Args:
        classes: the C class names, in the order of the columns of the scores.
        paths: the N images' paths, as they are to appear in the files.
        targets_N: index of each image's true class.
        baseline_NC: zero-shot's probabilities.
        finetuned_NC: the adapted model's probabilities, or None.
        finetuned_name: name of the adapted model's method.
        split: which images these are, "test" or "val".
        warnings: what is already known to limit the result; more may be added to it.
        seed: seed of the bootstrap.

    Raises:
        DataError: no images, or a target that is not a class.
        ModelError: scores that are not finite.
    """
    targets = np.asarray(targets_N)
    if len(paths) != len(targets):
        raise ValueError(f"{len(paths)} paths but {len(targets)} targets")
    baseline = _evaluated(BASELINE_NAME, baseline_NC, targets, classes, seed)
    finetuned = None
    if finetuned_NC is not None:
        finetuned = _evaluated(finetuned_name, finetuned_NC, targets, classes, seed)
    differences = {} if finetuned is None else _differences(baseline, finetuned)
    models = [baseline] if finetuned is None else [baseline, finetuned]
    found = [*_absent_classes(baseline.metrics, split), *collapse_warnings(models)]
    return EvalResult(
        n=len(targets),
        classes=tuple(classes),
        split=split,
        targets_N=targets.astype(np.int64),
        paths=list(paths),
        baseline=baseline,
        finetuned=finetuned,
        mcnemar_p=None if finetuned is None else _paired_p(baseline, finetuned, targets),
        difference_ci95=differences.get("accuracy"),
        differences=differences,
        bootstrap_seed=seed,
        warnings=(*warnings, *(warning for warning in found if warning not in warnings)),
    )


def collapse_warnings(models: Sequence[Evaluated]) -> list[str]:
    """A warning for each model that gives one answer to (almost) everything though the images differ."""
    found = []
    for model in models:
        collapse = collapse_of(model.metrics)
        if collapse is not None:
            answer, share = collapse
            found.append(
                f"{model.name} predicts {answer} for {share:.0%} of the images: "
                "its predictions have collapsed to one class, and its accuracy is not meaningful."
            )
    return found


def _evaluated(
    name: str, scores: npt.ArrayLike, targets: npt.NDArray[Any], classes: Sequence[str], seed: int
) -> Evaluated:
    found = measured(scores, targets, classes=classes, seed=seed)
    return Evaluated(name=name, probabilities_NC=np.asarray(scores), metrics=found.metrics, samples=found.samples)


def _paired_p(baseline: Evaluated, finetuned: Evaluated, targets: IntArray) -> float:
    return mcnemar_p(baseline.predictions == targets, finetuned.predictions == targets)


def _differences(baseline: Evaluated, finetuned: Evaluated) -> dict[str, Interval]:
    """Interval of each metric's difference, over the resamples that both models share."""
    before, after = baseline.metrics.scalars(), finetuned.metrics.scalars()
    return {
        name: difference_interval(name, after[name] - before[name], baseline.samples[name], finetuned.samples[name])
        for name in SCALARS
    }


def _absent_classes(metrics: Metrics, split: str) -> list[str]:
    absent = [entry.name for entry in metrics.per_class if entry.support == 0]
    return [missing_classes_warning(split, absent, total=len(metrics.per_class))] if absent else []
