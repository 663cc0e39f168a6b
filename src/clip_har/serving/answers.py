"""From what a request asks for to its answer: decoded in processes, scored in batches, within the time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from starlette.requests import ClientDisconnect, Request
from torch import Tensor

from clip_har.predict import Judge, Prediction
from clip_har.serving.decoders import DecoderDiedError, Decoders, DecodingTooSlowError
from clip_har.serving.decoding_process import Pixels
from clip_har.serving.limits import Admission, Limits
from clip_har.serving.metrics import Metrics
from clip_har.serving.models import ServedModel
from clip_har.serving.problems import ProblemError
from clip_har.serving.requests import Asked, Upload, read_request

T = TypeVar("T")


class Answers:
    """What the endpoints do.

    Args:
        models: by name, the default first.
        decoders: with one transform per model, in the order of `models`.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        decoders: Decoders,
        admission: Admission,
        metrics: Metrics,
        limits: Limits,
        top: int,
    ) -> None:
        self._models = models
        self._numbers = {name: number for number, name in enumerate(models)}
        self._decoders = decoders
        self._admission = admission
        self._metrics = metrics
        self._limits = limits
        self._top = top

    async def predict(self, request: Request, *, needs_classes: bool = False) -> dict[str, Any]:
        """/v1/predict and /v1/classes."""
        deadline = time.monotonic() + self._limits.seconds
        with self._admission.request() as admitted:
            asked, model = await self._read(request, deadline)
            if needs_classes and asked.classes is None:
                raise ProblemError(422, 'The request has no class names. Send them in "classes".')
            admitted.set_images(len(asked.images))
            judge, predictions = await _within(deadline, self._predictions(asked, model, deadline))
            _refuse_if_none(predictions)
        return {
            "model": model.name,
            "classes": list(judge.names or model.predictor.classes),
            "coverage": None if judge.names else model.policy.coverage,
            "predictions": [_prediction_json(item) for item in predictions],
        }

    async def embed(self, request: Request) -> dict[str, Any]:
        """/v1/embed."""
        deadline = time.monotonic() + self._limits.seconds
        with self._admission.request() as admitted:
            asked, model = await self._read(request, deadline)
            admitted.set_images(len(asked.images))
            pixels = await _within(deadline, self._decode(asked.images, model, deadline))
            good = [item.pixels_CHW for item in pixels if item.pixels_CHW is not None]
            scores = iter(await _within(deadline, model.score(_tensors(good), model.judge, embed=True)))
            found: list[dict[str, Any]] = []
            for upload, item in zip(asked.images, pixels, strict=True):
                if item.pixels_CHW is None:
                    found.append({"image": upload.name, "error": item.reason})
                    continue
                embedding = next(scores).embedding_D
                assert embedding is not None
                found.append({"image": upload.name, "embedding": embedding.tolist()})
            _refuse_if_none([Prediction(image=item["image"], error=item.get("error")) for item in found])
        width = next(len(item["embedding"]) for item in found if "embedding" in item)
        return {"model": model.name, "dimensions": width, "embeddings": found}

    async def explain(self, request: Request) -> bytes:
        """/v1/explain: a PNG."""
        deadline = time.monotonic() + self._limits.seconds
        with self._admission.request() as admitted:
            asked, model = await self._read(request, deadline)
            admitted.set_images(len(asked.images))
            if len(asked.images) > 1:
                raise ProblemError(422, f"The request has {len(asked.images)} images. Send one to be explained.")
            return await _within(deadline, self._explanation(asked, model, deadline))

    async def _explanation(self, asked: Asked, model: ServedModel, deadline: float) -> bytes:
        judge = await model.judge_of(asked.classes)
        names = judge.names or model.predictor.classes
        if asked.label is not None and asked.label not in names:
            raise ProblemError(422, f"The label {asked.label!r} is not one of the classes.")
        (pixels,) = await self._decode(asked.images, model, deadline)
        if pixels.pixels_CHW is None:
            _refuse_if_none([Prediction(image=asked.images[0].name, error=pixels.reason)])
        (image_CHW,) = _tensors([pixels.pixels_CHW])
        if asked.label is None:
            (scores,) = await model.score([image_CHW], judge, embed=False)
            answer = int(scores.probabilities_C.argmax())
        else:
            answer = names.index(asked.label)
        picture = await model.explain(image_CHW, judge, answer)
        if picture is None:
            raise ProblemError(
                422,
                "This run has no saliency maps: its image encoder has neither attention nor feature maps, or it "
                "combines several models.",
            )
        return picture

    async def _read(self, request: Request, deadline: float) -> tuple[Asked, ServedModel]:
        try:
            asked = await asyncio.wait_for(read_request(request, self._limits), deadline - time.monotonic())
        except asyncio.TimeoutError as error:
            raise ProblemError(
                408, f"The upload took more than {self._limits.seconds:g} s. Send a smaller one."
            ) from error
        except ClientDisconnect as error:
            raise ProblemError(400, "The upload ended early.") from error
        name = asked.model or next(iter(self._models))
        if name not in self._models:
            raise ProblemError(404, f"There is no model {name[:100]!r}. Models: {', '.join(self._models)}.")
        request.state.facts.update({"model": name, "images": len(asked.images)})
        return asked, self._models[name]

    async def _predictions(self, asked: Asked, model: ServedModel, deadline: float) -> tuple[Judge, list[Prediction]]:
        judge = await model.judge_of(asked.classes)
        pixels = await self._decode(asked.images, model, deadline)
        good = [item.pixels_CHW for item in pixels if item.pixels_CHW is not None]
        scores = iter(await model.score(_tensors(good), judge, embed=asked.embed))
        found = []
        for upload, item in zip(asked.images, pixels, strict=True):
            if item.pixels_CHW is None:
                prediction = Prediction(image=upload.name, error=item.reason)
            else:
                prediction = judge.prediction(
                    upload.name, next(scores), warning=item.warning, top=asked.top or self._top, embed=asked.embed
                )
            self._metrics.count(model.name, prediction)
            if model.watch is not None and judge.names is None:
                model.watch.add(prediction)
            found.append(prediction)
        return judge, found

    async def _decode(self, images: Sequence[Upload], model: ServedModel, deadline: float) -> list[Pixels]:
        number = self._numbers[model.name]
        try:
            decoding = (self._decoders.decode(image.content, number, deadline) for image in images)
            return list(await asyncio.gather(*decoding))
        except DecoderDiedError as error:
            raise ProblemError(503, "The process that decoded an image has died. Send the request again.") from error
        except DecodingTooSlowError as error:
            raise _too_late(self._limits.seconds) from error


