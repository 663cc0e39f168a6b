"""How long LoRA on cached embeddings takes: 15 epochs over 12,600 of them, as HAR has, beside a plain loop.

    python benchmarks/lora_epochs.py [--images 12600] [--width 512] [--classes 15] [--epochs 15] [--encode 64]

With --encode N, also times one epoch of the historic way: the frozen ViT-B/32 towers (random weights: speed does not
depend on them) encode every image again in every epoch. N images are encoded and the time is scaled to --images.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.config import DataConfig, OptimizerConfig, TrainConfig, to_flat_json
from clip_har.methods import LabelledFeatures, Task
from clip_har.methods.embedding_lora import Lora
from clip_har.trainer import fit


@dataclass(frozen=True)
class Table:
    """Stands in for features.FeatureTable."""

    embedding: Tensor

    def __len__(self) -> int:
        return len(self.embedding)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 12_600), ("width", 512), ("classes", 15), ("epochs", 15), ("encode", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    task = made_up_task(arguments.images, arguments.width, arguments.classes)
    ours = time_fit(task, arguments.epochs)
    plain = time_plain_loop(task, arguments.epochs)
    print(f"clip-har   {ours:7.2f} s for {arguments.epochs} epochs of {arguments.images:,} embeddings")
    print(f"plain loop {plain:7.2f} s; ratio {ours / plain:.2f}")
    if arguments.encode:
        seconds = time_encoding(arguments.encode) / arguments.encode * arguments.images
        epoch = ours / arguments.epochs
        print(f"historic   {seconds + epoch:7.2f} s for ONE epoch (encoding scaled from {arguments.encode} images)")
        print(f"per epoch, re-encoding takes {(seconds + epoch) / epoch:,.0f} times as long as cached embeddings")


def made_up_task(images: int, width: int, classes: int) -> Task:
    """Random unit-length embeddings and prompts: the time does not depend on their values."""
    generator = torch.Generator().manual_seed(0)
    embedding_ND = F.normalize(torch.randn(images, width, generator=generator), dim=-1)
    labels_N = torch.randint(classes, (images,), generator=generator)
    split = LabelledFeatures(table=Table(embedding_ND), labels_N=labels_N)  # type: ignore[arg-type]
    prompts_CD = F.normalize(torch.randn(classes, width, generator=generator), dim=-1)
    return Task(
        classes=tuple(map(str, range(classes))),
        captions_CTD=prompts_CD[:, None],
        prompts_CD=prompts_CD,
        logit_scale=100.0,
        train=split,
        val=split,
        seed=0,
    )


def time_fit(task: Task, epochs: int) -> float:
    """Seconds of `trainer.fit` with the defaults."""
    config = TrainConfig(data=DataConfig(data=Path()), optimizer=OptimizerConfig(epochs=epochs))
    method = Lora(to_flat_json(config))
    classifier = method.build(task)
    started = time.perf_counter()
    for _ in fit(method, classifier, task, method.settings):
        pass
    return time.perf_counter() - started


def time_plain_loop(task: Task, epochs: int) -> float:
    """Seconds of the same arithmetic written out plainly, on one thread as `fit` is, without checks or states."""
    torch.set_num_threads(1)
    embedding_ND, labels_N = task.train.table.embedding, task.train.labels_N
    width = embedding_ND.shape[1]
    a, b, c, d = (torch.randn(16, width) * 0.01 for _ in range(4))
    parameters = [tensor.requires_grad_() for tensor in (a, b, c, d)]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    started = time.perf_counter()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels_N)).split(64):
            x, t = embedding_ND[batch], task.prompts_CD
            image = F.normalize(x + 2 * (F.dropout(x, 0.1) @ a.T) @ b, dim=-1)
            text = F.normalize(t + 2 * (F.dropout(t, 0.1) @ c.T) @ d, dim=-1)
            loss = F.cross_entropy(100 * image @ text.T, labels_N[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    return time.perf_counter() - started


def time_encoding(images: int) -> float:
    """Seconds in which ViT-B/32 encodes that many images, in batches of 64, and as many captions."""
    import open_clip

    model = open_clip.create_model("ViT-B-32").eval()
    with torch.inference_mode():
        model.encode_image(torch.randn(8, 3, 224, 224))  # warm-up
        started = time.perf_counter()
        for batch in torch.randn(images, 3, 224, 224).split(64):
            model.encode_image(batch)
            model.encode_text(torch.zeros(len(batch), 77, dtype=torch.int64))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
