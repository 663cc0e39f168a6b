"""Reads the predecessor project's checkpoints (clip_lora_best.pt) without unpickling any code.

Makes nothing of them but tensors and values; the run folder is made in commands/import_checkpoint.py.
"""

from __future__ import annotations

import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_har.errors import ConfigError, RunError
from clip_har.integrity import file_sha256

# Shapes: D embedding width, R rank.

SUFFIXES = frozenset({".pt", ".pth"})
"""How such a file's name ends; nothing in a run folder does."""
_ADAPTER = re.compile(r"(?:.*\.)?(visual|text)_lora\.lora_([AB])(?:\.weight)?", re.DOTALL)
_SCALE = re.compile(r"(?:.*\.)?temp_scale", re.DOTALL)
_SIDES = {"visual": "image", "text": "text"}
_UNUSED = re.compile(r"(?:logit_scale|attn_mask|.*\.num_batches_tracked)")
"""Weights of CLIP that decide no embedding."""
_WRAPPERS = ("", "lora.", "lora_config.", "dataset_config.", "dataset.")
_LARGEST_LOG_SCALE = 80.0
"""exp of more does not fit float32 once it is multiplied."""


@dataclass(frozen=True, kw_only=True)
class LegacyCheckpoint:
    """What such a file holds."""

    path: Path
    sha256: str
    clip: Mapping[str, Tensor]
    """The CLIP model's weights, under the names they have in the file; empty if there are none."""
    adapters: Mapping[tuple[str, str], Tensor]
    """(image or text, A or B) -> the matrix as stored."""
    log_scale: float
    """Natural logarithm of the factor on the similarities."""
    config: Mapping[str, Any]
    """The training's configuration, flat: nested names are joined by dots."""
    epoch: int | None
    train_loss: float | None

    def matrices(self, width: int) -> dict[str, Tensor]:
        """The residuals' matrices as `image.lora_A` [R, D], `image.lora_B` [D, R], and the same for text; float32.

        Args:
            width: D of the backbone.

        Raises:
            RunError: a shape fits no residual of this width, or fits two.
        """
        found = {
            f"{side}.lora_{letter}": self._oriented(side, letter, tensor, width)
            for (side, letter), tensor in self.adapters.items()
        }
        ranks = {tensor.shape[0 if name.endswith("A") else 1] for name, tensor in found.items()}
        if len(ranks) > 1:
            raise RunError(
                f"The LoRA matrices in {self.path} have different ranks: {', '.join(map(str, sorted(ranks)))}",
                remedy="Only checkpoints with one rank can be imported.",
            )
        return found

    def _oriented(self, side: str, letter: str, tensor: Tensor, width: int) -> Tensor:
        """A as [R, D] or B as [D, R], whichever way round it was stored."""
        rows, columns = tensor.shape
        where = f"{side} lora_{letter} in {self.path} has shape {rows} x {columns}"
        if rows == columns == width:
            raise RunError(
                f"{where}: with a rank equal to the embedding width, its orientation is unknown",
                remedy="Only checkpoints with a lower rank can be imported.",
            )
        if width not in (rows, columns) or min(rows, columns) < 1 or max(rows, columns) > width:
            raise RunError(
                f"{where}, which does not fit the model's embedding width {width}",
                remedy="Pass the model it was trained on with --model.",
            )
        matrix = tensor.float()
        if not bool(matrix.isfinite().all()):
            raise RunError(f"{side} lora_{letter} in {self.path} has values that are not finite", remedy=_OTHER_FILE)
        wide = columns == width
        return (matrix if wide == (letter == "A") else matrix.T).contiguous()

    def require_clip(self, reference: Mapping[str, Tensor], name: str) -> None:
        """Check that the CLIP weights inside are those of a model, up to float16's precision.

        Args:
            reference: the model's state dict, in float32.
            name: the model's, for messages.

        Raises:
            RunError: they are not.
        """
        remedy = "Pass the model it was trained on with --model; fine-tuned CLIP weights cannot be imported."
        seen = set()
        for key, tensor in self.clip.items():
            own = next((tail for tail in _tails(key) if tail in reference or _UNUSED.fullmatch(tail)), None)
            if own is None:
                raise RunError(
                    f"{self.path} has the weights {_shown(key)}, which neither {name} nor a LoRA has", remedy=remedy
                )
            if _UNUSED.fullmatch(own):
                continue
            if not _same_weights(tensor, reference[own]):
                raise RunError(f"The CLIP weights in {self.path} are not those of {name}: {own} differs", remedy=remedy)
            seen.add(own)
        missing = sorted(key for key in reference if key not in seen and not _UNUSED.fullmatch(key))
        if missing and self.clip:
            raise RunError(
                f"The CLIP weights in {self.path} are not those of {name}: {missing[0]} is missing", remedy=remedy
            )

    def number(self, *names: str) -> float | None:
        """A finite number of the configuration, under the first of some names that it has.

        Raises:
            ConfigError: the value is not a finite number.
        """
        value = self._first(names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"{names[0]} in the config of {self.path} is not a number", remedy=f"Pass --{names[0]}.")
        return float(value)

    def text(self, *names: str) -> str | None:
        """A text of the configuration, or None."""
        value = self._first(names)
        return value if isinstance(value, str) else None

    def texts(self, *names: str) -> tuple[str, ...]:
        """A text or a list of texts of the configuration; empty if there is none."""
        value = self._first(names)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not all(isinstance(item, str) for item in values):
            return ()
        return tuple(values)

    def _first(self, names: tuple[str, ...]) -> Any:
        keys = (f"{wrapper}{name}" for name in names for wrapper in _WRAPPERS)
        return next((self.config[key] for key in keys if self.config.get(key) is not None), None)


