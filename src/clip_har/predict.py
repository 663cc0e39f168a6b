"""Predictor(run).predict(images): a finished run answers for new photographs. Prints and serves nothing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run, load_run
from clip_har.config import ExportConfig, Precision, PredictConfig, ServeConfig, VideoConfig
from clip_har.errors import ConfigError, RunError
from clip_har.images.lenient_batches import ImageInput, ReadImage, read_batches, read_stream
from clip_har.images.remote import RemoteImage
from clip_har.run_backbone import load_run_backbone
from clip_har.run_model import RunModel, Scores
from clip_har.tuned_models import model_of
from clip_har.video import PredictsVideo

if TYPE_CHECKING:
    from clip_har.evaluation.confidence import Calibration
    from clip_har.evaluation.records import FloatArray

BATCH_SIZE = 16
_ONE_IMAGE = (str, os.PathLike, RemoteImage, bytes, Image.Image)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run says of one image; or, where `error` is set, why it cannot say anything."""

    image: str
    """The path; "image N" for anything else, counted from 0."""
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
    reason: str | None = None
    """Why there is no label, where the run is unsure or the image is unknown."""
    warning: str | None = None
    """Something the image has that lowers the trust in the answer, such as a missing lower half."""
    error: str | None = None
    embedding: tuple[float, ...] | None = dataclasses.field(default=None, repr=False)
    """Where it was asked for: the image's unit-length embedding."""

    def to_json(self) -> dict[str, Any]:
        """Only what applies: the answer, or the error."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        answer: dict[str, Any] = {"image": self.image, "label": self.label, "probability": self.probability, "top": top}
        known: dict[str, Any] = {"confidence": self.confidence, "possible": self.possible, "warning": self.warning}
        known |= {"reason": self.reason, "embedding": self.embedding}
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

    @classmethod
    def of(cls, config: PredictConfig | VideoConfig | ServeConfig | ExportConfig) -> AbstentionPolicy:
        """What a command asks for.

        Raises:
            ConfigError: it cannot be asked for.
        """
        return cls(
            coverage=None if isinstance(config, VideoConfig) else config.coverage,
            accuracy=config.accuracy,
            abstain_below=config.abstain_below,
            reject_unknown=config.reject_unknown,
        )

    def asks(self) -> bool:
        """Whether anything is asked of the confidence."""
        return any(value is not None for value in (self.coverage, self.accuracy, self.abstain_below))


class Predictor(PredictsVideo[AbstentionPolicy]):
    """A finished run, ready to answer; any number of threads may ask at once.

    Args:
        run: run folder, or a file in it; a path as text will do.
        model: where the backbone is now, if not where the run's card says; it must be the same weights.
        device: "auto", or anything torch.device takes.
        precision: arithmetic of the image encoder.
        backbones: some that are loaded, of other Predictors on the same device; used if the run was trained on one.

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
        backbones: Sequence[Backbone] = (),
    ) -> None:
        self.run = load_run(Path(run))
        model = None if model is None else model_of(model)
        self.classes = self.run.classes
        backbone = load_run_backbone(self.run, model=model, device=device, precision=precision, loaded=backbones)
        self.backbone = backbone
        self.notes = backbone.notes
        """What was assumed on loading the backbone; a line each."""
        self.model = RunModel(self.run, backbone, model=model)
        self._transform = self.run.preprocessing.transform()

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        top: int = 5,
        caution: AbstentionPolicy | None = None,
        classes: Sequence[str] | None = None,
        embed: bool = False,
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
    ) -> Iterator[Prediction]:
        """Answer for each image, in order; unreadable ones get a Prediction with `error` set.

        Args:
            images: paths (text or Path), URLs, bytes of image files, Pillow images, or arrays of RGB pixels (H x W x 3,
                uint8); one alone will do. An iterator is read as its answers are asked for, `batch_size` images ahead,
                with workers some thousand.
            top: how many of the most likely classes to give.
            caution: what is asked of the answers.
            classes: names to choose from in place of the run's own; their confidence is not calibrated.
            embed: whether to give each image's embedding.
            batch_size: images per forward pass.
            workers: processes that decode; 0 decodes in this one.

        Raises:
            RunError: the run's card does not say how far its confidence can be trusted, or no threshold on it
                promises the accuracy or the rate of false alarms asked for.
            ConfigError: the classes cannot be asked for, or not with such a caution.
            DataError: a worker was killed.
            TypeError: something is none of these.
        """
        judge = self.judge(caution, classes)
        given = [images] if _is_one(images) else images
        batches = read_batches(given, self._transform, batch_size=batch_size, workers=workers)  # type: ignore[arg-type]
        return self._predictions(batches, judge, top, embed)

    def predict_stream(
        self,
        images: Iterable[ImageInput],
        *,
        top: int = 5,
        caution: AbstentionPolicy | None = None,
        classes: Sequence[str] | None = None,
        embed: bool = False,
        batch_size: int = BATCH_SIZE,
        threads: int = 2,
    ) -> Iterator[Prediction]:
        """The same for an iterator of any length, even an endless one, in memory that does not grow.

        While a batch is computed the next one is decoded in threads; no more than these two are ever held.
        """
        judge = self.judge(caution, classes)
        batches = read_stream(images, self._transform, batch_size=batch_size, threads=threads)
        return self._predictions(batches, judge, top, embed)

    def predict_read(
        self, batches: Iterable[tuple[list[ImageInput], list[ReadImage]]], judge: Judge, *, top: int = 5
    ) -> Iterator[Prediction]:
        """The same for images that are read, with the transform of the run's preprocessing."""
        return self._predictions(batches, judge, top, False)

    def judge(self, caution: AbstentionPolicy | None = None, classes: Sequence[str] | None = None) -> Judge:
        """What turns scores into predictions; of other classes' when they are given.

        Raises:
            RunError, ConfigError: as for `predict`.
        """
        caution = caution or AbstentionPolicy()
        names = None if classes is None else self.model.prepare(classes)
        if names in (None, self.classes):
            return Judge(self.run, caution)
        if caution.asks() or caution.reject_unknown is not None:
            raise ConfigError(
                "Prediction sets and abstaining are calibrated for the run's own classes only",
                remedy="Remove them, or the other classes.",
            )
        return Judge(self.run, caution, names)

    def _predictions(
        self, batches: Iterable[tuple[list[ImageInput], list[ReadImage]]], judge: Judge, top: int, embed: bool
    ) -> Iterator[Prediction]:
        number = 0
        for batch, read in batches:
            tensors = [image.image_CHW for image in read if image.image_CHW is not None]
            names = [judge.names] * len(tensors)
            scores = iter(self.model.scores(torch.stack(tensors), names, embed=embed) if tensors else ())
            for image, outcome in zip(batch, read, strict=True):
                name = str(image) if isinstance(image, str | os.PathLike | RemoteImage) else f"image {number}"
                number += 1
                if outcome.image_CHW is None:
                    yield Prediction(image=name, error=outcome.reason)
                else:
                    yield judge.prediction(name, next(scores), warning=outcome.warning, top=top, embed=embed)


