"""The runs that are served: each with its predictor, its micro-batcher and its drift watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from clip_har.abstention import with_defaults
from clip_har.config import ServeConfig
from clip_har.errors import ConfigError
from clip_har.explain.overlay import overlay, png, shown_image
from clip_har.predict import AbstentionPolicy, Judge, Predictor, recorded_calibration
from clip_har.run_model import Scores
from clip_har.serving.batcher import Batcher
from clip_har.serving.drift import DriftWatch, Expected
from clip_har.serving.problems import ProblemError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One image of a request."""

    pixels_CHW: Tensor
    """uint8, of the model's size."""
    names: tuple[str, ...] | None
    embed: bool


class ServedModel:
    """One run.

    Args:
        name: what requests call it.
        predictor: the run, loaded.
        config: what is asked of its answers, and how they are batched.
    """

    def __init__(self, name: str, predictor: Predictor, config: ServeConfig) -> None:
        self.name = name
        self.predictor = predictor
        self.policy = _policy(predictor, config)
        self.judge = predictor.judge(self.policy)
        calibration = recorded_calibration(predictor.run)
        self.watch = None if calibration is None else DriftWatch(Expected.of(calibration, self.judge.answers_from))
        self.observed: Callable[[int, float], None] = lambda _images, _seconds: None
        """Called with the images and seconds of each forward pass."""
        self.batcher: Batcher[_Job, Scores] = Batcher(
            self._compute,
            largest=config.batch_size,
            wait=config.batch_wait,
            observed=lambda images, seconds: self.observed(images, seconds),
        )
        self._slow = ThreadPoolExecutor(1, thread_name_prefix=f"slow-{name}")  # prompts of new classes, explanations

    def start(self) -> None:
        """Begin to answer."""
        self.batcher.start()

    def stop(self) -> None:
        """Answer what is queued, and end."""
        self.batcher.stop()
        self._slow.shutdown(wait=True, cancel_futures=True)

    async def judge_of(self, classes: tuple[str, ...] | None) -> Judge:
        """The judge of the run's own classes, or of others, whose prompts are then embedded.

        Raises:
            ProblemError: these classes cannot be asked for.
        """
        if classes is None:
            return self.judge
        try:
            return await self._slowly(self.predictor.judge, None, classes)
        except ConfigError as error:
            raise ProblemError(422, str(error)) from error

    async def score(self, images: Sequence[Tensor], judge: Judge, *, embed: bool) -> list[Scores]:
        """Scores of decoded images, computed together with those of other requests."""
        jobs = [_Job(pixels_CHW=pixels, names=judge.names, embed=embed) for pixels in images]
        futures = [asyncio.wrap_future(self.batcher.submit(job)) for job in jobs]
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:
                future.cancel()

    async def explain(self, pixels_CHW: Tensor, judge: Judge, answer: int) -> bytes | None:
        """The pixels that support a class, as a PNG over the image; None for an encoder that has no such map."""
        return await self._slowly(self._explain, pixels_CHW, judge, answer)

    async def _slowly(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._slow, work, *arguments)

    def _explain(self, pixels_CHW: Tensor, judge: Judge, answer: int) -> bytes | None:
        preprocessing = self.predictor.model.preprocessing
        image_CHW = preprocessing.normalise(pixels_CHW)
        found = self.predictor.model.relevance(image_CHW, judge.names, answer)
        return None if found is None else png(overlay(shown_image(image_CHW, preprocessing), found[1]))

    def _compute(self, jobs: Sequence[_Job]) -> list[Scores]:
        images_BCHW = self.predictor.model.preprocessing.normalise(torch.stack([job.pixels_CHW for job in jobs]))
        names = [job.names for job in jobs]
        return self.predictor.model.scores(images_BCHW, names, embed=any(job.embed for job in jobs))

    def describe(self) -> dict[str, Any]:
        """What /v1/models says of it."""
        run = self.predictor.run
        return {
            "name": self.name,
            "method": run.card.method,
            "backbone": run.card.backbone.name,
            "classes": list(run.classes),
            "accepts_classes": self.predictor.model.answers_new_names,
            "image_size": list(self.predictor.model.preprocessing.image_size),
            "coverage": self.policy.coverage,
            "labels_from_confidence": self.judge.answers_from or None,
        }


def load_models(runs: Sequence[Path], config: ServeConfig) -> dict[str, ServedModel]:
    """Load runs, those of the same backbone with one copy of it.

    Raises:
        UserError: a run, its backbone or the settings cannot be used.
    """
    found: dict[str, ServedModel] = {}
    predictors: list[Predictor] = []
    for path in runs:
        model = config.model
        predictor = Predictor(
            path,
            model=model.model,
            device=model.device,
            precision=model.precision,
            backbones=[loaded.backbone for loaded in predictors],
        )
        predictors.append(predictor)
        name = predictor.run.folder.resolve().name
        if name in found:
            raise ConfigError(f"Two runs are called {name!r}", remedy="Rename one of the run folders.")
        found[name] = ServedModel(name, predictor, config)
    return found


def _policy(predictor: Predictor, config: ServeConfig) -> AbstentionPolicy:
    """What is asked of the answers: as configured, otherwise the defaults."""
    return with_defaults(AbstentionPolicy.of(config), predictor.run)
