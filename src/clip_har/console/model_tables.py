"""The tables of `clip-har models`: size, training memory, speed here, and where the weights come from."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from clip_har.console.table import ShownTable
from clip_har.model_listing import FILE_SIZE, ListedModel, ModelListing
from clip_har.pretrained.training_memory import CLASSES


def model_tables(listing: ModelListing) -> Iterator[Table]:
    """The tables; each fits 80 columns."""
    sizes = _table("Size")
    sizes.add_column("model", overflow="fold")
    for name in ("image M", "text M", "width", "pixels", "GFLOPs"):
        sizes.add_column(name, justify="right", no_wrap=True)
    for model in listing.models:
        sizes.add_row(Text(model.facts.name), *_sizes(model))
    yield sizes
    memory = _table(f"Memory for training in GiB, {listing.batch_size} images per batch")
    memory.add_column("model", overflow="fold")
    for name in ("GPU: LoRA", "full", "CPU: cached", "LoRA", "full"):
        memory.add_column(name, justify="right", no_wrap=True)
    for model in listing.models:
        memory.add_row(Text(model.facts.name), *_memory(model))
    yield memory
    measured = [model for model in listing.models if model.images_per_second is not None]
    if measured:
        speeds = _table(f"Speed on this machine ({listing.probed})")
        speeds.add_column("model", overflow="fold")
        speeds.add_column("images/s", justify="right")
        speeds.add_column("encoder alone", justify="right")
        for model in measured:
            speeds.add_row(
                Text(model.facts.name), *map(_rate, (model.images_per_second, model.encoder_images_per_second))
            )
        yield speeds
    origins = _table("Origin")
    for name in ("model", "open_clip", "pretraining data", "licence", "on disk"):
        origins.add_column(name, overflow="fold", no_wrap=name == "on disk")
    for model in listing.models:
        facts = model.facts
        stands_for = facts.meaning if facts.meaning != facts.name else ""
        on_disk = "yes" if model.weights is not None else "no"
        origins.add_row(Text(facts.name), Text(stands_for), facts.data, _licence(model), on_disk)
    yield origins


def model_notes(listing: ModelListing) -> Iterator[str]:
    """What the columns mean."""
    yield "image M, text M: millions of parameters. width: of the embedding. pixels: side of the image."
    yield "GFLOPs: billion multiply-adds of the image encoder per image, as papers count them."
    yield (
        "cached, LoRA, full: memory to train in float32 with methods on cached features, LoRA in the encoders, and "
        f"full fine-tuning; {CLASSES} classes."
    )
    if listing.probed:
        width, height = FILE_SIZE
        yield (
            f"images/s: from JPEG files of {width} x {height} pixels to features. encoder alone: without reading and "
            "decoding files. No speed: no weights on disk."
        )
    yield "Licences are those of the model cards when this version was released. How to choose: docs/models.md."


def _rate(images_per_second: float | None) -> str:
    return "-" if images_per_second is None else f"{images_per_second:,.3g}"


def _sizes(model: ListedModel) -> list[str]:
    facts = model.facts
    parameters = [_millions(facts.image_parameters), _millions(facts.text_parameters)]
    return [*parameters, str(facts.embed_dim), str(facts.image_size), _short(facts.gflops)]


def _memory(model: ListedModel) -> list[str]:
    gpu, cpu = model.gpu_memory, model.cpu_memory
    return [_short(count / 2**30) for count in (gpu.lora, gpu.full, cpu.cached, cpu.lora, cpu.full)]


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}" if count < 1e9 else f"{count / 1e6:.0f}"


def _short(value: float) -> str:
    """0.05 -> "0.05", 4.41 -> "4.4", 175.3 -> "175"."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _licence(model: ListedModel) -> Text:
    facts = model.facts
    if facts.research_only and "research" not in facts.licence:
        return Text(f"{facts.licence}, no commercial use", style="yellow")
    return Text(facts.licence, style="yellow" if facts.research_only else "")


def _table(title: str) -> Table:
    return ShownTable(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
