"""The frozen image encoder of ViT-B/32 in other runtimes, against clip-har's own: images per second and cosine.

    python benchmarks/encoder_runtimes.py [--seconds 6] [--only bfloat16,openvino-bfloat16]

Random weights, batches of 16 images in memory, on the CPU. Runtimes that are not installed are left out
(pip install onnxruntime openvino). The cosine is the lowest of an image's embedding with that of torch in float32. The
rounds of all runtimes take turns; the median round counts.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import CPU_BATCH_SIZE
from clip_har.memory import keep_freed_memory

Encode = Callable[[Tensor], Any]
ROUND = 1.0
"""Seconds of a round."""


def in_torch(visual: nn.Module, dtype: torch.dtype, *, compiled: bool = False) -> Encode:
    """As clip-har encodes, with an encoder in this type; or through torch.compile."""
    own: nn.Module = copy.deepcopy(visual).to(dtype=dtype)
    own = own.to(memory_format=torch.channels_last)
    called = torch.compile(own) if compiled else own

    @torch.inference_mode()
    def encode(images_BCHW: Tensor) -> Any:
        return called(images_BCHW.to(dtype, memory_format=torch.channels_last)).float()

    return encode


def write_onnx(visual: nn.Module, images_BCHW: Tensor, path: Path) -> None:
    """The encoder as an ONNX file, without torch's fused attention, which ONNX does not have."""
    torch.backends.mha.set_fastpath_enabled(False)
    axes = {"images": {0: "batch"}}
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["embeddings"], "dynamic_axes": axes}
    torch.onnx.export(visual, (images_BCHW,), str(path), opset_version=17, dynamo=False, **names)
    torch.backends.mha.set_fastpath_enabled(True)


def in_onnxruntime(path: Path) -> Encode:
    """onnxruntime on as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options)
    return lambda images_BCHW: session.run(None, {"images": images_BCHW.numpy()})[0]


def in_onnxruntime_int8(path: Path) -> Encode:
    """The same with 8-bit weights, and activations quantised as they come (dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = path.with_name("int8.onnx")
    quantize_dynamic(str(path), str(small), weight_type=QuantType.QInt8, per_channel=True)
    return in_onnxruntime(small)


def in_openvino(path: Path, precision: str) -> Encode:
    """OpenVINO on as many threads as torch; its bf16 is a hint that it follows where the processor multiplies it."""
    openvino: Any = importlib.import_module("openvino")
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = core.compile_model(core.read_model(str(path)), "CPU", hints).create_infer_request()
    return lambda images_BCHW: request.infer({0: images_BCHW.numpy()})[0]


def runtimes(visual: nn.Module, images_BCHW: Tensor, folder: Path, only: set[str]) -> dict[str, Encode]:
    """Name -> what encodes, of all that can be imported."""
    path = folder / "encoder.onnx"
    write_onnx(copy.deepcopy(visual), images_BCHW, path)
    makers: dict[str, tuple[str, Callable[[], Encode]]] = {
        "float32": ("torch", lambda: in_torch(visual, torch.float32)),
        "bfloat16": ("torch", lambda: in_torch(visual, torch.bfloat16)),
        "compile-float32": ("torch", lambda: in_torch(visual, torch.float32, compiled=True)),
        "compile-bfloat16": ("torch", lambda: in_torch(visual, torch.bfloat16, compiled=True)),
        "onnxruntime-float32": ("onnxruntime", lambda: in_onnxruntime(path)),
        "onnxruntime-int8": ("onnxruntime", lambda: in_onnxruntime_int8(path)),
        "openvino-float32": ("openvino", lambda: in_openvino(path, "f32")),
        "openvino-bfloat16": ("openvino", lambda: in_openvino(path, "bf16")),
    }
    return {
        name: make()
        for name, (package, make) in makers.items()
        if (not only or name in only) and importlib.util.find_spec(package) is not None
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each runtime")
    parser.add_argument("--only", default="", help="names, comma-separated")
    given = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    visual = open_clip.create_model("ViT-B-32").eval().requires_grad_(False).visual
    images_BCHW = torch.randn(CPU_BATCH_SIZE, 3, 224, 224)
    with torch.inference_mode():
        expected_BD = F.normalize(visual(images_BCHW), dim=-1)
    with tempfile.TemporaryDirectory() as folder:
        encoders = runtimes(visual, images_BCHW, Path(folder), set(filter(None, given.only.split(","))))
        cosines = {}
        for name, encode in encoders.items():
            answer_BD = F.normalize(torch.from_numpy(np.array(encode(images_BCHW))), dim=-1)
            cosines[name] = float((answer_BD * expected_BD).sum(dim=-1).min())
        rates: dict[str, list[float]] = {name: [] for name in encoders}
        for _ in range(max(1, round(given.seconds / ROUND))):
            for name, encode in encoders.items():
                begun, count = time.perf_counter(), 0
                while time.perf_counter() - begun < ROUND:
                    encode(images_BCHW)
                    count += len(images_BCHW)
                rates[name].append(count / (time.perf_counter() - begun))
    for name in encoders:
        print(f"{name:20} {statistics.median(rates[name]):7.1f} images/s   lowest cosine {cosines[name]:.5f}")


if __name__ == "__main__":
    main()
