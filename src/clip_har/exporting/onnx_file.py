"""ONNX: a module as a graph with its description in the file, and running it in onnxruntime.

What the module computes is in image_model.py; its int8 form is in int8.py.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_har.errors import ConfigError, first_line
from clip_har.exporting.image_model import ImageClassifier
from clip_har.wording import file_size

MODEL_FILE = "model.onnx"
INPUT, OUTPUTS = "images", ("logits", "probabilities")
OPSET = 17
"""Of ONNX's operators: the first with LayerNormalization, and what onnxruntime reads since 1.12."""
ONE_FILE = 1_900_000_000
"""Bytes of weights from which they are a file of their own: protobuf ends at 2 GB."""


def require_onnx() -> None:
    """Refuse early where the packages are missing.

    Raises:
        ConfigError: naming them.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "ONNX export requires onnx and onnxruntime", remedy='pip install "clip-har[export]"'
        ) from error


def write_onnx(model: ImageClassifier, image_size: tuple[int, int], folder: Path) -> Path:
    """Write a module as model.onnx, for batches of any size; above `ONE_FILE` with its weights next to it.

    torch's exporter by tracing writes all encoders that open_clip has, ten times faster than the one by torch.export;
    it cannot write more than 2 GB.
    """
    example_BCHW = torch.rand(2, 3, *image_size, generator=torch.Generator().manual_seed(0))
    path = folder / MODEL_FILE
    size = weight_bytes(model)
    given: dict[str, Any] = {"input_names": [INPUT], "output_names": list(OUTPUTS), "opset_version": OPSET}
    if size < ONE_FILE:
        given |= {"dynamo": False, "dynamic_axes": {name: {0: "batch"} for name in (INPUT, *OUTPUTS)}}
    else:
        shapes = {"images_BCHW": {0: torch.export.Dim("batch", min=1)}}
        given |= {"dynamo": True, "dynamic_shapes": shapes, "external_data": True, "verbose": False}
        given["opset_version"] = 18  # its own
    try:
        with _traceable(), torch.no_grad():
            torch.onnx.export(model, (example_BCHW,), str(path), **given)
    except torch.onnx.OnnxExporterError as error:
        raise ConfigError(
            f"torch cannot write this run as ONNX ({file_size(size)} of weights): {first_line(error)}",
            remedy="Use --format openclip or a smaller model." if given["dynamo"] else "Use another --format.",
        ) from error
    return path


def weight_bytes(model: ImageClassifier) -> int:
    """Size of a module's parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def add_description(path: Path, description: Mapping[str, Any]) -> None:
    """Put a description into the metadata of a model: each key with its value as JSON."""
    import onnx

    content = onnx.load(str(path), load_external_data=False)
    content.producer_name, content.producer_version = "clip-har", str(description["clip_har_version"])
    onnx.helper.set_model_props(content, {key: json.dumps(value) for key, value in description.items()})
    onnx.save(content, str(path))


def session(path: Path) -> Any:
    """A model in onnxruntime, on the CPU, with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OnnxAnswers:
    """A written model, run on the CPU: images [B, 3, H, W] -> calibrated probabilities [B, C]."""

    def __init__(self, path: Path) -> None:
        self._session = session(path)

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        inputs = {INPUT: np.ascontiguousarray(images_BCHW.numpy(), dtype=np.float32)}
        (probabilities_BC,) = self._session.run(["probabilities"], inputs)
        return torch.from_numpy(probabilities_BC)


@contextlib.contextmanager
def _traceable() -> Iterator[None]:
    """Without torch's fused attention layer, which has no counterpart in ONNX; and without the exporter's warnings."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with quiet():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, and without what libraries log below errors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
