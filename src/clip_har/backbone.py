"""Any CLIP-family model, loaded through open_clip: names, weights, towers, precision.

Knows nothing of datasets, caches or methods. Loading never unpickles; see `_load_openai_archive` for the one
exception that the user must name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import math
import textwrap
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.config import Precision
from clip_har.errors import ModelError
from clip_har.images import Preprocessing

HISTORIC_NAMES = {
    "ViT-B/32": "ViT-B-32:openai",
    "ViT-B/16": "ViT-B-16:openai",
    "ViT-L/14": "ViT-L-14:openai",
    "RN50": "RN50:openai",
    "RN101": "RN101:openai",
}
"""The historic model names and what they mean to open_clip: OpenAI's weights, which need QuickGELU."""

CPU_BATCH_SIZE = 16
"""Images per forward pass on a CPU, where larger activations leave its caches (a CNN runs at half the speed)."""
HUB_SECONDS = 10.0
"""How long the model hub may take to answer before it counts as out of reach."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """What identifies a loaded backbone; it is written into every run."""

    name: str
    """As the user named it; loads the same model again."""
    weights_hash: str
    """SHA-256 over all parameters and buffers in their stored precision, by name."""
    activation: str
    """Activation of the towers: "QuickGELU", "GELU", or the image tower's own."""
    embed_dim: int
    """Width D of the shared embedding space."""
    parameters: int
    """Number of parameters of both towers."""
    preprocessing: Preprocessing
    logit_scale: float
    """Factor on cosine similarities, exp of the learned temperature's logarithm."""


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What the image tower says of B images."""

    embedding_BD: Tensor
    """Unit-length float32 embeddings."""
    hidden_BH: Tensor | None
    """Float32 features before the projection, where the tower has one."""


class Backbone:
    """A frozen image tower and text tower.

    Args:
        model: an open_clip model, on its device; its image tower may be in half precision.
        tokenizer: open_clip's tokenizer for it: list of sentences -> int64 [T, context].
        card: what identifies it.
        precision: arithmetic of the image tower: "float32", "bfloat16" or "float16".
    """

    def __init__(self, model: nn.Module, tokenizer: Any, card: BackboneCard, precision: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.card = card
        self.precision = precision
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


def load_backbone(name: str, *, device: str = "auto", precision: Precision = "auto") -> Backbone:
    """Load a pretrained model by name.

    Args:
        name: a historic name, an open_clip NAME or NAME:PRETRAINED, NAME:FILE, "hf-hub:REPO", "local-dir:FOLDER",
            "demo", or the path of an OpenAI .pt archive.
        device: "auto", or anything torch.device takes.
        precision: arithmetic of the image tower; "auto" asks the hardware.

    Raises:
        ModelError: unknown name, missing or unreadable weights, no network, or no such device.
    """
    chosen = resolve_device(device)
    name = _absolute(name)
    with _quiet():
        model, tokenizer = _open(name)
    model = model.float().eval().requires_grad_(False)
    card = _describe(name, model)
    resolved = resolve_precision(precision, chosen)
    model.to(chosen)
    visual = cast(nn.Module, model.visual).to(_DTYPES[resolved])
    visual.to(memory_format=torch.channels_last)
    return Backbone(model, tokenizer, card, resolved)


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
        reason = str(error).strip().splitlines()[0]
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


def _cpu_multiplies_bfloat16() -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch before get_capabilities
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


# --- opening ---------------------------------------------------------------------------------------------


def _open(name: str) -> tuple[nn.Module, Any]:
    import open_clip  # slow to import, and only needed here

    architecture, pretrained = _parse(name)
    if pretrained is not None and not architecture:
        return _load_openai_archive(Path(pretrained))
    from_files = architecture.startswith("local-dir:") or (pretrained is not None and Path(pretrained).is_file())
    try:
        with contextlib.nullcontext() if from_files else _offline_if_unreachable():
            model = open_clip.create_model(
                architecture,
                pretrained=pretrained,
                force_quick_gelu=_needs_quick_gelu(architecture, pretrained),
                require_pretrained=True,
                pretrained_text=False,
            )
            return model, open_clip.get_tokenizer(architecture)
    except Exception as error:
        raise _explain(name, architecture, error) from error


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Without a network the hub's client retries for a minute; ask once, then use only what was downloaded before."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    before = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # requests or httpx, by version; whatever it is, the hub cannot be asked
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _parse(name: str) -> tuple[str, str | None]:
    """The architecture and the weights' tag or file; ("", file) for a weight file alone.

    Raises:
        ModelError: the name is not known, or lacks its weights.
    """
    import open_clip

    if name == "demo":
        return f"local-dir:{Path(__file__).parent / 'demo' / 'model'}", None
    if name.startswith(("local-dir:", "hf-hub:")):
        return _checked_local(name), None
    if Path(name).is_file():
        return "", name
    architecture, _, pretrained = HISTORIC_NAMES.get(name, name).partition(":")
    architecture = architecture.replace("/", "-")
    known = open_clip.list_models()
    if architecture not in known:
        raise ModelError(f"Unknown model {name!r}", remedy=_nearest_models(name, known))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not pretrained and tags:
        pretrained = "openai" if "openai" in tags else tags[0]
    if pretrained not in tags and not Path(pretrained).is_file():
        said = (
            f"{architecture} has no weights {pretrained!r}" if pretrained else f"{architecture} has no default weights"
        )
        raise ModelError(
            said, remedy=f"Known for it: {', '.join(tags) or 'none'}; or give a file as {architecture}:FILE."
        )
    return architecture, pretrained


def _absolute(name: str) -> str:
    """The same model from any working directory: paths in a name made absolute."""
    kind, _, rest = name.partition(":")
    if kind == "local-dir":
        return f"local-dir:{Path(rest).resolve()}"
    if Path(name).is_file():
        return str(Path(name).resolve())
    return f"{kind}:{Path(rest).resolve()}" if rest and kind != "hf-hub" and Path(rest).is_file() else name


def _checked_local(name: str) -> str:
    folder = Path(name.partition(":")[2])
    if name.startswith("local-dir:") and not (folder / "open_clip_config.json").is_file():
        raise ModelError(
            f"{folder} holds no open_clip model (no open_clip_config.json)",
            remedy="Give the folder that holds open_clip_config.json and the weights.",
        )
    return name


def _needs_quick_gelu(architecture: str, pretrained: str | None) -> bool:
    """OpenAI's and some other weights were trained with QuickGELU; plain GELU costs them accuracy silently."""
    import open_clip

    if architecture.startswith(("local-dir:", "hf-hub:")) or pretrained is None:
        return False
    tag = open_clip.get_pretrained_cfg(architecture, pretrained) or {}
    return bool(tag.get("quick_gelu", False))


