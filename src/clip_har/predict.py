"""Predictor(run).predict(images): a finished run answers for new photographs. Prints and serves nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from clip_har.backbone import Backbone, load_backbone
from clip_har.checkpoint import Run, load_run
from clip_har.config import Precision
from clip_har.errors import RunError, UnreadableImageError
from clip_har.images import decode_lenient

BATCH_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run says of one image; or, where `error` is set, why it cannot say anything."""

    image: str
    label: str | None = None
    """The most likely class."""
    probability: float | None = None
    """Its probability, in [0, 1]."""
    top: tuple[tuple[str, float], ...] = ()
    """The most likely classes with their probabilities, most likely first."""
    warning: str | None = None
    """Something the image has that lowers the trust in the answer, such as a missing lower half."""
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Only what applies: the answer, or the error."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        answer = {"image": self.image, "label": self.label, "probability": self.probability, "top": top}
        return answer if self.warning is None else {**answer, "warning": self.warning}


class Predictor:
    """A finished run, ready to answer.

    Args:
        run: run folder, or a file in it.
        model: where the backbone is now, if not where the run's card says; it must be the same weights.
        device: "auto", or anything torch.device takes.
        precision: arithmetic of the image tower.

    Raises:
        RunError: no finished run, or the backbone is not the one it was trained on.
        ModelError: the backbone cannot be loaded.
    """

    def __init__(
        self, run: Path, *, model: str | None = None, device: str = "auto", precision: Precision = "auto"
    ) -> None:
        self.run = load_run(run)
        self.classes = self.run.classes
        self._backbone = load_run_backbone(self.run, model=model, device=device, precision=precision)
        self._classifier = self.run.classifier(model=model, device=str(self._backbone.device))
        self._classifier.to(self._backbone.device)
        self._classifier.prepare()
        self._transform = self.run.preprocessing.transform()

    def predict(self, images: Iterable[Path], *, top: int = 5) -> Iterator[Prediction]:
        """Answer for each image file, in order; unreadable ones get a Prediction with `error` set.

        Args:
            top: how many of the most likely classes to give.
        """
        paths = iter(images)
        while batch := list(islice(paths, BATCH_SIZE)):
            yield from self._predict_batch(batch, top)

    def _predict_batch(self, paths: Sequence[Path], top: int) -> list[Prediction]:
        outcomes = [self._read(path) for path in paths]
        tensors = [outcome for outcome, _ in outcomes if isinstance(outcome, Tensor)]
        probabilities = iter(self._probabilities(torch.stack(tensors)) if tensors else ())
        return [
            Prediction(image=str(path), error=outcome)
            if isinstance(outcome, str)
            else self._answer(path, next(probabilities), warning, top)
            for path, (outcome, warning) in zip(paths, outcomes, strict=True)
        ]

    def _read(self, path: Path) -> tuple[Tensor | str, str | None]:
        """The preprocessed image [3, H, W], or why there is none; and a warning."""
        try:
            decoded = decode_lenient(path)
        except UnreadableImageError as error:
            return error.reason, None
        return self._transform(decoded.image), decoded.warning

    @torch.no_grad()
    def _probabilities(self, images_BCHW: Tensor) -> Tensor:
        inputs = images_BCHW
        if self._classifier.reads != "image":
            features = self._backbone.encode_images(images_BCHW)
            reads_hidden = self._classifier.reads == "hidden" and features.hidden_BH is not None
            inputs = cast(Tensor, features.hidden_BH) if reads_hidden else features.embedding_BD
        logits: Tensor = self._classifier(inputs.to(self._backbone.device))
        return logits.float().softmax(dim=-1).cpu()

    def _answer(self, path: Path, probabilities_C: Tensor, warning: str | None, top: int) -> Prediction:
        values, indices = probabilities_C.topk(min(max(1, top), len(self.classes)))
        ranked = tuple(
            (self.classes[index], value) for index, value in zip(indices.tolist(), values.tolist(), strict=True)
        )
        label, probability = ranked[0]
        return Prediction(image=str(path), label=label, probability=probability, top=ranked, warning=warning)


def load_run_backbone(run: Run, *, model: str | None, device: str, precision: Precision) -> Backbone:
    """The backbone that a run was trained on, from where the card or `model` says.

    Raises:
        RunError: other weights are there now.
    """
    backbone = load_backbone(model or run.card["backbone"]["name"], device=device, precision=precision)
    expected = run.card["backbone"]["weights_hash"]
    if backbone.card.weights_hash != expected:
        raise RunError(
            f"{run.folder} was trained on {run.card['backbone']['name']} (weights {expected[:12]}), but "
            f"{backbone.card.name} has weights {backbone.card.weights_hash[:12]}",
            remedy="Name the model the run was trained on with --model, or train a run on this one.",
        )
    return backbone
