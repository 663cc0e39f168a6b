"""Steps of LoRA in the encoders and of full fine-tuning against stock PEFT and open_clip.

Both take the same step from the same random weights: cross-entropy over the class prompts, backward, AdamW. The
gradients of the first step are compared before anything is timed. Where `--precision auto` trains in bfloat16, that is
measured too, against the same float32 steps. Their memory is measured in tower_memory.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import open_clip
import peft
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.backbone import Backbone, autocast_pays
from clip_har.config import DataConfig, LoraConfig, TrainConfig
from clip_har.config.settings import resolve
from clip_har.encoder_speed import random_backbone
from clip_har.memory import keep_freed_memory
from clip_har.methods import Batch, GradientMethod, Task, Towers, method_class
from speed.harness import Row, in_pairs, row, seconds_of

BATCH, CLASSES = 32, 15
TEMPLATE = "a photo of a person {}"
Step = Callable[[], None]
KINDS = {"lora-attention": "PEFT on open_clip", "full": "open_clip"}


def rows(folder: Path, *, pairs: int = 5) -> list[Row]:
    """Images per second of a step, for each method."""
    found = []
    for kind, reference in KINDS.items():
        ours, stock = both_steps(kind)
        for precision in precisions():
            own, other = in_pairs(partial(rate, partial(ours, precision)), partial(rate, stock), pairs)
            found.append(
                row(
                    f"training step, {kind}, {precision}",
                    "images/s",
                    own,
                    other,
                    f"{reference}, float32",
                    more_is_better=True,
                    target=1.5,
                    note=f"ViT-B/32, {BATCH} images, {CLASSES} prompts",
                )
            )
    return found


def precisions() -> tuple[str, ...]:
    """float32, and bfloat16 autocast where training uses it by default."""
    return ("float32", "bfloat16") if autocast_pays(torch.device("cpu"), load().model) else ("float32",)


def arithmetic(precision: str) -> torch.autocast:
    """The autocast of steps, as `clip_har.trainer.engine` sets it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


def both_steps(kind: str) -> tuple[Callable[..., None], Step]:
    """A step of each, whose gradients agree; ours takes a precision."""
    images_BCHW = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    batch = Batch.of(images_BCHW, torch.arange(BATCH) % CLASSES)
    keep_freed_memory()
    method, classifier, task = own_training(kind)
    stock = stock_model(kind, classifier)
    ours, theirs = own_step(method, classifier, batch, task), stock_step(stock, batch, classifier.scale().item())
    for step in (ours, theirs):
        step()
    if kind == "lora-attention":
        compare_gradients(classifier, stock)
    return ours, theirs


def compare_gradients(classifier: Towers, stock: Any) -> None:
    """The gradients that both have after a step must agree."""
    for name, parameter in classifier.model.named_parameters():
        if parameter.requires_grad:
            expected = stock.base_model.model.get_parameter(name).grad
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def rate(step: Step) -> float:
    """Images per second of one step."""
    return BATCH / seconds_of(step)


def own_training(kind: str) -> tuple[GradientMethod, Towers, Task]:
    """clip-har's method, its classifier and a task without images."""
    config = TrainConfig(data=DataConfig(data=Path()), method="full")
    if kind == "lora-attention":
        config = TrainConfig(data=DataConfig(data=Path()), method="lora", lora=LoraConfig(placement="attention"))
    nothing: Any = None
    task = Task(
        classes=tuple(f"number {index}" for index in range(CLASSES)),
        templates=(TEMPLATE,),
        captions_CTD=torch.zeros(CLASSES, 1, 1),
        prompts_CD=torch.zeros(CLASSES, 1),
        logit_scale=100.0,
        load_backbone=load,
        train=nothing,
        val=nothing,
        seed=0,
    )
    chosen = method_class(config.method, config)
    method = cast(GradientMethod, chosen(resolve(config, chosen.defaults(config, load()))))
    classifier = cast(Towers, method.build(task))
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad and ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.01)  # as after some training, so that A has gradients too
    return method, classifier, task


def load() -> Backbone:
    """ViT-B/32 with random weights, the same on every call."""
    torch.manual_seed(0)
    backbone = random_backbone("ViT-B-32", device="cpu", precision="float32")
    return Backbone(backbone.model, open_clip.get_tokenizer("ViT-B-32"), backbone.info, "float32")


def plain_model(kind: str) -> Any:
    """The same weights without clip-har, to train whole or with PEFT's adapter."""
    model = cast(Any, load().model)
    if kind == "full":
        return model.requires_grad_(True).train()
    config = peft.LoraConfig(r=2, lora_alpha=4.0, use_rslora=True, target_modules=["attn"])
    return cast(Any, peft.get_peft_model(model, config)).train()


def stock_model(kind: str, classifier: Towers) -> Any:
    """The same with the adapter of a classifier."""
    stock = plain_model(kind)
    if kind == "full":
        return stock
    with torch.no_grad():
        for key, parameter in classifier.model.named_parameters():
            if ".lora_" in key:
                stock.base_model.model.get_parameter(key).copy_(parameter).requires_grad_(parameter.requires_grad)
    return stock


def own_step(method: GradientMethod, classifier: Towers, batch: Batch, task: Task) -> Callable[..., None]:
    optimizer = torch.optim.AdamW(method.parameter_groups(classifier.train()), fused=True)

    def step(precision: str = "float32") -> None:
        optimizer.zero_grad()
        with arithmetic(precision):
            loss = method.loss(classifier, batch, task)
        loss.backward()
        optimizer.step()

    return step


def stock_step(stock: Any, batch: Batch, scale: float) -> Step:
    tokens_CL = open_clip.get_tokenizer("ViT-B-32")([TEMPLATE.replace("{}", f"number {n}") for n in range(CLASSES)])
    trained = [parameter for parameter in stock.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        image_BD: Tensor = stock.encode_image(batch.inputs, normalize=True)
        class_CD: Tensor = stock.encode_text(tokens_CL, normalize=True)
        F.cross_entropy(scale * image_BD @ class_CD.T, batch.labels_B).backward()
        optimizer.step()

    return step
