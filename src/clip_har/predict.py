"""Predictor(run).predict(images): a finished run answers for new photographs. Prints and serves nothing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run, load_run
from clip_har.config import Precision
from clip_har.errors import ConfigError, RunError
from clip_har.images.lenient_batches import ImageInput, read_batches
from clip_har.known_models import load_for_run
from clip_har.methods import Classifier
from clip_har.protocol import Protocol, new_features, require_same
from clip_har.tuned_models import load_given, model_of

if TYPE_CHECKING:
    from clip_har.evaluation.confidence import Calibration

BATCH_SIZE = 16
_ONE_IMAGE = (str, os.PathLike, bytes, Image.Image)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run says of one image; or, where `error` is set, why it cannot say anything."""

    image: str
    """The path; "image N" for bytes and Pillow images, counted from 0."""
    label: str | None = None
    """The most likely class; None where the run is unsure, or where the image is unknown."""
    probability: float | None = None
    """Its probability, in [0, 1]."""
    top: tuple[tuple[str, float], ...] = ()
    """The most likely classes with their probabilities, most likely first."""
    confidence: float | None = None
    """Probability of the most likely class after temperature scaling, in [0, 1]; None where the card has none."""
    possible: tuple[str, ...] | None = None
    """Where a coverage was asked for: the classes that hold the truth as often as that, most likely first. Empty where
    none is likely enough."""
    unsure: bool = False
    """Whether the confidence is below what was asked of an answer."""
    unknown: bool = False
    """Whether the image is likely to show none of the classes; False unless that was asked for."""
    warning: str | None = None
    """Something the image has that lowers the trust in the answer, such as a missing lower half."""
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Only what applies: the answer, or the error."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        answer: dict[str, Any] = {"image": self.image, "label": self.label, "probability": self.probability, "top": top}
        known = {"confidence": self.confidence, "possible": self.possible, "warning": self.warning}
        answer |= {key: value for key, value in known.items() if value is not None}
        marks = {"unsure": self.unsure, "unknown": self.unknown}
        return answer | {mark: True for mark, holds in marks.items() if holds}


@dataclass(kw_only=True)
class PredictionCounts:
    """Images that were predicted."""

    answered: int = 0
    unsure: int = 0
    """Of those answered, with too low a confidence for a label."""
    unknown: int = 0
    """Of those answered, likely to show none of the classes."""
    unreadable: int = 0
    before: int = 0
    """Of all, those that an earlier call wrote."""


@dataclass(frozen=True, kw_only=True)
class AbstentionPolicy:
    """What is asked of answers; nothing by default."""

    coverage: float | None = None
    """How often a set of possible classes is to hold the truth, in (0, 1)."""
    accuracy: float | None = None
    """How often answers are to be right, in (0, 1); others are withheld."""
    abstain_below: float | None = None
    """Calibrated confidence below which an answer is withheld, in [0, 1]; in place of an accuracy."""
    reject_unknown: float | None = None
    """Fraction of the images of the classes that may be called unknown, in (0, 1). None: no image is."""

    def __post_init__(self) -> None:
        for flag, value in (("--coverage", self.coverage), ("--accuracy", self.accuracy)):
            if value is not None and not 0 < value < 1:
                raise ConfigError(f"{flag} {value} is not between 0 and 1", remedy="Pass a fraction such as 0.95.")
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            raise ConfigError(
                f"--abstain-below {self.abstain_below} is not between 0 and 1", remedy="Pass a fraction such as 0.5."
            )
        if self.reject_unknown is not None and not 0 < self.reject_unknown < 1:
            raise ConfigError(
                f"--reject-unknown {self.reject_unknown} is not between 0 and 1", remedy="Pass a fraction such as 0.05."
            )
        if self.accuracy is not None and self.abstain_below is not None:
            raise ConfigError("--accuracy and --abstain-below cannot be combined", remedy="Remove one of the two.")

    def asks(self) -> bool:
        """Whether anything is asked of the confidence."""
        return any(value is not None for value in (self.coverage, self.accuracy, self.abstain_below))


