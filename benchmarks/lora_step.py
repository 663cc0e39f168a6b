"""What one training step of LoRA inside the towers costs, beside the same step with PEFT alone on open_clip.

    python benchmarks/lora_step.py [--model ViT-B-32] [--batch 32] [--classes 15] [--pairs 5] [--keep-memory]

Both adapt query, key and value of every attention layer of both towers (random weights: speed does not depend on them)
from the same adapter, and take the same step: forward, backward, AdamW. PEFT alone merges the update into the weights
in every pass, differentiates through the merged weights, and encodes the prompts at open_clip's full context. The
gradients are compared before anything is timed. Pairs of steps are timed in turn; the ratio is the median over the
pairs. --threads 1 also counts the process's own seconds, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import open_clip
import peft
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone, BackboneInfo
from clip_har.images import Preprocessing
from clip_har.memory import keep_freed_memory
from clip_har.methods import Batch, Task
from clip_har.methods.tower_lora import TowerLora
from clip_har.methods.towers import Towers

TEMPLATE = "a photo of a person {}"
SETTINGS: dict[str, Any] = {
    "placement": "attention",
    "towers": ["image", "text"],
    "layers": "all",
    "rank": 2,
    "alpha": 4.0,
    "dropout": 0.0,
    "rslora": True,
    "dora": False,
    "loss": "cross-entropy",
    "text_augment": True,
    "lr": 1e-4,
    "weight_decay": 0.01,
    "layer_decay": 1.0,
    "train_batchnorm": False,
    "vision_lr_multiplier": 1.0,
    "text_lr_multiplier": 1.0,
    "projection_lr_multiplier": 1.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32")
    for name, default in (("batch", 32), ("classes", 15), ("pairs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=0, help="default: torch's own")
    parser.add_argument("--keep-memory", action="store_true", help="for both: cost.keep_freed_memory()")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.keep_memory:
        keep_freed_memory()
    task = made_up_task(arguments.model, arguments.classes)
    method = TowerLora(SETTINGS)
    classifier = method.build(task)
    draw_updates(classifier)
    stock = stock_model(arguments.model, classifier)
    size = task.load_backbone().info.preprocessing.image_size
    batch = Batch.of(torch.randn(arguments.batch, 3, *size), torch.randint(arguments.classes, (arguments.batch,)))
    ours, theirs = own_step(method, classifier, batch, task), stock_step(stock, task, batch, classifier.scale().item())
    compare_gradients(classifier, stock, ours, theirs)
    pairs = [(cost(ours), cost(theirs)) for _ in range(arguments.pairs)]
    print(f"One step of {arguments.batch} images and {arguments.classes} prompts, median of {arguments.pairs} pairs:")
    for kind, what in enumerate(("seconds", "processor seconds")):
        own, other = ([side[kind] for side in sides] for sides in zip(*pairs, strict=True))
        ratio = statistics.median(first / second for first, second in zip(own, other, strict=True))
        best = min(own) / min(other)
        print(f"clip-har {statistics.median(own):.2f}, PEFT alone {statistics.median(other):.2f} {what}: ", end="")
        print(f"ratio {ratio:.2f}, of the best steps {best:.2f}")


def made_up_task(name: str, classes: int) -> Task:
    """A task without images around a model with random weights, the same on every call."""

    def load() -> Backbone:
        torch.manual_seed(0)
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False).float().eval()
        visual = cast(Any, model.visual)
        height, width = visual.image_size if isinstance(visual.image_size, tuple) else [visual.image_size] * 2
        card = BackboneInfo(
            name=name,
            weights_hash="",
            activation="",
            embed_dim=0,
            parameters=0,
            preprocessing=Preprocessing(image_size=(height, width), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            logit_scale=100.0,
        )
        return Backbone(model.requires_grad_(False), open_clip.get_tokenizer(name), card, "float32")

    nothing: Any = None
    return Task(
        classes=tuple(f"number {index}" for index in range(classes)),
        templates=(TEMPLATE,),
        captions_CTD=torch.zeros(classes, 1, 1),
        prompts_CD=torch.zeros(classes, 1),
        logit_scale=100.0,
        load_backbone=load,
        train=nothing,
        val=nothing,
        seed=0,
    )


def draw_updates(classifier: Towers) -> None:
    """Make B non-zero, as after some training, so that A has gradients too."""
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad and ".lora_B." in name:
            nn.init.normal_(parameter, std=0.01)


def stock_model(name: str, classifier: Towers) -> Any:
    """PEFT's own model of the same weights and the same adapter; of the output projection neither trains the update."""
    model = made_up_task(name, 1).load_backbone().model
    config = peft.LoraConfig(
        r=SETTINGS["rank"], lora_alpha=SETTINGS["alpha"], use_rslora=SETTINGS["rslora"], target_modules=["attn"]
    )
    stock = cast(Any, peft.get_peft_model(cast(Any, model), config))
    with torch.no_grad():
        for key, parameter in classifier.model.named_parameters():
            if ".lora_" in key:
                stock.base_model.model.get_parameter(key).copy_(parameter).requires_grad_(parameter.requires_grad)
    return stock.train()


def own_step(method: TowerLora, classifier: Towers, batch: Batch, task: Task) -> Callable[[bool], None]:
    optimizer = torch.optim.AdamW(method.parameter_groups(classifier.train()))

    def step(update: bool = True) -> None:
        optimizer.zero_grad()
        method.loss(classifier, batch, task).backward()
        if update:
            optimizer.step()

    return step


def stock_step(stock: Any, task: Task, batch: Batch, scale: float) -> Callable[[bool], None]:
    tokens_CL = open_clip.get_tokenizer("ViT-B-32")([TEMPLATE.replace("{}", name) for name in task.classes])
    trained = [parameter for parameter in stock.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=SETTINGS["lr"], weight_decay=SETTINGS["weight_decay"])

    def step(update: bool = True) -> None:
        optimizer.zero_grad()
        image_BD: Tensor = stock.encode_image(batch.inputs, normalize=True)
        class_CD: Tensor = stock.encode_text(tokens_CL, normalize=True)
        F.cross_entropy(scale * image_BD @ class_CD.T, batch.labels_B).backward()
        if update:
            optimizer.step()

    return step


def compare_gradients(
    classifier: Towers, stock: Any, ours: Callable[[bool], None], theirs: Callable[[bool], None]
) -> None:
    """Both steps' gradients must agree; this also warms up."""
    ours(False)
    theirs(False)
    compared = 0
    for name, parameter in classifier.model.named_parameters():
        if parameter.requires_grad:
            expected = stock.base_model.model.get_parameter(name).grad
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
            compared += parameter.numel()
    print(f"the gradients of {compared:,} numbers agree")


def cost(step: Callable[[bool], None]) -> tuple[float, float]:
    """Seconds of a step by the clock, and by the processors that it kept busy."""
    started, used = time.perf_counter(), time.process_time()
    step(True)
    return time.perf_counter() - started, time.process_time() - used


if __name__ == "__main__":
    main()