_OTHER_FILE = "Pass a checkpoint of the predecessor project, such as clip_lora_best.pt."


def is_checkpoint_file(path: Path) -> bool:
    """Whether a path is a file that can only be such a checkpoint, by its name."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_legacy_checkpoint(path: Path) -> LegacyCheckpoint:
    """Read a checkpoint of the predecessor project; no code in it is run.

    Raises:
        RunError: the file is missing, damaged, holds anything but tensors and plain values, or is no such checkpoint.
    """
    content = _load(path)
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, Mapping):
        raise RunError(
            f"{path} is not a checkpoint of the predecessor project: no model_state_dict", remedy=_OTHER_FILE
        )
    clip: dict[str, Tensor] = {}
    adapters: dict[tuple[str, str], Tensor] = {}
    scales: list[Tensor] = []
    for key, tensor in state.items():
        if not isinstance(key, str) or not _is_plain(tensor):
            raise RunError(f"{_shown(key)} in {path} is not a tensor of numbers", remedy=_OTHER_FILE)
        if match := _ADAPTER.fullmatch(key):
            slot = (_SIDES[match[1]], match[2])
            if slot in adapters or tensor.ndim != 2:
                said = "is given twice" if slot in adapters else f"has {tensor.ndim} dimensions, not 2"
                raise RunError(f"{_shown(key)} in {path} {said}", remedy=_OTHER_FILE)
            adapters[slot] = tensor
        elif _SCALE.fullmatch(key):
            scales.append(tensor)
        else:
            clip[key] = tensor
    _require_adapters(path, adapters)
    config = content.get("config")
    epoch, loss = content.get("epoch"), content.get("train_loss")
    return LegacyCheckpoint(
        path=path,
        sha256=file_sha256(path),
        clip=clip,
        adapters=adapters,
        log_scale=_log_scale(path, scales),
        config=dict(_flat(config)) if isinstance(config, dict) else {},
        epoch=epoch if type(epoch) is int else None,
        train_loss=loss if type(loss) is float and math.isfinite(loss) else None,
    )


def _load(path: Path) -> Any:
    if not path.is_file():
        raise RunError(f"Checkpoint file {path} not found", remedy=_OTHER_FILE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can make the reader raise almost anything
        text = str(error)
        if "weights_only" in text.lower() or "unsupported" in text.lower():
            found = re.search(r"GLOBAL ([\w.]+)", text)
            what = f"{path} contains more than tensors and plain values" + (f": {found[1]}" if found else "")
            remedy = "It is not read, because that could run code. If you trust it, save it again with tensors only."
            raise RunError(what, remedy=remedy) from error
        lines = text.strip().splitlines()
        reason = textwrap.shorten(lines[0], 120, placeholder=" ...") if lines else type(error).__name__
        raise RunError(
            f"{path} is damaged or is not a PyTorch checkpoint: {reason}", remedy="Restore it from a copy."
        ) from error


def _is_plain(tensor: object) -> bool:
    return (
        isinstance(tensor, Tensor)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_complex()
    )


def _require_adapters(path: Path, adapters: Mapping[tuple[str, str], Tensor]) -> None:
    names = {"image": "visual", "text": "text"}
    missing = [
        f"{names[side]}_lora.lora_{letter}"
        for side in ("image", "text")
        for letter in "AB"
        if (side, letter) not in adapters
    ]
    if missing:
        raise RunError(f"{path} has no LoRA to import: {', '.join(missing)} missing", remedy=_OTHER_FILE)
    floats = all(tensor.is_floating_point() for tensor in adapters.values())
    if not floats:
        raise RunError(f"The LoRA matrices in {path} are not floating-point numbers", remedy=_OTHER_FILE)


def _log_scale(path: Path, scales: list[Tensor]) -> float:
    if len(scales) != 1 or scales[0].numel() != 1:
        what = "has no temp_scale" if not scales else "does not have one number as temp_scale"
        raise RunError(f"{path} {what}", remedy=_OTHER_FILE)
    value = float(scales[0].reshape(()))
    if not math.isfinite(value) or abs(value) > _LARGEST_LOG_SCALE:
        raise RunError(
            f"temp_scale in {path} is {value:g}, which is not the logarithm of a logit scale", remedy=_OTHER_FILE
        )
    return value


def _same_weights(stored: Tensor, reference: Tensor) -> bool:
    """Whether two tensors are equal once both are rounded to the coarser of float16 and the stored type."""
    if stored.shape != reference.shape:
        return False
    if not reference.is_floating_point():
        return torch.equal(stored.to(reference.dtype), reference.cpu())
    kind = stored.dtype if stored.dtype == torch.bfloat16 else torch.float16
    return torch.equal(stored.to(kind), reference.cpu().to(kind))


def _tails(key: str) -> Iterator[str]:
    """The name itself, then without its first part, and so on."""
    while key:
        yield key
        key = key.partition(".")[2]


def _flat(config: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and depth < 8:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", value


def _shown(key: object) -> str:
    return repr(key if isinstance(key, (str, int)) else type(key).__name__)[:80]