async def _within(deadline: float, work: Awaitable[T]) -> T:
    begun = time.monotonic()
    try:
        return await asyncio.wait_for(work, max(0.0, deadline - begun))
    except asyncio.TimeoutError as error:
        raise _too_late(deadline - begun) from error


def _too_late(seconds: float) -> ProblemError:
    return ProblemError(
        504, f"The answer took more than {seconds:.3g} s. Send fewer or smaller images, or try again later."
    )


def _tensors(pixels: Sequence[Any]) -> list[Tensor]:
    return [torch.from_numpy(item) for item in pixels]


def _refuse_if_none(predictions: Sequence[Prediction]) -> None:
    """Refuse a request of whose images none can be read."""
    errors = [{"image": item.image, "error": item.error} for item in predictions if item.error is not None]
    if len(errors) == len(predictions):
        which = "The image" if len(errors) == 1 else "None of the images"
        cannot = "cannot be read" if len(errors) == 1 else "can be read"
        raise ProblemError(422, f"{which} {cannot}: {errors[0]['error']}.", more={"errors": errors})


def _prediction_json(item: Prediction) -> dict[str, Any]:
    """Every member whether it applies or not, except for the embedding."""
    if item.error is not None:
        return {"image": item.image, "error": item.error}
    content: dict[str, Any] = {
        "image": item.image,
        "label": item.label,
        "probability": item.probability,
        "confidence": item.confidence,
        "top": [{"label": label, "probability": probability} for label, probability in item.top],
        "possible": None if item.possible is None else list(item.possible),
        "unsure": item.unsure,
        "unknown": item.unknown,
        "reason": item.reason,
        "warning": item.warning,
    }
    return content if item.embedding is None else {**content, "embedding": list(item.embedding)}
