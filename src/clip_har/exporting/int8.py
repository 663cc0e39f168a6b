"""A run's graph with its image encoder in int8: which layers stay in float32 is chosen by measurement.

The form of the graph is in int8_graph.py, what is measured of its layers in int8_statistics.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_har.errors import ConfigError
from clip_har.exporting.int8_graph import Layer, Rounded, constant, layers, rounded, with_int8
from clip_har.exporting.int8_statistics import Statistics, measure, noise
from clip_har.exporting.onnx_file import OnnxAnswers, quiet

LARGEST_DIVERGENCE = 0.0075
"""Mean KL divergence of the probabilities on blended images, in nats, up to which layers are in int8
(docs/guide/export.md has the measurement)."""
KEPT_IMAGES = 256
"""Calibration images, at most twice as many, that the graphs are compared on."""
RANKED_IMAGES = 64
"""Of these, the images that layers are ranked on."""
GROUPS = 8
"""Groups of successive layers, for each of which it is measured how much its noise changes the answers."""
SHARE = 0.5
"""Of an image in its blend with another."""
BATCH_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which layers are in int8."""

    total: int
    """Layers of the image encoder that could be."""
    kept: tuple[str, ...]
    """Those that stay in float32, the most sensitive first."""
    divergence: float
    """Mean KL divergence of the probabilities on blended calibration images, in nats."""

    def __str__(self) -> str:
        return (
            f"{len(self.kept)} of {self.total} layers of the image encoder stay in float32 "
            f"(KL divergence {self.divergence:.4f} on blended calibration images)"
        )


def quantise(path: Path, examples: Iterable[Tensor]) -> Choice:
    """Replace a model by its int8 form: the fewest, most sensitive layers stay in float32.

    Layers are ranked by how much the noise that int8 adds to their output changes the answers. As many stay as are
    needed, found by bisection, for the answers to differ by at most `LARGEST_DIVERGENCE` from those in float32.
    A run has learnt the labels of its training images and is surer of them than of new images, so the answers are
    compared on blends of two calibration images, which it has not seen.

    Args:
        examples: batches of preprocessed training images [B, 3, H, W], also for the ranges of the activations.

    Raises:
        ConfigError: the graph has no layer that can be in int8.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        encoder = _Encoder(path, Path(folder), examples)
        ranked = encoder.ranked()
        kept, reached = fewest(len(ranked), lambda kept: encoder.divergence(ranked[kept:]), LARGEST_DIVERGENCE)
        encoder.write(ranked[kept:], path)
    return Choice(total=len(ranked), kept=tuple(layer.name for layer in ranked[:kept]), divergence=reached)


class _Encoder:
    """A model that is to be quantised, with what calibration images tell about its layers.

    Args:
        folder: for files in between.
        examples: batches of preprocessed images [B, 3, H, W].
    """

    def __init__(self, path: Path, folder: Path, examples: Iterable[Tensor]) -> None:
        import onnx
        from onnxruntime.quantization import quant_pre_process

        self._prepared, self._candidate = folder / "prepared.onnx", folder / "candidate.onnx"
        quant_pre_process(str(path), str(self._prepared), skip_symbolic_shape=True)
        model, sample = onnx.load(str(self._prepared)), _Sample()
        self._layers = layers(model)
        if not self._layers:
            raise ConfigError("This run has no image encoder that int8 can quantise", remedy="Use --format onnx.")
        self._statistics = measure(model, self._layers, sample.collecting(examples))
        self._weights = {layer.name: _rounded(model, layer, self._statistics) for layer in self._layers}
        self._blends = sample.blends()
        self._step = max(1, len(self._blends) // RANKED_IMAGES)
        self._noise = noise(
            model, self._layers, self._weights, self._statistics.ranges, self._blends[:: self._step].split(BATCH_SIZE)
        )
        self._expected = _answers(self._prepared, self._blends)

    def ranked(self) -> list[Layer]:
        """The layers, the most sensitive first.

        The sensitivity is the layer's noise times the gain of the layers around it: the divergence of the answers with
        only these in int8, per noise.
        """
        size = max(1, -(-len(self._layers) // GROUPS))
        found = dict[str, float]()
        for start in range(0, len(self._layers), size):
            group = self._layers[start : start + size]
            gain = self.divergence(group, few=True) / max(sum(self._noise[layer.name] for layer in group), 1e-30)
            found |= {layer.name: gain * self._noise[layer.name] for layer in group}
        return sorted(self._layers, key=lambda layer: -found[layer.name])

    def divergence(self, chosen: Sequence[Layer], *, few: bool = False) -> float:
        """Of the answers with these layers in int8, on all blends or a few."""
        self.write(chosen, self._candidate)
        step = self._step if few else 1
        return mean_divergence(self._expected[::step], _answers(self._candidate, self._blends[::step]))

    def write(self, chosen: Sequence[Layer], path: Path) -> None:
        """Write the model with these layers in int8."""
        import onnx

        model = onnx.load(str(self._prepared))
        onnx.save(with_int8(model, chosen, self._weights, self._statistics.ranges), str(path))


def fewest(total: int, divergence: Callable[[int], float], limit: float) -> tuple[int, float]:
    """The smallest number of kept layers with a divergence up to a limit, by bisection, and its divergence.

    All layers kept have none, and each more is taken to lower it.
    """
    failing, passing, reached = -1, total, 0.0
    tried = 0
    while passing - failing > 1:
        value = divergence(tried)
        if value <= limit:
            passing, reached = tried, value
        else:
            failing = tried
        tried = (failing + passing) // 2
    return passing, reached


def mean_divergence(expected_NC: Tensor, given_NC: Tensor) -> float:
    """Mean Kullback-Leibler divergence of probabilities from the expected ones, in nats."""
    tiny = torch.finfo(torch.float32).tiny
    logs_NC = expected_NC.clamp_min(tiny).log() - given_NC.clamp_min(tiny).log()
    return float((expected_NC * logs_NC).sum(dim=1).mean())


def _rounded(model: Any, layer: Layer, statistics: Statistics) -> Rounded:
    bias_O = None if layer.bias is None else constant(model, layer.bias)
    return rounded(layer, constant(model, layer.weights), bias_O, statistics.means[layer.name])


def _answers(path: Path, images_NCHW: Tensor) -> Tensor:
    answers = OnnxAnswers(path)
    return torch.cat([answers(images_BCHW) for images_BCHW in images_NCHW.split(BATCH_SIZE)])


class _Sample:
    """Evenly spaced images of a stream of unknown length, at least `KEPT_IMAGES` if there are as many."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []
        self._step, self._seen = 1, 0

    def collecting(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The batches, as they come."""
        for images_BCHW in batches:
            for image_CHW in images_BCHW:
                if self._seen % self._step == 0:
                    self._kept.append(image_CHW)
                self._seen += 1
                if len(self._kept) == 2 * KEPT_IMAGES:
                    self._kept, self._step = self._kept[::2], 2 * self._step
            yield images_BCHW

    def blends(self) -> Tensor:
        """Each image mixed with one half the dataset away, which is of another class where images are sorted."""
        images_NCHW = torch.stack(self._kept)
        others_NCHW = images_NCHW.roll(len(images_NCHW) // 2, dims=0)
        return SHARE * images_NCHW + (1 - SHARE) * others_NCHW
