"""LoRA inside the towers: PEFT's own answers and gradients, its files without this package, and users' mistakes."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import open_clip
import peft
import pytest
import torch
import torch.nn.functional as F
from peft.tuners.lora import layer as lora
from safetensors.torch import load_file, save_file
from timm.models import register_model
from timm.models.efficientnet import _gen_efficientnet_lite
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedTokenizerFast

import tasks
from clip_har.backbone import Backbone, load_backbone
from clip_har.config import Settings
from clip_har.errors import ConfigError
from clip_har.methods.base import Batch, Task
from clip_har.methods.lora_attention import FastAttention, make_attention_separate
from clip_har.methods.tower_lora import TowerLora
from clip_har.methods.towers import Towers
from samples import CLASSES, MODEL_CONFIG, write_model

TEMPLATES = ("a photo of a person {}", "someone {}")
NATIVE = MODEL_CONFIG["model_cfg"]
TEXT = NATIVE["text_cfg"]
BERT_TEXT = {"context_length": 12, "hf_model_name": "bert", "hf_tokenizer_name": "bert", "hf_proj_type": "mlp"}
BERT_TEXT |= {"hf_pooler_type": "mean_pooler"}
TIMM = {"image_size": 32, "timm_pool": "", "timm_proj": "linear"}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"vision_cfg": NATIVE["vision_cfg"], "text_cfg": TEXT},
    "cnn and bert": {
        "vision_cfg": {**TIMM, "timm_model_name": "tiny_efficientnet_lite", "timm_pool": "avg"},
        "text_cfg": BERT_TEXT,
    },
    "resnet": {
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
        "text_cfg": TEXT,
    },
    "timm vit": {"vision_cfg": {**TIMM, "timm_model_name": "test_vit", "timm_pool": "token"}, "text_cfg": TEXT},
}


@register_model
def tiny_efficientnet_lite(**options: Any) -> nn.Module:
    """timm's tf_efficientnet_lite0 with a quarter of its channels and fewer blocks in each of its seven stages."""
    given = {"channel_multiplier": 0.25, "depth_multiplier": 0.3, "pad_type": "same", **options}
    built: nn.Module = _gen_efficientnet_lite("tf_efficientnet_lite0", **given)  # type: ignore[no-untyped-call]
    return built


@pytest.fixture(scope="session", params=CONFIGS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write("vit", tmp_path_factory.mktemp("vit"))


def write(kind: str, folder: Path) -> str:
    """A randomly initialised model of a kind, with a text tower from Hugging Face where its configuration asks."""
    config: dict[str, Any] = copy.deepcopy({**MODEL_CONFIG, "model_cfg": {"embed_dim": 24, **CONFIGS[kind]}})
    text = config["model_cfg"]["text_cfg"]
    if "hf_model_name" in text:
        bert = folder / "bert"
        BertConfig(
            vocab_size=32,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
        ).save_pretrained(bert)
        words = ["[PAD]", "[UNK]", "a", "photo", "of", "person", "someone", *CLASSES]
        words_model = models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
        splitting = Tokenizer(words_model)
        splitting.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=splitting, pad_token="[PAD]", unk_token="[UNK]")
        tokenizer.save_pretrained(folder)
        text |= {"hf_model_name": str(bert), "hf_tokenizer_name": str(folder)}
    name = write_model(folder, config, seed=0)
    weights = folder / "open_clip_model.safetensors"
    tensors = load_file(weights)
    for key in tensors:
        if key.endswith("bn3.weight"):
            tensors[key].fill_(1.0)  # open_clip starts them at zero, which keeps a new ResNet's blocks out of use
    save_file(tensors, weights)
    return name


def settings(**changes: Any) -> Settings:
    values = {"placement": "attention", "rank": 2, "alpha": 4.0, "dropout": 0.0, "rslora": True, "lr": 1e-2}
    return tasks.settings(**values | changes)