def _load_openai_archive(path: Path) -> tuple[nn.Module, Any]:
    """OpenAI's own .pt file, a TorchScript archive: read through torch.jit because the user named this file."""
    import open_clip

    if not _is_torchscript(path):
        raise ModelError(
            f"{path} does not say which architecture its weights are for",
            remedy=f"Name it too, for example --model ViT-B-32:{path}.",
        )
    try:
        model = open_clip.load_openai_model(str(path), precision="fp32", device="cpu")
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read as an OpenAI CLIP archive: {_first_line(error)}",
            remedy="Download it again.",
        ) from error
    return model, open_clip.get_tokenizer("ViT-B-32")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in entry for entry in archive.namelist())


def _explain(name: str, architecture: str, error: Exception) -> ModelError:
    """An exception of open_clip or the hub, as one line with a remedy."""
    reason = _first_line(error)
    wants_network = architecture.startswith("hf-hub:") or "download" in reason.lower() or "hub" in reason.lower()
    if architecture.startswith("local-dir:") or not wants_network:
        return ModelError(f"The model {name} cannot be loaded: {reason}", remedy="Check that its files are complete.")
    return ModelError(
        f"The weights of {name} could not be downloaded ({reason})",
        remedy="Without a network: download the weights elsewhere and pass --model "
        f"{'NAME' if ':' in architecture else architecture}:FILE or local-dir:FOLDER, or use --model demo, which "
        "needs no download.",
    )


def _nearest_models(name: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name.replace("/", "-"), known, n=3, cutoff=0.5)
    historic = ", ".join(HISTORIC_NAMES)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}Use {historic}, an open_clip NAME:PRETRAINED, hf-hub:REPO, local-dir:FOLDER, a file, or demo."


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    reason = lines[0].rpartition("Last error: ")[2] if lines else type(error).__name__
    return textwrap.shorten(reason.split(". ")[0], 160, placeholder=" ...").rstrip(".")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs to the root logger and warns on load; what matters of it we say ourselves."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


# --- describing ------------------------------------------------------------------------------------------


def _describe(name: str, model: nn.Module) -> BackboneCard:
    from open_clip.transform import PreprocessCfg

    visual = cast(nn.Module, model.visual)
    settings = getattr(visual, "preprocess_cfg", None)
    if settings is None:  # an OpenAI archive: mean and std only
        settings = dataclasses.asdict(
            PreprocessCfg(size=visual.image_size, mean=visual.image_mean, std=visual.image_std)
        )
    logit_scale = getattr(model, "logit_scale", None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with torch.inference_mode():
        embed_dim = _embed_dim(model)
    return BackboneCard(
        name=name,
        weights_hash=hash_weights(model),
        activation=_activation(visual),
        embed_dim=embed_dim,
        parameters=parameters,
        preprocessing=Preprocessing.from_open_clip(settings),
        logit_scale=100.0 if logit_scale is None else math.exp(float(logit_scale.float())),
    )


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over every tensor of the state dict: name, type, shape and bytes, in order of name."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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


@contextlib.contextmanager
def capture_hidden(visual: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Catch the features before the image tower's projection during one forward pass.

    open_clip projects in two ways: a ViT multiplies by the parameter `visual.proj`, a timm tower ends in the linear
    module `visual.head.proj`. A ModifiedResNet projects inside its attention pool and has nothing to catch.
    """
    captured: dict[str, Tensor] = {}
    projection = getattr(visual, "proj", None)
    if isinstance(projection, nn.Parameter):
        visual.proj = None  # type: ignore[assignment]

        def project(_module: nn.Module, _inputs: Any, pooled_BH: Tensor) -> Tensor:
            captured["hidden"] = pooled_BH
            return pooled_BH @ projection

        handle = visual.register_forward_hook(project)
    else:
        linear = getattr(getattr(visual, "head", None), "proj", None)
        if not isinstance(linear, nn.Linear):
            yield captured
            return
        handle = linear.register_forward_pre_hook(lambda _m, inputs: captured.__setitem__("hidden", inputs[0]))
    try:
        yield captured
    finally:
        handle.remove()
        if isinstance(projection, nn.Parameter):
            visual.proj = projection
