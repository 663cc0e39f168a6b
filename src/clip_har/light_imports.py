"""open_clip without what it imports for models that are not loaded: transformers, timm, torch's compiler, and others.

All of these take several times as long to import as a small model takes to answer. Only the command line asks for it
(`enable`): a process that uses open_clip itself expects it whole.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TOWERS = (("hf_model", "HFTextEncoder"), ("timm_model", "TimmModel"))
"""Module of open_clip and its class that wraps another library's tower."""
_DYNAMO = "torch._dynamo.utils"
_UNUSED = ("datasets", "models")
"""Parts of torchvision that open_clip does not use."""
_LONGEST_CONFIG = 1_000_000

_enabled = False
_incomplete = False


def enable() -> None:
    """Let `import_open_clip` leave things out from now on, in this process."""
    global _enabled
    _enabled = True


def import_open_clip() -> types.ModuleType:
    """The package open_clip, imported now if need be."""
    global _incomplete
    if _enabled and "open_clip" not in sys.modules:
        downloads = "huggingface_hub" in sys.modules
        with absent("transformers", "timm", "huggingface_hub"), _compiler_on_demand(), _torchvision_in_part():
            importlib.import_module("open_clip")
        if not downloads:
            _download_on_demand()
        _incomplete = True
    return importlib.import_module("open_clip")


def is_incomplete() -> bool:
    """Whether open_clip now lacks what `complete` would give it."""
    return _incomplete


def complete() -> None:
    """Import what was left out."""
    global _incomplete
    if _incomplete:
        model = importlib.import_module("open_clip.model")
        for name, wrapper in _TOWERS:
            module = importlib.reload(importlib.import_module(f"open_clip.{name}"))
            setattr(model, wrapper, getattr(module, wrapper))
        _incomplete = False


def needs_all(architecture: str) -> bool:
    """Whether a model has a tower of another library, by open_clip's name of it; True in doubt.

    A folder's tokenizer may be of another library too; it is opened later, by itself.
    """
    kind, _, rest = architecture.partition(":")
    if kind == "hf-hub":
        return True
    built_in = Path(str(import_open_clip().__file__)).parent / "model_configs" / f"{architecture}.json"
    config = Path(rest) / "open_clip_config.json" if kind == "local-dir" else built_in
    try:
        with config.open("rb") as stream:
            content = stream.read(_LONGEST_CONFIG)
    except OSError:
        return bool(architecture)  # without one, the weight file alone is the model, and OpenAI's
    signs = (b'"timm_', b'"hf_model', b"\\u", *((b'"hf_',) if kind != "local-dir" else ()))
    return any(sign in content for sign in signs) or len(content) == _LONGEST_CONFIG


@contextlib.contextmanager
def absent(*packages: str) -> Iterator[None]:
    """These packages, unless they are imported already, cannot be imported meanwhile."""
    hidden = [name for name in packages if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _download_on_demand() -> None:
    """Let open_clip import huggingface_hub when it first downloads something."""
    pretrained = importlib.import_module("open_clip.pretrained")

    def hf_hub_download(*arguments: Any, **options: Any) -> str:
        path: str = importlib.import_module("huggingface_hub").hf_hub_download(
            *arguments, library_name="open_clip", library_version=pretrained.__version__, **options
        )
        return path

    pretrained.hf_hub_download, pretrained._has_hf_hub = hf_hub_download, True  # type: ignore[attr-defined]


@contextlib.contextmanager
def _torchvision_in_part() -> Iterator[None]:
    """torchvision imports all its parts: some of them when they are first imported by name."""
    if "torchvision" in sys.modules:
        yield
        return
    for name in _UNUSED:
        sys.modules[f"torchvision.{name}"] = types.ModuleType(f"torchvision.{name}")
    try:
        yield
    finally:
        package = sys.modules.get("torchvision")
        for name in _UNUSED:
            del sys.modules[f"torchvision.{name}"]
            if hasattr(package, name):
                delattr(package, name)


@contextlib.contextmanager
def _compiler_on_demand() -> Iterator[None]:
    """torchvision asks torch's compiler one question, for an operator that CLIP does not have: import it then."""
    if _DYNAMO in sys.modules:
        yield
        return

    def is_compile_supported(device_type: str) -> bool:
        supported: bool = importlib.import_module(_DYNAMO).is_compile_supported(device_type)
        return supported

    stand_in = types.ModuleType(_DYNAMO)
    stand_in.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    sys.modules[_DYNAMO] = stand_in
    try:
        yield
    finally:
        del sys.modules[_DYNAMO]
