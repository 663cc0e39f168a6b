"""Any CLIP-family model, loaded through open_clip: names, weights, towers, precision.

Knows nothing of datasets, caches or methods. How a name becomes a model is for `pretrained`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.config import Precision
from clip_har.errors import ModelError, first_line
from clip_har.files import cache_folder
from clip_har.images import Preprocessing
from clip_har.integrity import DamagedError, read_sealed_json, write_sealed_json
from clip_har.pretrained import Opened, absolute, at_size, open_pretrained, split_image_size
from clip_har.projection import capture_hidden, place_of_projection

CPU_BATCH_SIZE = 16
"""Images per forward pass on a CPU, where larger activations leave its caches (a CNN runs at half the speed)."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What identifies a loaded backbone; it is written into every run."""

    name: str
    """As the user named it; loads the same model again."""
    weights_hash: str
    """SHA-256 over all parameters and buffers in their stored precision, by name, and an image size not its own."""
    activation: str
    """Activation of the towers: "QuickGELU", "GELU", or the image encoder's own, and the text encoder's if known."""
    embed_dim: int
    """Width D of the shared embedding space."""
    parameters: int
    """Number of parameters of both towers."""
    preprocessing: Preprocessing
    logit_scale: float
    """Factor on cosine similarities, exp of the learned temperature's logarithm."""
    logit_bias: float | None = None
    """What is added to the scaled similarities of a model trained with the sigmoid loss (SigLIP); else None."""
    projection: str = ""
    """Where the image encoder's projection is, see `projection.place_of_projection`; "" if it has none."""
    chain: tuple[str, ...] = ()
    """What a fine-tuned model came from: each training and at last the pretrained model. Empty for a pretrained one."""
    files_sha256: str = ""
    """`pretrained.fingerprint` of the files it was read from; "" for a model that its name identifies."""


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What the image encoder says of B images."""

    embedding_BD: Tensor
    """Unit-length float32 embeddings."""
    hidden_BH: Tensor | None
    """Float32 features before the projection, where the tower has one."""

    def of_kind(self, kind: str) -> Tensor:
        """What a classifier reads: "embedding", "hidden" (embeddings where there is no projection), or "both"."""
        hidden_BH = self.embedding_BD if self.hidden_BH is None else self.hidden_BH
        if kind == "both":
            return torch.cat([self.embedding_BD, hidden_BH], dim=1)
        return hidden_BH if kind == "hidden" else self.embedding_BD


class Backbone:
    """A frozen image encoder and text encoder.

    Args:
        model: an open_clip model, on its device; its image encoder may be in half precision.
        tokenizer: open_clip's tokenizer for it: list of sentences -> int64 [T, context].
        info: what identifies it.
        precision: arithmetic of the image encoder: "float32", "bfloat16" or "float16".
        notes: what was assumed on loading and the user should see; a line each.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, info: BackboneInfo, precision: str, notes: tuple[str, ...] = ()
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.info = info
        self.precision = precision
        self.notes = notes
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def encode_images(self, images_BCHW: Tensor) -> ImageFeatures:
        """Embed preprocessed images, float32 [B, 3, H, W]."""
        size = CPU_BATCH_SIZE if self.device.type == "cpu" else max(1, len(images_BCHW))
        parts = [self._encode_part(part) for part in images_BCHW.split(size)]
        hidden = [part.hidden_BH for part in parts if part.hidden_BH is not None]
        return ImageFeatures(
            embedding_BD=torch.cat([part.embedding_BD for part in parts]),
            hidden_BH=torch.cat(hidden) if hidden else None,
        )

    def _encode_part(self, images_BCHW: Tensor) -> ImageFeatures:
        images = images_BCHW.to(
            self.device, _DTYPES[self.precision], non_blocking=True, memory_format=torch.channels_last
        )
        with capture_hidden(cast(nn.Module, self.model.visual)) as captured:
            embedding = self.model.encode_image(images)  # type: ignore[operator]
        hidden = captured.get("hidden")
        return ImageFeatures(
            embedding_BD=F.normalize(embedding.float(), dim=-1).cpu(),
            hidden_BH=None if hidden is None else hidden.float().cpu(),
        )

    @torch.inference_mode()
    def encode_text(self, sentences: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """Embed T sentences: unit-length float32 [T, D], on the CPU."""
        parts = []
        for start in range(0, len(sentences), batch_size):
            tokens = self.tokenizer(list(sentences[start : start + batch_size])).to(self.device)
            embedding = self.model.encode_text(tokens)  # type: ignore[operator]
            parts.append(F.normalize(embedding.float(), dim=-1).cpu())
        return torch.cat(parts)


def load_backbone(
    name: str,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    local_only: bool = False,
    expected_files: str | None = None,
) -> Backbone:
    """Load a pretrained model by name.

    Args:
        name: an original name, an open_clip NAME or NAME:PRETRAINED, NAME:FILE, "hf-hub:REPO", "local-dir:FOLDER",
            "demo", or the path of a folder or of a weight file whose architecture is found from its content; each may
            end in @SIZE, the side in pixels of the images that are read.
        device: "auto", or anything torch.device takes.
        precision: arithmetic of the image encoder; "auto" asks the hardware.
        local_only: whether only files on this machine are read, and the network is never asked.
        expected_files: the `pretrained.fingerprint` that the model's files must have, compared before they are read.

    Raises:
        ModelError: unknown name, refused, missing, changed or unreadable files, no network, or no such device.
    """
    chosen = resolve_device(device)
    name = absolute(name)
    opened = open_pretrained(name, local_only=local_only, expected_files=expected_files)
    model = opened.model.float().eval().requires_grad_(False)
    name = at_size(split_image_size(name)[0], opened.image_size)  # its own size needs no mention
    described = _describe(name, model, opened)
    info = dataclasses.replace(described, chain=opened.chain)
    resolved = resolve_precision(precision, chosen)
    model.to(chosen)
    visual = cast(nn.Module, model.visual).to(_DTYPES[resolved])
    visual.to(memory_format=torch.channels_last)
    return Backbone(model, opened.tokenizer, info, resolved, opened.notes)


def resolve_device(device: str) -> torch.device:
    """The device meant by --device; "auto" is the first GPU there is, else the CPU.

    Raises:
        ModelError: no such device here.
    """
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise ModelError(f"--device {device} cannot be used: {reason}", remedy="Try --device auto.") from error
    return chosen


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """The arithmetic meant by --precision: bfloat16 where `device` multiplies it in hardware, else float32.

    On a CPU only AMX and AVX512-BF16 make bfloat16 faster than float32; without them it is emulated and slower.
    """
    if precision not in ("auto", "fp16-pure"):  # the latter is about trained weights
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return "bfloat16"
    return "float32"


def autocast_pays(device: torch.device, model: nn.Module) -> bool:
    """Whether training steps through a model are faster under autocast: on a GPU, and on a CPU that has AMX.

    AVX512-BF16 alone makes the forward pass faster, but steps slower than float32; so are steps of convolutions in
    groups, as in EfficientNet, also with AMX.
    """
    if device.type != "cpu":
        return device.type == "cuda"
    return _cpu_has_amx() and all(getattr(module, "groups", 1) == 1 for module in model.modules())


def _cpu_multiplies_bfloat16() -> bool:
    return _cpu_has_amx() or _cpu_can("avx512_bf16", "_is_avx512_bf16_supported")


def _cpu_has_amx() -> bool:
    return _cpu_can("amx_bf16", "_is_amx_tile_supported")


def _cpu_can(capability: str, probe: str) -> bool:
    """Whether torch finds an instruction set, by its name or, before torch had `get_capabilities`, by a function."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(capability)) if capabilities else bool(getattr(torch.cpu, probe, bool)())


# --- describing ------------------------------------------------------------------------------------------


def _describe(name: str, model: nn.Module, opened: Opened) -> BackboneInfo:
    visual = cast(nn.Module, model.visual)
    logit_scale = getattr(model, "logit_scale", None)
    logit_bias = getattr(model, "logit_bias", None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with torch.inference_mode():
        embed_dim = _embed_dim(model)
    return BackboneInfo(
        name=name,
        weights_hash=_known_hash(model, opened),
        activation=opened.activation or _activation(visual),
        embed_dim=embed_dim,
        parameters=parameters,
        preprocessing=Preprocessing.from_open_clip(cast(Any, visual.preprocess_cfg)),
        logit_scale=100.0 if logit_scale is None else math.exp(float(logit_scale.float())),
        logit_bias=None if logit_bias is None else float(logit_bias),
        projection=place_of_projection(visual),
        files_sha256=opened.files_sha256,
    )


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over every tensor of the state dict: name, type, shape and bytes, in order of name."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _known_hash(model: nn.Module, opened: Opened) -> str:
    """`hash_weights`, looked up if these very files were loaded before: they have just been hashed themselves.

    With another image size, the hash is of that too: convolutions have the same weights for any.
    """
    if not opened.files_sha256:
        return _sized_hash(model, opened.image_size)
    of_files = at_size(opened.files_sha256, opened.image_size)
    key = hashlib.sha256(f"{of_files}|{version('open_clip_torch')}".encode()).hexdigest()
    note = cache_folder(None) / "weights" / f"{key}.json"
    with contextlib.suppress(DamagedError, OSError, KeyError):
        return str(read_sealed_json(note)["weights_hash"])
    weights_hash = _sized_hash(model, opened.image_size)
    with contextlib.suppress(OSError):  # a read-only cache
        write_sealed_json(note, {"weights_hash": weights_hash})
    return weights_hash


def _sized_hash(model: nn.Module, side: int | None) -> str:
    own = hash_weights(model)
    return own if side is None else hashlib.sha256(at_size(own, side).encode()).hexdigest()


def _embed_dim(model: nn.Module) -> int:
    projection = getattr(model, "text_projection", None)
    if isinstance(projection, Tensor):
        return projection.shape[1]
    size = model.visual.image_size  # type: ignore[union-attr]
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return int(model.encode_image(torch.zeros(1, 3, height, width)).shape[-1])  # type: ignore[operator]


def _activation(visual: nn.Module) -> str:
    kinds = {type(module).__name__ for module in visual.modules()}
    for kind in ("QuickGELU", "GELU", "SiLU", "ReLU6", "ReLU"):
        if kind in kinds:
            return kind
    return "unknown"
