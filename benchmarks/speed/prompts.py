"""The text side of a training step: the class prompts once, against a caption per image."""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch

from speed.harness import Row, in_pairs, row, seconds_of
from speed.tower_training import BATCH, CLASSES, TEMPLATE, own_training


def rows(folder: Path, *, pairs: int = 5) -> list[Row]:
    """Seconds of the text encoder's forward and backward pass in a step of lora-attention."""
    _, classifier, _ = own_training("lora-attention")
    names = [TEMPLATE.replace("{}", f"number {index % CLASSES}") for index in range(BATCH)]
    tokens_BL = open_clip.get_tokenizer("ViT-B-32")(names)
    model = classifier.train().model

    def ours() -> None:
        classifier.class_embeddings().sum().backward()

    def plain() -> None:
        model.encode_text(tokens_BL).sum().backward()  # type: ignore[operator]

    own, other = in_pairs(lambda: seconds_of(ours), lambda: seconds_of(plain), pairs)
    torch.set_grad_enabled(True)
    return [
        row(
            "text side of a step",
            "s",
            own,
            other,
            f"a caption for each of {BATCH} images, padded to 77 tokens",
            note=f"{CLASSES} class prompts once a step, without padding; none at all while the text encoder is frozen",
        )
    ]
