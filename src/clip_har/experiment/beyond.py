"""What `evaluate` finds beyond the test split's metrics, as asked: robustness, shift, unseen actions, WiSE-FT's curve.

How each is measured is in the module of its name.
"""

from __future__ import annotations

from pathlib import Path

from clip_har import checkpoint, distributed
from clip_har.config import EvaluateConfig
from clip_har.dataset import SplitName
from clip_har.evaluation.findings import Findings, Robustness
from clip_har.experiment.novel_classes import measure_unseen
from clip_har.experiment.predictions import Answering
from clip_har.experiment.robustness import measure_robustness, measure_shift
from clip_har.experiment.setup import Prepared
from clip_har.experiment.wise_ft_curve import Outside, measure_wise_curve
from clip_har.progress import Progress


def find(
    config: EvaluateConfig,
    answering: Answering,
    prepared: Prepared,
    split: SplitName,
    out: Path,
    progress: Progress,
) -> Findings:
    """Measure what the configuration asks for; robustness is also written to robustness.json in `out`.

    Raises:
        DataError: the other dataset cannot be used.
    """
    robustness = _robustness(config, answering, prepared, split, out, progress) if config.robustness else None
    shift = None
    if config.shift is not None:
        shift = measure_shift(answering, prepared, config.shift, seed=config.seed, progress=progress)
    outside = Outside(
        kinds=config.corruptions if config.robustness else (),
        severities=config.severities,
        limit=config.robustness_images,
        shift=config.shift,
        seed=config.seed,
    )
    return Findings(
        robustness=robustness,
        shift=shift,
        unseen=measure_unseen(answering, prepared, split, progress),
        wise_curve=measure_wise_curve(answering.run, prepared, split, outside, progress),
    )


def _robustness(
    config: EvaluateConfig,
    answering: Answering,
    prepared: Prepared,
    split: SplitName,
    out: Path,
    progress: Progress,
) -> Robustness:
    found = measure_robustness(
        answering,
        prepared,
        split,
        kinds=config.corruptions,
        severities=config.severities,
        limit=config.robustness_images,
        seed=config.seed,
        progress=progress,
    )
    if distributed.is_main():
        checkpoint.write_json(out / "robustness.json", Findings(robustness=found).to_json()["robustness"])
    return found
