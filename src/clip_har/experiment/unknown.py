"""Unknown actions: the threshold that a run keeps for predict, and how well scores tell its held-out classes.

The mathematics is in `evaluation.unknown` and `evaluation.gaussians`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import torch

from clip_har import checkpoint, distributed
from clip_har.dataset import SplitName
from clip_har.evaluation import FloatArray
from clip_har.evaluation.gaussians import fit_gaussians
from clip_har.evaluation.unknown import (
    FALSE_ALARMS,
    Scores,
    UnknownActions,
    UnknownScore,
    max_softmax,
    negative_energy,
    thresholds,
    unknown_score,
)
from clip_har.experiment.novel_classes import novel_images
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment
from clip_har.methods import Classifier, LabelledImages
from clip_har.methods.gda import Gda
from clip_har.methods.linear_heads import TRANSFORMS, LinearHeadClassifier, transformed
from clip_har.progress import Progress
from clip_har.run_card import add_to_card


def fit_unknown(answering: Predictions) -> dict[str, Any]:
    """The card's "unknown": thresholds on the largest probability, from the answers that the run is calibrated by."""
    scores_N = max_softmax(answering.judged()[0])
    kept = {str(rate): threshold for rate, threshold in thresholds(scores_N).items()}
    return {"images": len(scores_N), "max_softmax": kept}


def measure_unknown(
    answering: Predictions, experiment: Experiment, split: SplitName, progress: Progress
) -> UnknownActions | None:
    """Each score on the images of one split, those of the held-out classes as unknown; None if none were held out."""
    novel = novel_images(answering.run, experiment, split, progress)
    if novel is None or experiment.novel is None:
        return None
    known, unknown, val = experiment.images(split), novel.images, experiment.images("val")
    chosen_on = None if split == "val" or not len(val) else val
    scores = _zero_shot_scores(answering, experiment, known, unknown, chosen_on)
    if answering.run is not None:
        judged_K = None if chosen_on is None else max_softmax(answering.judged()[0])
        scores += _scores_of_run(answering.run, answering, known, unknown, chosen_on, judged_K)
        if isinstance(answering.run.method, Gda):
            scores += _mahalanobis(answering.run, answering, experiment, known, unknown, chosen_on)
    return UnknownActions(
        classes=experiment.novel.classes,
        known=len(known),
        unknown=len(unknown),
        rate=FALSE_ALARMS,
        scores=tuple(scores),
    )


def keep_on_card(run: checkpoint.Run | None, answering: Predictions, experiment: Experiment, found: Any) -> None:
    """Add the thresholds and what was measured to the card of a run on its own images, unless it is there."""
    own = run is not None and run.card.manifest_sha256 == experiment.whole.manifest_hash()
    if run is None or not own or not distributed.is_main():
        return
    content = dict(run.card.unknown or {})
    if not content and experiment.dataset.counts()["val"]:
        content = fit_unknown(answering)
    if found is not None:
        content["measured"] = _summary(found)
    if content and content != run.card.unknown:
        with contextlib.suppress(OSError):  # a run may lie where nothing can be written
            add_to_card(run.folder, unknown=content)


def _summary(found: UnknownActions) -> dict[str, Any]:
    """What was measured, as the card has it: without the curves."""
    scores = [dataclasses.asdict(score) for score in found.scores]
    rest = {"classes": list(found.classes), "known": found.known, "unknown": found.unknown, "rate": found.rate}
    return {**rest, "scores": [{key: value for key, value in score.items() if key != "roc"} for score in scores]}


def _zero_shot_scores(
    answering: Predictions,
    experiment: Experiment,
    known: LabelledImages,
    unknown: LabelledImages,
    val: LabelledImages | None,
) -> list[UnknownScore]:
    classifier = experiment.model.classifier()
    sets = (known, unknown, *(() if val is None else (val,)))
    return [
        unknown_score("zero-shot", "max-softmax", *(max_softmax(answering.baseline(images)) for images in sets)),
        unknown_score("zero-shot", "energy", *(negative_energy(_logits(classifier, images)) for images in sets)),
    ]


def _scores_of_run(
    run: checkpoint.Run,
    answering: Predictions,
    known: LabelledImages,
    unknown: LabelledImages,
    val: LabelledImages | None,
    judged_K: Scores | None,
) -> list[UnknownScore]:
    """Largest probability; and energy, unless the logits would need a second pass of the encoder over the images."""
    sets = (known, unknown, *(() if val is None else (val,)))
    name = run.card.method
    largest_N, largest_M = _largest(answering, known), _largest(answering, unknown)
    scores = [unknown_score(name, "max-softmax", largest_N, largest_M, judged_K)]
    classifier = answering.classifier
    if classifier.reads != "image":
        fitted = sets[:2] if run.settings.refit else sets  # there are no logits of cross-validation
        energies = (negative_energy(_logits(classifier, images)) for images in fitted)
        scores.append(unknown_score(name, "energy", *energies))
    return scores


def _mahalanobis(
    run: checkpoint.Run,
    answering: Predictions,
    experiment: Experiment,
    known: LabelledImages,
    unknown: LabelledImages,
    val: LabelledImages | None,
) -> list[UnknownScore]:
    """Both distances in the space and with the shrinkage that the run of gda chose; nothing without training images."""
    classifier = answering.classifier
    if not isinstance(classifier, LinearHeadClassifier) or not experiment.dataset.counts()["train"]:
        return []
    experiment.model.store.encode(experiment.dataset.split("train"))
    task = experiment.task(run.card.seed, shots=run.settings.shots)
    fitted = task.train.joined(task.val) if run.settings.refit else task.train
    if set(fitted.labels_N.tolist()) != set(range(len(task.classes))):
        return []
    transform = TRANSFORMS[int(classifier.transform)]
    shrinkage = Gda.penalty_of(str(run.card.validation["candidate"]))

    def features(images: LabelledImages) -> FloatArray:
        values: FloatArray = transformed(images.table.hidden, transform).numpy()
        return values

    gaussians = fit_gaussians(features(fitted), fitted.labels_N.numpy(), len(task.classes), shrinkage)
    sets = (known, unknown, *(() if val is None or run.settings.refit else (val,)))
    plain, relative = zip(*(gaussians.scores(features(images)) for images in sets), strict=True)
    return [
        unknown_score(run.card.method, "mahalanobis", *plain),
        unknown_score(run.card.method, "relative-mahalanobis", *relative),
    ]


def _largest(answering: Predictions, images: LabelledImages) -> Scores:
    answers_NC = answering.finetuned(images)
    assert answers_NC is not None
    return max_softmax(answers_NC)


@torch.no_grad()
def _logits(classifier: Classifier, images: LabelledImages, chunk: int = 8192) -> FloatArray:
    """The logits of a classifier of cached features: [N, C]."""
    classifier.eval()
    parts = images.features(classifier.reads).split(chunk)
    logits: FloatArray = np.concatenate(
        [classifier(part.to(classifier.device)).float().cpu().numpy() for part in parts]
    )
    return logits
