"""Quantisation keeps the answers: safe and fine steps, corrected biases, and the layers that need it in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import quant_pre_process
from torch import Tensor, nn

from clip_har.errors import ConfigError
from clip_har.exporting import int8
from clip_har.exporting.image_model import ImageClassifier
from clip_har.exporting.int8 import fewest, mean_divergence, quantise
from clip_har.exporting.int8_graph import Layer, constant, layers, rounded, weight_scales, with_int8
from clip_har.exporting.int8_statistics import measure, noise
from clip_har.exporting.onnx_file import OnnxAnswers, quiet, write_onnx


class Model(nn.Module):
    """Three convolutions with ReLU6, of which the second is depthwise, a product with tokens, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 3, groups=16),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 1),
            nn.ReLU6(),
            nn.Flatten(2),
            nn.Linear(25, 8),
            nn.GELU(),
            nn.Flatten(1),
        )
        self.head = nn.Linear(128, 4)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        logits_BC = 10 * self.head(self.visual(images_BCHW))
        return logits_BC, logits_BC.softmax(dim=-1)

    def layer(self, index: int) -> nn.Conv2d:
        return cast(nn.Conv2d, self.visual[index])


@pytest.fixture(name="model")
def fixture_model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


@pytest.fixture(name="images_NCHW")
def fixture_images() -> Tensor:
    return torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def written(model: Model, folder: Path) -> Path:
    with quiet():
        return write_onnx(cast(ImageClassifier, model), (16, 16), folder)


def prepared(model: Model, folder: Path) -> Any:
    path = written(model, folder)
    with quiet():
        quant_pre_process(str(path), str(path), skip_symbolic_shape=True)
    return onnx.load(str(path))


def quantised_by(graph: Any, chosen: list[Layer], images_NCHW: Tensor) -> Any:
    found = layers(graph)
    statistics = measure(graph, found, images_NCHW.split(8))
    weights = {layer.name: int8._rounded(graph, layer, statistics) for layer in found}
    return with_int8(onnx.ModelProto.FromString(graph.SerializeToString()), chosen, weights, statistics.ranges)


def answers(graph: Any, images_NCHW: Tensor, *, optimised: bool = True) -> Tensor:
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["probabilities"], {"images": images_NCHW.numpy()})[0])


# Weights