def task_of(model: str) -> Task:
    backbone = load_backbone(model, device="cpu", precision="float32")
    captions = [template.replace("{}", name) for name in CLASSES for template in TEMPLATES]
    captions_CTD = backbone.encode_text(captions).reshape(len(CLASSES), len(TEMPLATES), -1)
    return Task(
        classes=CLASSES,
        templates=TEMPLATES,
        captions_CTD=captions_CTD,
        prompts_CD=F.normalize(captions_CTD.mean(dim=1), dim=-1),
        logit_scale=backbone.info.logit_scale,
        load_backbone=lambda: load_backbone(model, device="cpu", precision="float32"),
        train=cast(Any, None),
        val=cast(Any, None),
        seed=0,
    )


def images_for(model: str, count: int = 6) -> Tensor:
    size = json.loads((Path(model.partition(":")[2]) / "open_clip_config.json").read_text())
    side = size["model_cfg"]["vision_cfg"]["image_size"]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def moved(method: TowerLora, task: Task) -> Towers:
    """A classifier in eval mode whose B are no longer zero, as after some training."""
    classifier = method.build(task)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in classifier.named_parameters():
            if parameter.requires_grad and ".lora_B." in name:
                parameter.normal_(0.0, 0.1, generator=generator)
    return classifier.eval()


def save(method: TowerLora, classifier: Towers, folder: Path) -> dict[str, Tensor]:
    tensors = method.tensors(classifier)
    save_file(tensors, folder / method.weights_file)
    for name, content in method.extra_files(classifier, "some model").items():
        (folder / name).write_text(json.dumps(content))
    return tensors


def plain_model(model: str) -> nn.Module:
    """The backbone as anyone loads it, in eval mode."""
    loaded: nn.Module = open_clip.create_model(model, require_pretrained=True, pretrained_text=False)
    return loaded.eval()


def batch_for(model: str) -> Batch:
    """Six images of three classes, each class brighter in another channel."""
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    return Batch.of(images_for(model) + 3 * F.one_hot(labels, 3)[:, :, None, None], labels)