class Predictor:
    """A finished run, ready to answer.

    Args:
        run: run folder, or a file in it; a path as text will do.
        model: where the backbone is now, if not where the run's card says; it must be the same weights.
        device: "auto", or anything torch.device takes.
        precision: arithmetic of the image encoder.

    Raises:
        RunError: no finished run, or the backbone is not the one it was trained on.
        ModelError: the backbone cannot be loaded.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        model: str | None = None,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        self.run = load_run(Path(run))
        model = None if model is None else model_of(model)
        self.classes = self.run.classes
        self._backbone = load_run_backbone(self.run, model=model, device=device, precision=precision)
        self.notes = self._backbone.notes
        """What was assumed on loading the backbone; a line each."""
        self._classifier = self.run.classifier(model=model, device=str(self._backbone.device))
        self._classifier.to(self._backbone.device)
        self._classifier.prepare()
        self._transform = self.run.preprocessing.transform()

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        top: int = 5,
        caution: AbstentionPolicy | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
    ) -> Iterator[Prediction]:
        """Answer for each image, in order; unreadable ones get a Prediction with `error` set.

        Args:
            images: paths (text or Path), bytes of image files, or Pillow images; one alone will do. An iterator is
                read as its answers are asked for, `batch_size` images ahead, with workers some thousand.
            top: how many of the most likely classes to give.
            caution: what is asked of the answers.
            batch_size: images per forward pass.
            workers: processes that decode; 0 decodes in this one.

        Raises:
            RunError: the run's card does not say how far its confidence can be trusted, or no threshold on it
                promises the accuracy or the rate of false alarms asked for.
            DataError: a worker was killed.
            TypeError: something is none of these.
        """
        judge = _Abstention(self.run, caution or AbstentionPolicy())
        given = [images] if isinstance(images, _ONE_IMAGE) else images
        return self._predictions(given, top, judge, batch_size, workers)

    def _predictions(
        self, images: Iterable[ImageInput], top: int, judge: _Abstention, batch_size: int, workers: int
    ) -> Iterator[Prediction]:
        number = 0
        for batch, read in read_batches(images, self._transform, batch_size=batch_size, workers=workers):
            tensors = [image.image_CHW for image in read if image.image_CHW is not None]
            probabilities = iter(self._probabilities(torch.stack(tensors)) if tensors else ())
            for image, outcome in zip(batch, read, strict=True):
                name = _name(number, image)
                number += 1
                if outcome.image_CHW is None:
                    yield Prediction(image=name, error=outcome.reason)
                else:
                    yield self._answer(name, next(probabilities), outcome.warning, top, judge)

    def _probabilities(self, images_BCHW: Tensor) -> Tensor:
        return answers_to(self._backbone, self._classifier, images_BCHW)

    def _answer(
        self, name: str, probabilities_C: Tensor, warning: str | None, top: int, judge: _Abstention
    ) -> Prediction:
        values, indices = probabilities_C.topk(min(max(1, top), len(self.classes)))
        ranked = tuple(
            (self.classes[index], value) for index, value in zip(indices.tolist(), values.tolist(), strict=True)
        )
        label, probability = ranked[0]
        answer = Prediction(image=name, label=label, probability=probability, top=ranked, warning=warning)
        return judge.judged(answer, probabilities_C)


@torch.no_grad()
def answers_to(backbone: Backbone, classifier: Classifier, images_BCHW: Tensor) -> Tensor:
    """Class probabilities of preprocessed images, float32 [B, C] on the CPU, before calibration."""
    inputs = images_BCHW
    if classifier.reads != "image":
        inputs = backbone.encode_images(images_BCHW).of_kind(classifier.reads)
    logits_BC: Tensor = classifier(inputs.to(backbone.device))
    return logits_BC.float().softmax(dim=-1).cpu()


def _name(number: int, image: ImageInput) -> str:
    return f"image {number}" if isinstance(image, bytes | Image.Image) else str(image)


class _Abstention:
    """Says how far answers can be trusted, by what the run's card holds of its confidence."""

    def __init__(self, run: Run, caution: AbstentionPolicy) -> None:
        self._classes = run.classes
        self._calibration = recorded_calibration(run)
        if self._calibration is None and caution.asks():
            raise RunError(
                f"{run.folder} has no calibration data",
                remedy=f"Run: clip-har evaluate --checkpoint {run.folder} --data DATA (the data it was trained on).",
            )
        self._known_from = 0.0 if caution.reject_unknown is None else _known_from(run, caution.reject_unknown)
        self._sets_up_to: float | None = None
        self._answers_from = caution.abstain_below or 0.0
        if self._calibration is not None and caution.coverage is not None:
            self._sets_up_to = self._calibration.set_threshold(caution.coverage)
        if self._calibration is not None and caution.accuracy is not None:
            self._answers_from = _promised(run, self._calibration, caution.accuracy)

    def judged(self, answer: Prediction, probabilities_C: Tensor) -> Prediction:
        """The answer with its confidence, the possible classes if asked for, and no label where it is withheld."""
        if answer.probability is not None and answer.probability < self._known_from:
            answer = dataclasses.replace(answer, label=None, unknown=True)
        if self._calibration is None:
            return answer
        calibrated_C = self._calibration.confidence(probabilities_C.numpy()[None])[0]
        confidence = float(calibrated_C.max())
        possible = None
        if self._sets_up_to is not None:
            ranked = (-calibrated_C).argsort(kind="stable")
            possible = tuple(self._classes[i] for i in ranked if 1 - calibrated_C[i] <= self._sets_up_to)
        unsure = confidence < self._answers_from and not answer.unknown
        return dataclasses.replace(
            answer,
            label=None if unsure else answer.label,
            confidence=confidence,
            possible=possible,
            unsure=unsure,
        )


