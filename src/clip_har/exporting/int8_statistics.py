"""What images tell about the layers of a graph: ranges and means of their tensors, and the noise that int8 would add.

Both are computed by the graph itself, with nodes added, so that no activation leaves onnxruntime.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from clip_har.evaluation.records import FloatArray
from clip_har.exporting.int8_graph import Layer, Range, Rounded, constant, shield
from clip_har.exporting.onnx_file import INPUT, session


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of the tensors that the layers read and give, over images."""

    ranges: Mapping[str, Range]
    """Tensor -> its smallest and largest value."""
    means: Mapping[str, FloatArray]
    """Layer -> the mean of each of its inputs [I]."""


def measure(model: Any, layers: Sequence[Layer], batches: Iterable[Tensor]) -> Statistics:
    """Run the graph on images [B, 3, H, W] and collect what quantisation needs."""
    probe = _Probe(model)
    tensors = sorted({name for layer in layers for name in (layer.inputs, layer.outputs)})
    low = {name: probe.reduce("ReduceMin", name) for name in tensors}
    high = {name: probe.reduce("ReduceMax", name) for name in tensors}
    means = {layer.name: probe.mean_of_inputs(layer) for layer in layers}
    count, found, sums = 0, dict[str, Range](), dict[str, FloatArray]()
    for size, values in probe.run(batches):
        count += size
        for name in tensors:
            lowest, highest = found.get(name, (np.inf, -np.inf))
            found[name] = min(lowest, float(values[low[name]])), max(highest, float(values[high[name]]))
        for name, output in means.items():
            mean_I = values[output].astype(np.float64).reshape(-1, values[output].shape[-1]).mean(axis=0)
            sums[name] = sums.get(name, 0.0) + size * mean_I
    return Statistics(ranges=found, means={name: total / count for name, total in sums.items()})


def noise(
    model: Any,
    layers: Sequence[Layer],
    weights: Mapping[str, Rounded],
    ranges: Mapping[str, Range],
    batches: Iterable[Tensor],
) -> dict[str, float]:
    """Noise-to-signal ratio of each layer's output if this layer alone were in int8.

    Each layer gets a twin in the same graph that reads the same float32 input, rounded to 8 bits; the ratio is the mean
    square of the difference of the two over that of the layer's output.
    """
    probe = _Probe(model)
    pairs = {layer.name: probe.twin(layer, weights[layer.name], ranges) for layer in layers}
    sums = {name: np.zeros(2) for name in pairs}
    for _, values in probe.run(batches):
        for name, outputs in pairs.items():
            sums[name] += [float(values[output]) for output in outputs]
    return {name: float(difference / max(power, 1e-30)) for name, (difference, power) in sums.items()}


def step_and_zero(limits: Range) -> tuple[float, int]:
    """Step and zero point of 8 unsigned bits for a range, as onnxruntime chooses them; zero is always exact."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    step = (high - low) / 255 or 1.0
    return step, round(-low / step)


class _Probe:
    """A copy of a graph to which outputs are added."""

    def __init__(self, model: Any) -> None:
        self._model = copy.deepcopy(model)
        self._nodes = {node.name: node for node in self._model.graph.node}
        self._version = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
        self._added: list[str] = []
        self._count = 0

    def run(self, batches: Iterable[Tensor]) -> Any:
        """For each batch, its size and the value of each added output."""
        import onnx

        for name in self._added:
            self._model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        shield(self._model)  # a twin is a layer in float32 between two roundings
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probe.onnx"
            onnx.save(self._model, str(path))
            opened = session(path)
            for images_BCHW in batches:
                values = opened.run(self._added, {INPUT: images_BCHW.numpy()})
                yield len(images_BCHW), dict(zip(self._added, values, strict=True))

    def reduce(self, kind: str, tensor: str) -> str:
        """An output: one number of a whole tensor."""
        return self._output(self._add(kind, [tensor], keepdims=0))

    def mean_of_inputs(self, layer: Layer) -> str:
        """An output: the mean of each input of a layer over places, [B, I] or, over images too, [I]."""
        if layer.kind == "Conv":
            return self._output(self._mean(layer.inputs, [2, 3]))
        width = self._add("Shape", [layer.inputs], start=-1)
        shape = self._add("Concat", [self._constant(np.array([-1], dtype=np.int64)), width], axis=0)
        return self._output(self._mean(self._add("Reshape", [layer.inputs, shape]), [0]))

    def twin(self, layer: Layer, new: Rounded, ranges: Mapping[str, Range]) -> tuple[str, str]:
        """Two outputs: the square of what int8 changes in a layer's output, and the square of that output."""
        inputs = [self._rounded(layer.inputs, ranges), self._constant(new.weights)]
        if new.bias_O is not None and layer.adds == layer.name:
            inputs.append(self._constant(new.bias_O))
        twin = self._again(layer.name, inputs)
        if new.bias_O is not None and layer.adds != layer.name:
            assert layer.bias is not None
            twin = self._add("Add", [twin, self._constant(new.bias_O - constant(self._model, layer.bias))])
        if layer.activation is not None:
            twin = self._again(layer.activation, [twin, *self._nodes[layer.activation].input[1:]])
        if layer.kind == "Conv":
            twin = self._rounded(twin, {twin: ranges[layer.outputs]})
        difference = self._add("Sub", [twin, layer.outputs])
        return self.reduce("ReduceSumSquare", difference), self.reduce("ReduceSumSquare", layer.outputs)

    def _rounded(self, tensor: str, ranges: Mapping[str, Range]) -> str:
        """A tensor in 8 bits, as float32."""
        step, zero = step_and_zero(ranges[tensor])
        scale = [self._constant(np.array(step, dtype=np.float32)), self._constant(np.array(zero, dtype=np.uint8))]
        return self._add("DequantizeLinear", [self._add("QuantizeLinear", [tensor, *scale]), *scale])

    def _again(self, name: str, inputs: Sequence[str]) -> str:
        """A node of the graph once more, with other inputs."""
        twin = copy.deepcopy(self._nodes[name])
        del twin.input[:], twin.output[:]
        twin.input.extend(inputs)
        return self._append(twin)

    def _mean(self, tensor: str, axes: Sequence[int]) -> str:
        if self._version < 18:  # later an input
            return self._add("ReduceMean", [tensor], axes=axes, keepdims=0)
        return self._add("ReduceMean", [tensor, self._constant(np.array(axes, dtype=np.int64))], keepdims=0)

    def _constant(self, value: Any) -> str:
        import onnx

        self._count += 1
        tensor = onnx.numpy_helper.from_array(value, f"probe/constant{self._count}")
        self._model.graph.initializer.append(tensor)
        return str(tensor.name)

    def _add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        import onnx

        return self._append(onnx.helper.make_node(kind, list(inputs), [], **attributes))

    def _append(self, node: Any) -> str:
        self._count += 1
        node.name = f"probe/{self._count}"
        node.output.append(f"probe/{self._count}/output")
        self._model.graph.node.append(node)
        return str(node.output[0])

    def _output(self, tensor: str) -> str:
        self._added.append(tensor)
        return tensor
