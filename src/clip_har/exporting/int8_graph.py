"""The layers of a graph that can be computed in int8, their weights in 8 bits, and the graph with some of them in int8.

Which layers stay in float32 is chosen in int8.py; the ranges of the activations come from int8_statistics.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip_har.evaluation.records import FloatArray

# Shapes: O outputs of a layer, K products that are summed for each, I inputs (channels), g groups.

Range = tuple[float, float]
LARGEST_PAIR = 128
"""Sum of two weights of one sign. x86 processors without VNNI add pairs of products of an activation (at most 255) and
a weight in 16 bits: 255 * 128 is the largest multiple of 255 that they hold."""
_KINDS = ("Conv", "MatMul", "Gemm")
_ACTIVATIONS = ("Relu", "Clip")
_ENCODER = "/visual/"
"""In the names of the image encoder's nodes; what follows it stays in float32."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution or a product with constant weights, of the image encoder."""

    name: str
    """Of its node."""
    kind: str
    inputs: str
    """Tensor that it reads."""
    outputs: str
    """Tensor that it gives, after the ReLU or clip if one follows."""
    before: str
    """The same before it."""
    activation: str | None
    """Node of that ReLU or clip."""
    weights: str
    bias: str | None
    """Tensor that is added; of a product, by a node of its own. None: there is none."""
    adds: str
    """Node that adds the bias."""
    channel: int
    """Axis of the weights that counts the outputs."""
    groups: int