def _promised(run: Run, calibration: Calibration, accuracy: float) -> float:
    threshold = calibration.abstain_threshold(accuracy)
    if threshold is None:
        raise RunError(
            f"Cannot guarantee accuracy {accuracy:g} for {run.folder} with {calibration.images} validation images",
            remedy="Lower --accuracy, or set a fixed threshold with --abstain-below.",
        )
    return threshold


def _known_from(run: Run, rate: float) -> float:
    """The largest probability below which an image is called unknown."""
    again = f"Run: clip-har evaluate --checkpoint {run.folder} --data DATA (the data it was trained on)."
    if run.card.unknown is None:
        raise RunError(f"{run.folder} has no thresholds for unknown actions", remedy=again)
    try:
        kept = {float(known): float(threshold) for known, threshold in run.card.unknown["max_softmax"].items()}
        images = int(run.card.unknown["images"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f'"unknown" in {run.folder / "card.json"} is not what clip-har writes',
            remedy="Remove it there and run clip-har evaluate again.",
        ) from error
    below = [known for known in kept if known <= rate + 1e-12]
    if not below:
        raise RunError(
            f"{images} validation images are too few for --reject-unknown {rate:g}",
            remedy=f"Pass {min(kept):g} or more." if kept else "Train with more validation images.",
        )
    return kept[max(below)]


def recorded_calibration(run: Run) -> Calibration | None:
    """What the run's card says of its confidence, or None where it says nothing.

    Raises:
        RunError: it is damaged.
    """
    content = run.card.confidence
    if content is None:
        return None
    from clip_har.evaluation.confidence import Calibration  # slow to import

    try:
        return Calibration.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f'"confidence" in {run.folder / "card.json"} is not what clip-har writes',
            remedy="Remove it there and run clip-har evaluate again.",
        ) from error


def load_run_backbone(run: Run, *, model: str | None, device: str, precision: Precision) -> Backbone:
    """The backbone that a run was trained on, from where the card or `model` says.

    Raises:
        RunError: other weights are there now.
    """
    trained = run.card.backbone
    _ = run.preprocessing  # refused before anything slow if it cannot be used
    if model is not None:
        backbone = load_given(model, device=device, precision=precision)
    else:
        backbone = load_for_run(trained.name, trained.files_sha256, run.folder, device=device, precision=precision)
    here = Protocol(
        model=backbone.info.weights_hash, model_name=backbone.info.name, features=new_features(backbone.info.projection)
    )
    require_same(run.folder, run.protocol, here)
    return backbone
