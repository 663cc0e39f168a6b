"""What validation images tell of a run's confidence: fitted once, kept on its card, checked on test images.

The mathematics is in `evaluation.certainty`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math

from clip_har import checkpoint, distributed, predict
from clip_har.evaluation import Calibration, EvalResult, calibrate, check_confidence
from clip_har.evaluation.confidence import DOUBT, SHOWN_LEVELS
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment
from clip_har.run_card import add_to_card
from clip_har.wording import counted


def with_confidence(
    result: EvalResult, run: checkpoint.Run | None, answering: Predictions, experiment: Experiment
) -> EvalResult:
    """The result with both models' confidence checked on its images.

    As it is where these are themselves validation images, or there are none: nothing could be fitted on others.
    """
    if result.split == "val" or not experiment.dataset.counts()["val"]:
        return result
    val = experiment.images("val")
    zero_shot = calibrate(answering.baseline(val), val.labels_N.numpy())
    calibration = None if run is None else run_calibration(run, answering, experiment)
    finetuned = None
    if result.finetuned is not None and calibration is not None:
        finetuned = check_confidence(calibration, result.finetuned.probabilities_NC, result.targets_N)
    return dataclasses.replace(
        result,
        confidence_baseline=check_confidence(zero_shot, result.baseline.probabilities_NC, result.targets_N),
        confidence_finetuned=finetuned,
    )


def run_calibration(run: checkpoint.Run, answering: Predictions, experiment: Experiment) -> Calibration:
    """What the run's card holds; else fitted on the validation images, and kept if they are the run's own."""
    kept = predict.recorded_calibration(run)
    if kept is not None:
        return kept
    calibration = fit_calibration(answering)
    own = run.card.manifest_sha256 == experiment.whole.manifest_hash()
    if own and distributed.is_main():
        with contextlib.suppress(OSError):  # a run may lie where nothing can be written
            add_to_card(run.folder, confidence=calibration.to_json())
    return calibration


def fit_calibration(answering: Predictions) -> Calibration:
    """A run's calibration, fitted on answers for images that it was not fitted on."""
    return calibrate(*answering.judged())


def too_few_images(count: int) -> str | None:
    """One line on the levels that so many validation images cannot give to `predict`; None where they are enough.

    What a level needs does not depend on the model: of fewer images a prediction set contains every class
    (`conformal_threshold`), and even without an error the bound of fewer is below the accuracy (`least_accuracy`).
    """
    sets = {level: math.ceil(level / (1 - level) - 1e-9) for level in SHOWN_LEVELS}
    accuracies = {level: math.ceil(math.log(DOUBT) / math.log(level)) for level in SHOWN_LEVELS}
    missing = []
    for flag, needed in (("--coverage", sets), ("--accuracy", accuracies)):
        levels = [f"{level} (requires {images})" for level, images in needed.items() if images > count]
        if levels:
            missing.append(f"{flag} {', '.join(levels)}")
    if not missing:
        return None
    verb = "is" if count == 1 else "are"
    return f"{counted(count, 'validation image')} {verb} too few for predict {' and '.join(missing)}"