def layers(model: Any) -> tuple[Layer, ...]:
    """The layers of the image encoder that can be in int8, in the order of the graph.

    Args:
        model: an onnx.ModelProto, prepared by onnxruntime's quant_pre_process.
    """
    constants = {item.name for item in model.graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        is_layer = node.op_type in _KINDS and _ENCODER in node.name
        if is_layer and node.input[1] in constants and len(readers[node.input[1]]) == 1:
            found.append(_layer(node, readers.get(node.output[0], []), constants))
    return tuple(found)


def _layer(node: Any, readers: Sequence[Any], constants: Collection[str]) -> Layer:
    attributes = {item.name: item.i for item in node.attribute}
    follower = readers[0] if len(readers) == 1 else None
    clipped = node.op_type == "Conv" and follower is not None and follower.op_type in _ACTIVATIONS
    bias, adds = (node.input[2] if len(node.input) > 2 else None), node.name
    if node.op_type == "MatMul" and follower is not None and follower.op_type == "Add":
        bias, adds = next((name for name in follower.input if name in constants), None), follower.name
    return Layer(
        name=node.name,
        kind=node.op_type,
        inputs=node.input[0],
        outputs=follower.output[0] if clipped and follower is not None else node.output[0],
        before=node.output[0],
        activation=follower.name if clipped and follower is not None else None,
        weights=node.input[1],
        bias=bias if bias in constants else None,
        adds=adds,
        channel=0 if node.op_type == "Conv" or attributes.get("transB") else 1,
        groups=attributes.get("group", 1),
    )


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """The weights of a layer in 8 bits, as the numbers that they stand for."""

    weights: FloatArray
    """float32, of the shape of the layer's weights."""
    scale_O: FloatArray
    bias_O: FloatArray | None
    """Corrected bias, float32; None: the layer has no bias."""


def rounded(layer: Layer, weights: FloatArray, bias_O: FloatArray | None, mean_I: FloatArray) -> Rounded:
    """Round the weights of a layer per output, and correct its bias for the mean error.

    The correction is the empirical one of Nagel et al., Data-Free Quantization Through Weight Equalization and Bias
    Correction (2019): what the rounding adds to the mean of an output is taken from its bias. Padding is neglected.

    Args:
        mean_I: mean of the inputs.
    """
    weights_O = np.moveaxis(weights.astype(np.float64), layer.channel, 0)
    scale_O = weight_scales(weights_O.reshape(len(weights_O), -1))
    by_output = scale_O.reshape(-1, *[1] * (weights_O.ndim - 1))
    rounded_O = np.rint(weights_O / by_output) * by_output
    if bias_O is not None:
        error_Oi = (rounded_O - weights_O).reshape(*weights_O.shape[:2], -1).sum(axis=2)  # i inputs of a group
        mean_Oi = np.repeat(mean_I.reshape(layer.groups, -1), len(weights_O) // layer.groups, axis=0)
        bias_O = (bias_O - (error_Oi * mean_Oi).sum(axis=1)).astype(np.float32)
    return Rounded(
        weights=np.ascontiguousarray(np.moveaxis(rounded_O, 0, layer.channel), dtype=np.float32),
        scale_O=scale_O.astype(np.float32),
        bias_O=bias_O,
    )


def weight_scales(weights_OK: FloatArray) -> FloatArray:
    """The finest step of each output's weights with which no pair exceeds `LARGEST_PAIR`, nor a weight 127.

    All weights with 7 bits (onnxruntime's `reduce_range`) would be safe too; this is up to twice as fine.
    """
    largest_O = np.abs(weights_OK).max(axis=1)
    step_O = largest_O / 127
    for sign in (1, -1):
        pairs_OK = np.sort(np.maximum(sign * weights_OK, 0), axis=1)[:, -2:]
        # Rounding may add a half to each of the two.
        step_O = np.maximum(step_O, pairs_OK.sum(axis=1) / (LARGEST_PAIR - 1))
    return np.where(largest_O > 0, step_O, 1.0)


def with_int8(model: Any, chosen: Sequence[Layer], weights: Mapping[str, Rounded], ranges: Mapping[str, Range]) -> Any:
    """The graph with these layers in int8, in the form that onnxruntime computes with integers (QDQ).

    Activations have 8 bits. Outputs of products stay in float32, as do products of two activations (attention).

    Args:
        model: prepared; it is changed.
        weights: of each layer, by its name.
        ranges: smallest and largest value of each tensor that the layers read or give.

    Returns:
        The quantised onnx.ModelProto.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

    steps = {}
    for layer in chosen:
        replace_weights(model, layer, weights[layer.name])
        zero, own = np.array(0, dtype=np.int8), {"quant_type": QuantType.QInt8}
        steps[layer.weights] = [own | {"scale": step, "zero_point": zero} for step in weights[layer.name].scale_O]
        steps[layer.weights][0]["axis"] = layer.channel
    known = {**{layer.before: ranges[layer.outputs] for layer in chosen}, **ranges}
    limits = {name: tuple(np.array(value, dtype=np.float32) for value in limit) for name, limit in known.items()}
    quantiser = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,  # see weight_scales
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
        nodes_to_quantize=[name for layer in chosen for name in (layer.name, layer.activation) if name is not None],
        nodes_to_exclude=[],
        op_types_to_quantize=[*_KINDS, *_ACTIVATIONS],
        extra_options={
            "MatMulConstBOnly": True,
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            "TensorQuantOverrides": steps,
        },
    )
    quantiser.quantize_model()
    shield(quantiser.model.model)
    return quantiser.model.model


def shield(model: Any) -> None:
    """Keep onnxruntime from quantising layers that shall stay in float32.

    A Conv or Gemm in float32 between int8 layers gets int8 weights when the file is opened, with one step for all
    outputs (onnxruntime's WeightBiasQuantization). It does not where an operator stands between the layer and its
    dequantised input: here a clip to all that float32 can be.
    """
    import onnx

    makers = {name: node for node in model.graph.node for name in node.output}
    nodes, limits = [], ("int8/lowest", "int8/highest")
    for node in model.graph.node:
        is_layer = node.op_type in ("Conv", "Gemm") and makers.get(node.input[1]) is None
        if is_layer and getattr(makers.get(node.input[0]), "op_type", "") == "DequantizeLinear":
            name = f"{node.name}/shielded"
            nodes.append(onnx.helper.make_node("Clip", [node.input[0], *limits], [name], name=name))
            node.input[0] = name
        nodes.append(node)
    if len(nodes) > len(model.graph.node):
        largest = np.finfo(np.float32).max
        for name, value in zip(limits, (-largest, largest), strict=True):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name))
        copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copied)


def replace_weights(model: Any, layer: Layer, new: Rounded) -> None:
    """Give a layer rounded weights and its corrected bias, which other nodes that read the old bias do not see."""
    from onnx import numpy_helper

    tensors = {item.name: item for item in model.graph.initializer}
    tensors[layer.weights].CopyFrom(numpy_helper.from_array(new.weights, layer.weights))
    if new.bias_O is not None:
        name = f"{layer.name}/bias"
        model.graph.initializer.append(numpy_helper.from_array(new.bias_O, name))
        node = next(node for node in model.graph.node if node.name == layer.adds)
        node.input[list(node.input).index(layer.bias)] = name


def constant(model: Any, name: str) -> FloatArray:
    """A constant tensor of the graph."""
    from onnx import numpy_helper

    found: FloatArray = numpy_helper.to_array(next(item for item in model.graph.initializer if item.name == name))
    return found
