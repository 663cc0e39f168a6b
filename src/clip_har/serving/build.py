"""From runs and settings to a service that is ready to be started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clip_har.config import ServeConfig
from clip_har.images.workers import worker_count
from clip_har.serving.app import Service
from clip_har.serving.decoders import Decoders
from clip_har.serving.limits import Admission, Limits
from clip_har.serving.models import load_models


def build_service(runs: Sequence[Path], config: ServeConfig, key: str | None = None) -> Service:
    """Load runs; nothing is started.

    Raises:
        UserError: a run, its backbone or a setting cannot be used.
    """
    models = load_models(runs, config)
    decoders = Decoders(
        [model.predictor.model.preprocessing.pixel_transform() for model in models.values()],
        count=max(1, worker_count(config.workers)),
        max_pixels=config.max_pixels,
    )
    return Service(
        models=models,
        decoders=decoders,
        admission=Admission(config.queue),
        limits=Limits(
            bytes=config.max_bytes, images=config.max_images, classes=config.max_classes, seconds=config.timeout
        ),
        top=config.top,
        key=key,
    )
