"""What training takes in memory, by a formula over an architecture's size. benchmarks/training_memory.py checks it.

    cached    W + F               embeddings are computed once, then a small classifier is trained
    LoRA      W + F + b A'        the encoders' weights are frozen, gradients pass through them
    full      W + F + 2 W + max(W, b A)

W: the weights. F: the frozen copy of the model that embeds the prompts and the zero-shot baseline, which a method that
trains the encoders needs next to its own. 2 W: AdamW's two moments. b: the batch size. A: the activations that one
image leaves for the backward pass; A': those with frozen weights. Gradients replace the activations during the backward
pass, so the larger of both counts. To b A, the class sentences that a step encodes are added. All in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from clip_har.pretrained.architectures import Architecture

FLOAT_BYTES = 4
CLASSES = 15
SENTENCE_TOKENS = 16
"""Tokens of a class sentence; its padding is not encoded."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes that a training adds to an idle process, for each family of methods."""

    cached: int
    """Methods on cached features, such as linear-probe, gda, ridge, lora and the adapters."""
    lora: int
    """LoRA in the layers of both encoders: lora-attention, lora-all."""
    full: int
    """Full fine-tuning of both encoders: full, two-tier."""


def training_memory(architecture: Architecture, *, batch_size: int, classes: int = CLASSES) -> TrainingMemory:
    """What the default settings of the methods take, in float32.

    Args:
        architecture: sizes of the model.
        batch_size: images per forward pass in training.
        classes: class sentences per step.
    """
    weights = FLOAT_BYTES * (architecture.image_parameters + architecture.text_parameters)
    sentences = classes * min(SENTENCE_TOKENS, architecture.context) * architecture.token_activation_bytes
    trained = batch_size * architecture.image_activation_bytes + sentences
    frozen = batch_size * architecture.frozen_activation_bytes + sentences
    return TrainingMemory(
        cached=weights,
        lora=2 * weights + frozen,
        full=2 * weights + 2 * weights + max(weights, trained),
    )