def test_no_two_weights_of_a_sign_can_saturate_and_steps_are_at_least_those_of_7_bits() -> None:
    weights_OK = np.random.default_rng(0).normal(size=(200, 9))
    weights_OK[0] = [5, *[0.01] * 8]
    weights_OK[1] = [5, 5, *[0.01] * 7]
    weights_OK[2] = 0
    steps_O = weight_scales(weights_OK)
    integers_OK = np.rint(weights_OK / steps_O[:, None])
    for sign in (1, -1):
        assert np.sort(np.maximum(sign * integers_OK, 0), axis=1)[:, -2:].sum(axis=1).max() <= 128
    assert np.abs(integers_OK).max() <= 127
    seven_O = np.abs(weights_OK).max(axis=1) / 63
    assert (steps_O[3:] <= seven_O[3:]).all() and steps_O[3:].mean() < 0.85 * seven_O[3:].mean()
    assert np.abs(integers_OK[0]).max() == 127 and np.abs(integers_OK[1]).max() in (63, 64)
    assert not integers_OK[2].any()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_corrected_bias_removes_the_mean_error(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(8, 4 // groups, 1, 1, generator=generator) * torch.tensor([10.0] + [0.03] * 7).view(
        -1, 1, 1, 1
    )
    weights[:, 0] *= 50  # coarse steps for the others
    inputs_BCHW = 3 + torch.rand(64, 4, 2, 2, generator=generator)
    bias_O = torch.randn(8, generator=generator)
    layer = Layer(
        name="layer", kind="Conv", inputs="x", outputs="y", before="y", activation=None, weights="w", bias="b",
        adds="layer", channel=0, groups=groups,
    )  # fmt: skip
    new = rounded(layer, weights.numpy(), bias_O.numpy(), inputs_BCHW.mean(dim=(0, 2, 3)).numpy())
    assert new.bias_O is not None

    def output(bias: Any) -> Tensor:
        return torch.conv2d(inputs_BCHW, torch.from_numpy(new.weights), torch.from_numpy(bias), groups=groups)

    exact_BOHW = torch.conv2d(inputs_BCHW, weights, bias_O, groups=groups)
    before_O = (output(bias_O.numpy()) - exact_BOHW).mean(dim=(0, 2, 3)).abs()
    after_O = (output(new.bias_O) - exact_BOHW).mean(dim=(0, 2, 3)).abs()
    assert after_O.max() < 1e-3
    assert groups == 4 or before_O.max() > 0.01  # one weight an output is exact


# Graph


def test_layers_are_those_of_the_encoder(model: Model, tmp_path: Path) -> None:
    found = layers(prepared(model, tmp_path))
    assert [layer.kind for layer in found] == ["Conv", "Conv", "Conv", "MatMul"]
    assert [layer.groups for layer in found] == [1, 16, 1, 1]
    assert all(layer.bias is not None for layer in found)
    assert [layer.activation is not None for layer in found] == [True, True, True, False]


def test_ranges_end_where_the_activation_ends(model: Model, images_NCHW: Tensor, tmp_path: Path) -> None:
    model.layer(0).weight.data *= 30
    graph = prepared(model, tmp_path)
    new = quantised_by(graph, list(layers(graph)), images_NCHW)
    assert not any(node.op_type == "Clip" for node in new.graph.node)  # the ranges clip
    steps = [constant(new, node.input[1]) for node in new.graph.node if node.op_type == "QuantizeLinear"]
    assert max(float(step) for step in steps[1:]) <= 6 / 255 + 1e-6


def test_a_layer_in_float32_between_int8_layers_is_computed_in_float32(
    model: Model, images_NCHW: Tensor, tmp_path: Path
) -> None:
    model.layer(2).weight.data[0] *= 1000  # with one step for all outputs, the others would be 0
    model.layer(2).bias.data[0] = 0  # type: ignore[union-attr]
    graph = prepared(model, tmp_path)
    first, _, third, _ = layers(graph)
    new = quantised_by(graph, [first, third], images_NCHW)
    exact_NC = answers(graph, images_NCHW)
    assert mean_divergence(exact_NC, answers(new, images_NCHW)) < 3e-3
    assert mean_divergence(answers(new, images_NCHW, optimised=False), answers(new, images_NCHW)) < 1e-3


def test_noise_is_that_of_the_layer_alone(model: Model, images_NCHW: Tensor, tmp_path: Path) -> None:
    graph = prepared(model, tmp_path)
    found = layers(graph)
    statistics = measure(graph, found, images_NCHW.split(8))
    weights = {layer.name: int8._rounded(graph, layer, statistics) for layer in found}
    ratios = noise(graph, found, weights, statistics.ranges, images_NCHW.split(8))

    def eight_bits(x: Tensor, like: Tensor) -> Tensor:
        low, high = min(float(like.min()), 0.0), max(float(like.max()), 0.0)
        step = (high - low) / 255
        zero = round(-low / step)
        return ((x / step).round() + zero).clamp(0, 255).sub(zero) * step

    with torch.no_grad():
        inputs = model.visual[:4](images_NCHW)
        outputs = model.visual[4:6](inputs)
        new = weights[found[2].name]
        bias = torch.from_numpy(cast(Any, new.bias_O))
        products = torch.conv2d(eight_bits(inputs, inputs), torch.from_numpy(new.weights), bias)
        naive = eight_bits(products.clamp(0, 6), outputs)
    expected = float((naive - outputs).square().sum() / outputs.square().sum())
    assert ratios[found[2].name] == pytest.approx(expected, rel=0.05)
    assert all(0 < ratio < 0.01 for ratio in ratios.values())


# The choice


@pytest.mark.parametrize("needed", [0, 1, 5, 29, 30])
def test_the_fewest_layers_are_found_with_a_handful_of_evaluations(needed: int) -> None:
    tried: list[int] = []

    def divergence(kept: int) -> float:
        tried.append(kept)
        return 0.001 if kept >= needed else 1.0

    assert fewest(30, divergence, 0.01) == (needed, 0.0 if needed == 30 else 0.001)
    assert len(tried) <= 6 and 30 not in tried
    assert needed or tried == [0]


def test_layers_that_int8_spoils_stay_in_float32(
    model: Model, images_NCHW: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first layer's outputs differ a thousandfold, which the next one undoes: one range for all loses most."""
    model.visual[1] = nn.ReLU()  # ReLU6 would not give the same answers
    monkeypatch.setattr(int8, "LARGEST_DIVERGENCE", 5e-4)
    scale_O = torch.tensor([1.0] + [0.001] * 15)
    with torch.no_grad():
        model.layer(0).weight *= scale_O.view(-1, 1, 1, 1)
        cast(Tensor, model.layer(0).bias).mul_(scale_O)
        model.layer(2).weight /= scale_O.view(-1, 1, 1, 1)
    path = written(model, tmp_path)
    exact_NC = OnnxAnswers(path)(images_NCHW)
    size = path.stat().st_size
    choice = quantise(path, images_NCHW.split(8))
    assert choice.total == 4
    assert choice.divergence <= int8.LARGEST_DIVERGENCE
    assert str(choice).startswith(f"{len(choice.kept)} of 4 layers of the image encoder stay in float32")
    assert set(choice.kept) == {"/visual/visual.0/Conv", "/visual/visual.2/Conv"}
    assert mean_divergence(exact_NC, OnnxAnswers(path)(images_NCHW)) < 2 * int8.LARGEST_DIVERGENCE
    assert path.stat().st_size != size and [item.name for item in tmp_path.iterdir() if item.is_file()] == [path.name]


def test_nothing_stays_in_float32_where_int8_is_good_enough(model: Model, images_NCHW: Tensor, tmp_path: Path) -> None:
    path = written(model, tmp_path)
    exact_NC = OnnxAnswers(path)(images_NCHW)
    assert quantise(path, images_NCHW.split(8)).kept == ()
    assert 0 < mean_divergence(exact_NC, OnnxAnswers(path)(images_NCHW)) < int8.LARGEST_DIVERGENCE


def test_blends_are_of_evenly_spaced_images_half_the_dataset_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "KEPT_IMAGES", 4)
    sample = int8._Sample()
    images_NCHW = torch.arange(20.0).view(20, 1, 1, 1)
    assert torch.equal(torch.cat(list(sample.collecting(images_NCHW.split(3)))), images_NCHW)
    assert sample.blends().flatten().tolist() == [6.0, 10.0, 4.0, 8.0, 12.0]


class NoEncoder(Model):
    def __init__(self) -> None:
        super().__init__()
        self.other, self.visual = self.visual, nn.Sequential()

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        logits_BC = self.head(self.other(images_BCHW))
        return logits_BC, logits_BC.softmax(dim=-1)


def test_a_graph_without_an_encoder_is_refused(images_NCHW: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image encoder that int8 can quantise"):
        quantise(written(NoEncoder().eval(), tmp_path), images_NCHW.split(8))