def _is_one(images: object) -> bool:
    return isinstance(images, _ONE_IMAGE) or (isinstance(images, np.ndarray) and images.ndim == 3)


class Judge:
    """Makes predictions of scores, and says how far they can be trusted by what the run's card holds of that.

    Args:
        names: in place of the run's classes; nothing is known of the confidence then.
    """

    def __init__(self, run: Run, caution: AbstentionPolicy, names: tuple[str, ...] | None = None) -> None:
        self.names = names
        self._classes = names or run.classes
        self._calibration = recorded_calibration(run) if names is None else None
        if self._calibration is None and caution.asks():
            raise RunError(
                f"{run.folder} has no calibration data",
                remedy=f"Run: clip-har evaluate --checkpoint {run.folder} --data DATA (the data it was trained on).",
            )
        self.known_from = 0.0 if caution.reject_unknown is None else _known_from(run, caution.reject_unknown)
        """Least probability, before calibration, of an image that shows one of the classes."""
        self.sets_up_to: float | None = None
        """Largest 1 minus calibrated probability of the classes in a prediction set; None without a coverage."""
        self.answers_from = caution.abstain_below or 0.0
        """Least confidence of an answer."""
        if self._calibration is not None and caution.coverage is not None:
            self.sets_up_to = self._calibration.set_threshold(caution.coverage)
        if self._calibration is not None and caution.accuracy is not None:
            self.answers_from = _promised(run, self._calibration, caution.accuracy)

    def prediction(
        self, image: str, scores: Scores, *, warning: str | None = None, top: int = 5, embed: bool = False
    ) -> Prediction:
        """What the scores of one image say."""
        values, indices = scores.probabilities_C.topk(min(max(1, top), len(self._classes)))
        ranked = tuple(
            (self._classes[index], value) for index, value in zip(indices.tolist(), values.tolist(), strict=True)
        )
        label, probability = ranked[0]
        embedding = tuple(scores.embedding_D.tolist()) if embed and scores.embedding_D is not None else None
        answer = Prediction(
            image=image, label=label, probability=probability, top=ranked, warning=warning, embedding=embedding
        )
        return self._judged(answer, scores)

    def calibrated(self, probabilities_NC: FloatArray) -> FloatArray:
        """Probabilities after temperature scaling; unchanged where the card has none."""
        return probabilities_NC if self._calibration is None else self._calibration.confidence(probabilities_NC)

    def _judged(self, answer: Prediction, scores: Scores) -> Prediction:
        """The answer with its confidence, the possible classes if asked for, and no label where it is withheld."""
        if answer.probability is not None and answer.probability < self.known_from:
            reason = f"probability {answer.probability:.2f} is below {self.known_from:.2f}: likely none of the classes"
            answer = dataclasses.replace(answer, label=None, unknown=True, reason=reason)
        if self._calibration is None:
            return answer
        calibrated_C = self._calibration.confidence(scores.probabilities_C.numpy()[None])[0]
        confidence = float(calibrated_C.max())
        possible = None
        if self.sets_up_to is not None:
            ranked = (-calibrated_C).argsort(kind="stable")
            possible = tuple(self._classes[i] for i in ranked if 1 - calibrated_C[i] <= self.sets_up_to)
        answer = dataclasses.replace(answer, confidence=confidence, possible=possible)
        if confidence < self.answers_from and not answer.unknown:
            reason = f"confidence {confidence:.2f} is below {self.answers_from:.2f}"
            return dataclasses.replace(answer, label=None, unsure=True, reason=reason)
        return answer


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
