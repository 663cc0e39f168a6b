"""What training takes in memory, by a formula over an architecture's size. benchmarks/training_memory.py checks it.

                GPU                     CPU
    cached      W                       3 W                 embeddings are computed once, then a classifier is trained
    LoRA        2 W + b A'              1.7 W more          the encoders are frozen, gradients pass through them
    full        4 W + max(W, b A)       1.7 W more          all weights of both encoders are trained

W: the weights; a method that trains the encoders holds a second, frozen copy for the prompts and the baseline. AdamW
has two moments for each weight. b: the batch size. A: the activations that one image leaves for the backward pass; A':
those with frozen weights; both times 1.4 (ACTIVATION_OVERHEAD), the class sentences of a step included. Gradients
replace the activations during the backward pass, so the larger counts. On a CPU, reading a model takes its file and a
copy on top of the model; the C library keeps most of that (READING_WEIGHTS). All in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from clip_har.pretrained.architectures import Architecture

FLOAT_BYTES = 4
CLASSES = 15
ACTIVATION_OVERHEAD = 1.4
"""What a pass takes, as a multiple of what autograd keeps of it: gradients of activations, and gaps between freed
blocks. Measured on the demo model in batches of 256, where activations are nearly all: 1.42 for full, 1.37 for LoRA."""
READING_WEIGHTS = 1.7
"""Multiple of the weights that a CPU needs on top, fitted to measurements of ViT-B/32 and RN50 (docs/models.md)."""
SENTENCE_TOKENS = 16
"""Tokens of a class sentence; its padding is not encoded."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes that a training adds to an idle process, or takes of a GPU, for each family of methods."""

    cached: int
    """Methods on cached features, such as linear-probe, gda, ridge, lora and the adapters."""
    lora: int
    """LoRA in the layers of both encoders: lora-attention, lora-all."""
    full: int
    """Full fine-tuning of both encoders: full, two-tier."""


def training_memory(
    architecture: Architecture, *, batch_size: int, classes: int = CLASSES, on_cpu: bool
) -> TrainingMemory:
    """What the default settings of the methods take, in float32.

    Args:
        architecture: sizes of the model.
        batch_size: images per forward pass in training.
        classes: class sentences per step.
        on_cpu: whether the models are in the process's memory, with what reading and saving them takes there.
    """
    parameters = architecture.image_parameters + architecture.text_parameters + architecture.decoder_parameters
    weights = FLOAT_BYTES * parameters
    sentences = classes * min(SENTENCE_TOKENS, architecture.context) * architecture.token_activation_bytes
    trained = round(ACTIVATION_OVERHEAD * (batch_size * architecture.image_activation_bytes + sentences))
    frozen = round(ACTIVATION_OVERHEAD * (batch_size * architecture.frozen_activation_bytes + sentences))
    cached, lora, full = weights, 2 * weights + frozen, 4 * weights + max(weights, trained)
    if on_cpu:
        kept = round(READING_WEIGHTS * weights)
        cached, lora, full = 3 * weights, lora + kept, full + kept
    return TrainingMemory(cached=cached, lora=lora, full=full)