def gradients(method: TowerLora, classifier: Towers, batch: Batch, task: Task) -> dict[str, Tensor]:
    classifier.zero_grad()
    method.loss(classifier, batch, task).backward()
    return {n: cast(Tensor, p.grad).clone() for n, p in classifier.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("placement", ["attention", "all"])
def test_peft_loads_the_adapter_onto_the_plain_model(model: str, placement: str, tmp_path: Path) -> None:
    task = task_of(model)
    method = TowerLora(settings(placement=placement))
    classifier = moved(method, task)
    tensors = save(method, classifier, tmp_path)
    images, tokens = images_for(model), open_clip.get_tokenizer(model)(["someone cycling", "a photo of drinking"])
    with torch.no_grad():
        answers = classifier.model.encode_image(images), classifier.model.encode_text(tokens)  # type: ignore[operator]
        before = plain_model(model).encode_image(images)  # type: ignore[operator]
        adapted = peft.PeftModel.from_pretrained(plain_model(model), str(tmp_path)).eval()
        loaded = adapted.encode_image(images), adapted.encode_text(tokens)
        merged = cast(Any, adapted.merge_and_unload())
        after_merging = merged.encode_image(images), merged.encode_text(tokens)
        restored = method.restore(task, tensors).eval()
        restored_logits = restored(images)
    assert (answers[0] - before).abs().max() > 0.01 * before.abs().max()
    for own, peft_own, peft_merged in zip(answers, loaded, after_merging, strict=True):
        torch.testing.assert_close(peft_own, own, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(peft_merged, own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(restored_logits, classifier(images).detach(), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in method.tensors(restored).items())


@pytest.mark.parametrize("placement", ["attention", "all"])
def test_every_trained_tensor_has_a_gradient_and_nothing_else_is_trained(model: str, placement: str) -> None:
    task = task_of(model)
    method = TowerLora(settings(placement=placement))
    classifier = moved(method, task).train()
    for name, gradient in gradients(method, classifier, batch_for(model), task).items():
        assert gradient.abs().max() > 0, name
    trained = {name for name, parameter in classifier.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert {name.split(".")[1] == "visual" for name in trained} == {True, False}
    grouped = [parameter for group in method.parameter_groups(classifier) for parameter in group["params"]]
    assert sum(parameter.numel() for parameter in grouped) == method.trainable_params(classifier)
    assert len(grouped) == len(trained)


def test_training_starts_at_zero_shot_and_lowers_the_loss(model: str) -> None:
    task = task_of(model)
    method = TowerLora(settings())
    classifier, batch = method.build(task), batch_for(model)
    zero_shot = Towers(task, task.load_backbone(), train_text=False)
    torch.testing.assert_close(classifier.eval()(batch.inputs), zero_shot.eval()(batch.inputs), rtol=1e-4, atol=1e-4)
    optimizer = torch.optim.AdamW(method.parameter_groups(classifier.train()))
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = method.loss(classifier, batch, task)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert torch.equal(*(next(p for n, p in method.build(task).named_parameters() if "lora_A" in n) for _ in range(2)))


def test_gradients_are_those_of_stock_peft(vit: str) -> None:
    task = task_of(vit)
    method = TowerLora(settings())
    classifier, batch = moved(method, task).train(), batch_for(vit)
    own = gradients(method, classifier, batch, task)
    model = plain_model(vit).requires_grad_(False)
    stock = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, use_rslora=True, target_modules=["attn"]))
    stock.load_state_dict(
        {key.removeprefix("model."): value for key, value in classifier.state_dict().items()}, strict=False
    )
    with torch.no_grad():
        for name, parameter in classifier.model.named_parameters():
            if ".lora_" in name:
                stock.base_model.model.get_parameter(name).copy_(parameter)
    tokens = open_clip.get_tokenizer(vit)([t.replace("{}", n) for n in CLASSES for t in TEMPLATES])
    captions = F.normalize(stock.encode_text(tokens), dim=-1).reshape(len(CLASSES), len(TEMPLATES), -1).mean(dim=1)
    image = F.normalize(stock.encode_image(batch.inputs), dim=-1)
    logits = classifier.scale() * image @ F.normalize(captions, dim=-1).T
    torch.testing.assert_close(classifier(batch.inputs), logits, rtol=1e-4, atol=1e-4)
    F.cross_entropy(logits, batch.labels_B).backward()
    for name, gradient in own.items():
        expected = stock.base_model.model.get_parameter(name.removeprefix("model.")).grad
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("batch_first", [True, False])
def test_fast_attention_is_peft_s_with_masks_and_either_layout(batch_first: bool) -> None:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["0"])
    stock = peft.get_peft_model(nn.Sequential(nn.MultiheadAttention(12, 3, batch_first=batch_first)), config)
    layer = stock.base_model.model[0]
    nn.init.normal_(layer.lora_B["default"].weight)
    x, mask = torch.randn(4, 4, 12), torch.full((4, 4), -math.inf).triu(1)
    for attn_mask in (None, mask, mask.bool(), mask.repeat(12, 1, 1)):
        layer.__class__ = lora.MultiheadAttention
        expected = layer(x, x, x, need_weights=False, attn_mask=attn_mask)[0]
        layer.__class__ = FastAttention
        torch.testing.assert_close(layer(x, x, x, need_weights=False, attn_mask=attn_mask)[0], expected)
    weights = layer(x, x, x)[1]
    assert weights.shape == (4, 4, 4)
    layer.merge()
    assert "0.base_layer.in_proj_weight" in stock.base_model.model.state_dict()
    torch.testing.assert_close(layer(x, x, x, need_weights=False, attn_mask=attn_mask)[0], expected)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_tower_alone(vit: str, tower: str, tmp_path: Path) -> None:
    """Names in a native model's text tower are endings of names in its image tower."""
    task = task_of(vit)
    method = TowerLora(settings(towers=[tower]))
    save(method, moved(method, task), tmp_path)
    adapted = peft.PeftModel.from_pretrained(plain_model(vit), str(tmp_path))
    layers = [name for name, module in adapted.named_modules() if isinstance(module, lora.MultiheadAttention)]
    assert len(layers) == (2 if tower == "image" else 1)
    assert all((".visual." in name) == (tower == "image") for name in layers)


def test_last_layers_alone(model: str) -> None:
    task = task_of(model)
    everywhere, last = (TowerLora(settings(layers=layers)).build(task) for layers in ("all", "last:1"))
    names = [{n for n, p in classifier.named_parameters() if p.requires_grad} for classifier in (everywhere, last)]
    assert names[1] < names[0]
    layers = {".resblocks.0.", ".resblocks.1.", ".blocks.6.", ".layer4.", ".encoder.layer.1.", ".blocks.5."}
    above = ("attnpool", "conv_head", "visual.head")
    assert all(any(part in name for part in (*layers, *above)) for name in names[1])


def test_settings_that_do_not_fit_say_what_to_do(vit: str) -> None:
    task = task_of(vit)
    with pytest.raises(ConfigError, match=r"the image encoder has 2 layers. Use all, or last:K with K from 1 to 2"):
        TowerLora(settings(layers="last:3")).build(task)
    with pytest.raises(ConfigError, match=r"no DoRA for layers such as visual.*attn. Remove --dora"):
        TowerLora(settings(dora=True)).build(task)


def test_tensors_of_another_adapter_are_refused(vit: str) -> None:
    task = task_of(vit)
    method = TowerLora(settings())
    tensors = method.tensors(method.build(task))
    with pytest.raises(KeyError):
        TowerLora(settings(placement="all")).restore(task, tensors)
    with pytest.raises(RuntimeError, match="shape"):
        TowerLora(settings(rank=3)).restore(task, tensors)
    key = next(key for key in tensors if "out_proj.lora_B" in key)
    with pytest.raises(RuntimeError, match="not zero"):
        method.restore(task, {**tensors, key: torch.ones_like(tensors[key])})


def test_dora_where_peft_has_it(tmp_path: Path) -> None:
    model = write("timm vit", tmp_path)
    task = task_of(model)
    method = TowerLora(settings(dora=True, towers=["image"], placement="all"))
    classifier = moved(method, task)
    tensors = save(method, classifier, tmp_path)
    images = images_for(model)
    with torch.no_grad():
        answer = classifier.model.encode_image(images)  # type: ignore[operator]
        loaded = peft.PeftModel.from_pretrained(plain_model(model), str(tmp_path)).eval().encode_image(images)
        restored = method.restore(task, tensors).eval()(images)
    torch.testing.assert_close(loaded, answer, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(restored, classifier(images).detach(), rtol=1e-4, atol=1e-4)
    assert all(gradient.any() for gradient in gradients(method, classifier, batch_for(model), task).values())


def test_the_way_to_zero_shot_is_straight(model: str) -> None:
    """Halfway there the update is half of it, in every layer; at the end it is gone."""
    task = task_of(model)
    method = TowerLora(settings())
    classifier, images = moved(method, task), images_for(model)
    tensors = method.tensors(classifier)
    start = method.zero_shot_tensors(task, tensors)
    restored = method.restore(task, tensors).eval()
    zero_shot = Towers(task, task.load_backbone(), train_text=False).eval()
    live = restored.state_dict()
    with torch.no_grad():
        for alpha in (0.0, 0.5):
            for key, tensor in tensors.items():
                live[method.state_key(key)].copy_(torch.lerp(start[key], tensor, alpha))
            if alpha == 0.0:
                torch.testing.assert_close(restored(images), zero_shot(images), rtol=1e-4, atol=1e-4)
        for name, parameter in classifier.named_parameters():
            if ".lora_B." in name:
                parameter.mul_(0.5)
        torch.testing.assert_close(restored(images), classifier(images), rtol=1e-4, atol=1e-4)


def test_checkpointed_activations_give_the_same_gradients(model: str) -> None:
    task = task_of(model)
    method = TowerLora(settings())
    classifier = moved(method, task).train()
    expected = gradients(method, classifier, batch_for(model), task)
    cast(Any, classifier.model).set_grad_checkpointing()
    for name, gradient in gradients(method, classifier, batch_for(model), task).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_bfloat16_autocast_is_close(model: str) -> None:
    task = task_of(model)
    method = TowerLora(settings())
    classifier = moved(method, task)
    images = images_for(model)
    with torch.autocast("cpu", torch.bfloat16):
        image_BD = classifier.encode_images(images)
        found = gradients(method, classifier, batch_for(model), task)
    assert (image_BD * classifier.encode_images(images)).sum(dim=-1).min() > 0.99
    assert all(gradient.dtype == torch.float32 and gradient.any() for gradient in found.values())


def test_compiling_changes_nothing(vit: str) -> None:
    visual = cast(nn.Module, moved(TowerLora(settings()), task_of(vit)).model.visual)
    images = images_for(vit)
    compiled = cast(Callable[[Tensor], Tensor], torch.compile(visual, backend="eager", fullgraph=True))
    torch.testing.assert_close(compiled(images), visual(images), rtol=1e-4, atol=1e-4)


def test_dropout_acts_on_the_update_in_training_alone(vit: str) -> None:
    task = task_of(vit)
    classifier = moved(TowerLora(settings(dropout=0.5)), task)
    images = images_for(vit)
    expected = moved(TowerLora(settings()), task)(images)
    torch.testing.assert_close(classifier(images), expected)
    assert not torch.allclose(classifier.train()(images), expected)


def test_learning_rates_follow_the_side(vit: str) -> None:
    method = TowerLora(settings(lr=1.0, vision_lr_multiplier=0.5, text_lr_multiplier=0.25))
    classifier = method.build(task_of(vit))
    rates = {id(p): group["lr"] for group in method.parameter_groups(classifier) for p in group["params"]}
    for name, parameter in classifier.model.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == (0.5 if name.startswith("visual.") else 0.25)


def test_defaults_leave_the_prompts_alone_where_the_text_tower_is_frozen(vit: str) -> None:
    backbone = load_backbone(vit, device="cpu", precision="float32")
    assert TowerLora.defaults(tasks.given(), backbone).augmentation.text_augment
    assert not TowerLora.defaults(tasks.given(towers=("image",)), backbone).augmentation.text_augment


def separate(**changes: Any) -> TowerLora:
    return TowerLora(settings(separate_qkv=True, **changes))


@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.parametrize("placement", ["attention", "all"])
def test_peft_loads_an_adapter_with_an_a_for_each_of_query_key_and_value(
    vit: str, placement: str, rslora: bool, tmp_path: Path
) -> None:
    task, images = task_of(vit), images_for(vit)
    method = separate(placement=placement, rslora=rslora)
    classifier = moved(method, task)
    tensors = save(method, classifier, tmp_path)
    b_3W3R = tensors["base_model.model.visual.transformer.resblocks.0.attn.lora_B.weight"]
    assert b_3W3R.shape == (3 * 32, 3 * 2)
    blocks = [[bool(block.any()) for block in rows.chunk(3, dim=1)] for rows in b_3W3R.chunk(3)]
    assert blocks == torch.eye(3).bool().tolist()
    with torch.no_grad():
        answer = classifier.model.encode_image(images)  # type: ignore[operator]
        adapted = peft.PeftModel.from_pretrained(plain_model(vit), str(tmp_path)).eval()
        merged = cast(Any, copy.deepcopy(adapted).merge_and_unload())
        restored = method.restore(task, tensors).eval()
        torch.testing.assert_close(adapted.encode_image(images), answer, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(merged.encode_image(images), answer, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(restored(images), classifier(images), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in method.tensors(restored).items())


@pytest.mark.parametrize("rslora", [True, False])
def test_gradients_of_separate_matrices_are_those_of_three_layers(vit: str, rslora: bool) -> None:
    """Of one attention layer, against W + s B A formed for each of query, key and value."""
    method = separate(rank=2, alpha=4.0, rslora=rslora)
    classifier = moved(method, task_of(vit))
    layer = cast(Any, classifier.model).visual.transformer.resblocks[0].attn
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x_BLW = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    result = layer(x_BLW, x_BLW, x_BLW, need_weights=False)[0]
    found = torch.autograd.grad(result.square().sum(), [a, b])
    base = layer.base_layer
    projected = []
    for number in range(3):
        rows, ranks = slice(32 * number, 32 * (number + 1)), slice(2 * number, 2 * (number + 1))
        weight = base.in_proj_weight[rows] + 4 / (math.sqrt(2) if rslora else 2) * b[rows] @ a[ranks]
        projected.append(x_BLW @ weight.T + base.in_proj_bias[rows])
    query, key, value = (part.unflatten(-1, (base.num_heads, -1)).transpose(1, 2) for part in projected)
    attention = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(dim=-1)
    projection = base.out_proj.get_base_layer()
    expected = (attention @ value).transpose(1, 2).flatten(2) @ projection.weight.T + projection.bias
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    for own, naive in zip(found, torch.autograd.grad(expected.square().sum(), [a, b]), strict=True):
        assert own.any()
        torch.testing.assert_close(own, naive, rtol=1e-3, atol=1e-5)
    weighed, weights = layer(x_BLW, x_BLW, x_BLW)  # PEFT's own forward pass, which merges
    torch.testing.assert_close(weighed, expected, rtol=1e-4, atol=1e-5)
    assert weights is not None
    asked = layer(x_BLW[:, :1], x_BLW, x_BLW, need_weights=False)[0]  # as the last layer does
    torch.testing.assert_close(asked, expected[:, :1], rtol=1e-4, atol=1e-5)


def test_query_key_and_value_draw_a_dropout_of_their_own(vit: str) -> None:
    classifier = moved(separate(dropout=0.5), task_of(vit)).train()
    layer = cast(Any, classifier.model).visual.transformer.resblocks[0].attn
    with torch.no_grad():
        layer.lora_A["default"].weight.fill_(1.0)
        layer.lora_B["default"].weight.fill_(1.0)
        updates = layer._update(torch.ones(1, 1, 32), slice(None)) - F.linear(
            torch.ones(1, 1, 32), layer.base_layer.in_proj_weight, layer.base_layer.in_proj_bias
        )
    query, key, value = (part.mean().item() for part in updates.chunk(3, dim=-1))
    assert len({round(query, 3), round(key, 3), round(value, 3)}) > 1


def test_separate_matrices_have_clip_lora_s_number_of_parameters() -> None:
    """184,320 on both encoders of ViT-B/16 at rank 2, against 122,880 with one A for all three."""
    counts = {}
    for separated in (True, False):
        with torch.device("meta"):
            model = open_clip.create_model("ViT-B-16", pretrained=None, device="meta")
            model.requires_grad_(False)
            method = TowerLora(settings(separate_qkv=separated))
            method._inject(model, [n for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)])
            if separated:
                make_attention_separate(model)
        counts[separated] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counts == {True: 184_320, False: 122_880}


def test_separate_matrices_train_and_nothing_else_does(vit: str) -> None:
    task = task_of(vit)
    classifier = moved(separate(), task).train()
    found = gradients(separate(), classifier, batch_for(vit), task)
    assert all(gradient.any() for gradient in found.values())
    shared = TowerLora(settings()).build(task)
    assert separate().trainable_params(classifier) == 1.5 * separate().trainable_params(shared)


def test_a_fused_linear_layer_cannot_be_separated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot separate visual\.trunk.*qkv.* Remove --separate-qkv"):
        separate().build(task_of(write("timm vit", tmp_path)))


@pytest.mark.parametrize("changes", [{}, {"placement": "all"}, {"separate_qkv": True}], ids=str)
def test_the_merged_model_is_a_plain_one_with_the_same_embeddings(model: str, changes: dict[str, Any]) -> None:
    task = task_of(model)
    method = TowerLora(settings(**changes))
    try:
        classifier = method.build(task)
    except ConfigError:
        pytest.skip("PEFT has no such adapter for this model")
    with torch.no_grad():
        for name, parameter in classifier.named_parameters():
            if ".lora_B." in name and parameter.requires_grad:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(len(name)))
    restored = method.restore(task, method.tensors(classifier)).eval()
    plain = task.load_backbone()
    before_BD = F.normalize(plain.model.encode_image(sample(plain)), dim=-1)  # type: ignore[operator]
    plain.model.load_state_dict(method.model_state(restored))
    with torch.no_grad():
        after_BD = F.normalize(plain.model.encode_image(sample(plain)), dim=-1)  # type: ignore[operator]
        torch.testing.assert_close(after_BD, restored.encode_images(sample(plain)), rtol=1e-4, atol=1e-5)
        texts_CTD = plain.encode_text(["a photo of a person running"])
    assert not torch.allclose(after_BD, before_BD, atol=1e-3)
    label, template = torch.tensor([CLASSES.index("running")]), torch.tensor([0])
    torch.testing.assert_close(texts_CTD, restored.encode_captions(label, template).detach(), rtol=1e-4, atol=1e-5)


def sample(backbone: Backbone) -> torch.Tensor:
    height, width = backbone.info.preprocessing.image_size
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
