"""The size and cost of an architecture, counted on a model without weights: nothing is downloaded or computed.

What comes of it for open_clip's own architectures is in architectures.json, written by scripts/measure_models.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from clip_har.errors import ModelError
from clip_har.failures import is_exhausted
from clip_har.light_imports import complete, import_open_clip
from clip_har.pretrained import files as model_files
from clip_har.pretrained.architectures import Architecture
from clip_har.pretrained.errors import explained
from clip_har.pretrained.guards import no_code, offline, quiet
from clip_har.pretrained.image_size import image_side, set_image_size
from clip_har.pretrained.names import is_open_clip, parse, split_image_size

MULTIPLY_ADD = 2
"""FLOPs that torch's counter counts for a multiply-add, which the papers count as one."""


def blank_model(name: str) -> nn.Module:
    """A model of open_clip, by an architecture's name or "local-dir:FOLDER", on the meta device: without weights.

    Raises:
        Exception: whatever open_clip raises for a model it cannot build.
    """
    with torch.device("meta"):
        model: nn.Module = import_open_clip().create_model(
            name, device="meta", load_weights=False, pretrained_text=False
        )
    return model


def measure_named(name: str) -> Architecture | None:
    """Count the model of an open_clip folder or architecture; None if that needs a download.

    Raises:
        ModelError: unknown, refused, missing or unreadable.
    """
    architecture, _ = parse(name)
    _, side = split_image_size(name)
    if not architecture or architecture.startswith("hf-hub:"):
        return None
    folder = Path(architecture.partition(":")[2])
    if architecture.startswith("local-dir:") and (folder / "card.json").is_file() and not is_open_clip(folder):
        raise ModelError(
            f"{folder} is a run, whose size is that of the model it was trained on",
            remedy="Pass that model: card.json has its name.",
        )
    complete()
    try:
        with quiet(), no_code(), offline():
            if not architecture.startswith("local-dir:"):
                return measure(_at_size(blank_model(architecture), side, name))
            with model_files.staged(folder) as stage:
                return measure(_at_size(blank_model(f"local-dir:{stage}"), side, name))
    except ModelError:
        raise
    except Exception as error:
        if is_exhausted(error):
            raise
        if architecture.startswith("local-dir:"):
            raise explained(name, architecture, error, local_only=True) from error
        return None  # its text encoder's configuration would have to be downloaded


def _at_size(model: nn.Module, side: int | None, name: str) -> nn.Module:
    if side is not None:
        set_image_size(model, side, name)
    return model


def measure(model: nn.Module) -> Architecture:
    """Count a `blank_model`, whose tensors are replaced.

    Raises:
        RuntimeError: an operator of the model does not work without data.
    """
    side = image_side(model)
    holder = cast(Any, model)
    context = int(getattr(holder, "context_length", None) or holder.text.context_length)
    caption_decoder = _parameters(getattr(model, "text_decoder", None))
    image_parameters = _parameters(model.visual)
    with FlopCounterMode(display=False) as counter:
        embedding_1D = _encode_image(model, torch.zeros(1, 3, side, side, device="meta"))
    with FakeTensorMode():
        _make_fake(model)
        model.eval()
        whole = _stored_bytes(model, lambda: _encode_image(model, torch.zeros(1, 3, side, side)))
        tokens_1L = torch.zeros(1, context, dtype=torch.long)
        sentence = _stored_bytes(model, lambda: holder.encode_text(tokens_1L))
        model.requires_grad_(False)
        image_13HW = torch.zeros(1, 3, side, side, requires_grad=True)
        frozen = _stored_bytes(model, lambda: _encode_image(model, image_13HW))
    return Architecture(
        image_parameters=image_parameters,
        text_parameters=_parameters(model) - image_parameters - caption_decoder,
        embed_dim=embedding_1D.shape[-1],
        image_size=side,
        gflops=round(counter.get_total_flops() / MULTIPLY_ADD / 1e9, 3),
        image_activation_bytes=whole,
        frozen_activation_bytes=frozen,
        token_activation_bytes=sentence // context,
        context=context,
        decoder_parameters=caption_decoder,
    )


def _parameters(module: Any) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def _encode_image(model: nn.Module, images_BCHW: Tensor) -> Tensor:
    embedding_BD: Tensor = cast(Any, model).encode_image(images_BCHW)
    return embedding_BD


def _make_fake(model: nn.Module) -> None:
    """Give a model tensors that claim to be on the CPU, so that it takes the CPU's operators."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device="cpu"))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")


def _stored_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of all tensors that autograd keeps of a forward pass, without the weights themselves."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    stored: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            stored[storage._cdata] = storage
        return tensor

    output: Tensor | None = None
    recording = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    # some encoders look up the end token's place after their last layer, which needs data
    with recording, contextlib.suppress(DynamicOutputShapeException):
        output = forward()
    total = sum(storage.nbytes() for storage in stored.values())
    del output
    return total
