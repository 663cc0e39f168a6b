"""`clip-har models`: what can be passed to --model, with size, cost, training memory, origin and speed here.

Without --probe no torch is imported, and nothing here asks the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_har.config import ModelsConfig, validate
from clip_har.errors import ModelError
from clip_har.pretrained.architectures import listed_weights
from clip_har.pretrained.catalogue import CURATED, ModelFacts, architecture_of, require_facts
from clip_har.pretrained.on_disk import weights_on_disk
from clip_har.pretrained.training_memory import CLASSES, TrainingMemory, training_memory
from clip_har.progress import SILENT, Progress

PROBE_SECONDS = 3.0
FILE_SIZE = (400, 300)
"""Width and height in pixels of the files that are probed with."""
PROBED_AT_RANDOM = "ViT-B/32"
"""The model that is probed with random weights if its own are not on this machine."""


@dataclass(frozen=True, kw_only=True)
class ListedModel:
    """A pretrained model, and what it takes here."""

    facts: ModelFacts
    gpu_memory: TrainingMemory
    cpu_memory: TrainingMemory
    weights: Path | None
    """Where its weights are on this machine; None if they would be downloaded."""
    images_per_second: float | None = None
    """From small JPEG files to features, on this machine; None if it was not measured."""
    encoder_images_per_second: float | None = None
    """Of the image encoder alone."""


@dataclass(frozen=True, kw_only=True)
class ModelListing:
    """The models listed, and what their numbers are about."""

    models: tuple[ListedModel, ...]
    batch_size: int
    """Images per forward pass that the memory is for."""
    probed: str = ""
    """Device and precision that the speed was measured with; "" if it was not."""

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        about = {
            "gflops": "billion multiply-adds of the image encoder for one image",
            "gpu_memory_bytes": "to train in float32; cached does not depend on the batch size",
            "cpu_memory_bytes": "the same on a CPU, added to an idle process",
            "images_per_second": f"from JPEG files of {' x '.join(map(str, FILE_SIZE))} pixels to features",
            "encoder_images_per_second": "image encoder only, without reading and decoding files",
            "batch_size": self.batch_size,
            "classes": CLASSES,
            "probed_with": self.probed or None,
        }
        return {"about": about, "models": [_to_json(model) for model in self.models]}


def _to_json(model: ListedModel) -> dict[str, Any]:
    return {
        **dataclasses.asdict(model.facts),
        "gpu_memory_bytes": dataclasses.asdict(model.gpu_memory),
        "cpu_memory_bytes": dataclasses.asdict(model.cpu_memory),
        "on_disk": model.weights is not None,
        "weights": None if model.weights is None else str(model.weights),
        "images_per_second": model.images_per_second,
        "encoder_images_per_second": model.encoder_images_per_second,
    }


def list_models(config: ModelsConfig, *, progress: Progress = SILENT) -> ModelListing:
    """Describe the models that are asked for, and measure their speed with --probe.

    Raises:
        UserError: a model is unknown, nothing can be known of it without a download, or there is no such device.
    """
    validate(config)
    models = tuple(_listed(name, config.batch_size) for name in _names(config))
    if not config.probe:
        return ModelListing(models=models, batch_size=config.batch_size)
    from clip_har.backbone import resolve_device, resolve_precision  # torch takes seconds to import

    device = resolve_device(config.device)
    with progress.bar("Measuring speed", total=sum(map(_can_be_probed, models)), unit="models") as bar:
        probed = []
        for model in models:
            probed.append(_probed(model, config, progress) if _can_be_probed(model) else model)
            if _can_be_probed(model):
                bar.advance()
    return ModelListing(
        models=tuple(probed),
        batch_size=config.batch_size,
        probed=f"{device}, {resolve_precision(config.precision, device)}",
    )


def _names(config: ModelsConfig) -> Iterator[str]:
    if config.model is not None:
        yield from config.model
    if config.all:
        yield from (name for name in listed_weights() if name not in (config.model or ()))
    if config.model is None and not config.all:
        yield from CURATED


def _listed(name: str, batch_size: int) -> ListedModel:
    facts, architecture = require_facts(name), architecture_of(name)
    assert architecture is not None
    gpu, cpu = (training_memory(architecture, batch_size=batch_size, on_cpu=on_cpu) for on_cpu in (False, True))
    return ListedModel(facts=facts, gpu_memory=gpu, cpu_memory=cpu, weights=weights_on_disk(name))


def _can_be_probed(model: ListedModel) -> bool:
    return model.weights is not None or model.facts.name == PROBED_AT_RANDOM


def _probed(model: ListedModel, config: ModelsConfig, progress: Progress) -> ListedModel:
    """The model with its speed, or as it is, with a warning, if it cannot be loaded."""
    from clip_har.backbone import load_backbone
    from clip_har.encoder_speed import file_images_per_second, images_per_second, random_backbone

    settings: dict[str, Any] = {"device": config.device, "precision": config.precision}
    try:
        if model.weights is None:
            backbone = random_backbone(model.facts.meaning.partition(":")[0], **settings)
        else:
            backbone = load_backbone(model.facts.name, local_only=True, **settings)
    except ModelError as error:
        progress.warn(str(error))
        return model
    return dataclasses.replace(
        model,
        images_per_second=file_images_per_second(backbone, file_size=FILE_SIZE, seconds=PROBE_SECONDS),
        encoder_images_per_second=images_per_second(backbone, seconds=PROBE_SECONDS),
    )
