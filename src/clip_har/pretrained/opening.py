"""How pretrained models are opened through open_clip, without running code that comes with them.

The checks of a model's files are in `files` and `configs`; encoders and precision are in `backbone`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clip_har.errors import ModelError
from clip_har.failures import is_exhausted
from clip_har.integrity import file_sha256
from clip_har.light_imports import complete, import_open_clip, is_incomplete, needs_all
from clip_har.pretrained import files as model_files
from clip_har.pretrained import hugging_face, slip, tinyclip
from clip_har.pretrained import openai as openai_weights
from clip_har.pretrained.conversion import Conversion, set_activations, shown_activations
from clip_har.pretrained.converted import converted
from clip_har.pretrained.errors import explained
from clip_har.pretrained.guards import no_code, offline, offline_if_unreachable, quiet
from clip_har.pretrained.image_size import set_image_size
from clip_har.pretrained.names import HISTORIC_NAMES, absolute, at_size, is_open_clip, parse, split_image_size
from clip_har.pretrained.tuned import is_tuned, read_base, set_weights
from clip_har.pretrained.unnamed import matching_architecture

_HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model as open_clip gives it."""

    model: nn.Module
    tokenizer: Any
    """List of sentences -> int64 [T, context]."""
    notes: tuple[str, ...] = ()
    """What was assumed about the model; a line each."""
    files_sha256: str = ""
    """See `fingerprint`."""
    chain: tuple[str, ...] = ()
    """What a fine-tuned model came from, see `tuned.Base`."""
    activation: str = ""
    """Of both encoders, if that is known from the model's source; "" if the model is as open_clip built it."""
    image_size: int | None = None
    """Side in pixels of the images it reads, if not of those it was pretrained with."""


def open_pretrained(name: str, *, local_only: bool = False, expected_files: str | None = None) -> Opened:
    """Open a pretrained model on the CPU, for images of the size that its name may end in.

    Args:
        name: see `backbone.load_backbone`.
        local_only: whether only files on this machine are read, and the network is never asked.
        expected_files: a `fingerprint` to compare before anything of the model is read, or None.

    Raises:
        ModelError: unknown name, refused, missing or unreadable files, another fingerprint, or an image size that the
            model does not take.
    """
    model, side = split_image_size(name)
    once, _ = split_image_size(model)
    if once != model:
        raise ModelError(f"{name} has two image sizes", remedy=f"Pass {at_size(once, side)}.")
    opened = _open(model, local_only, expected_files)
    if side is None or not set_image_size(opened.model, side, name):
        return opened
    return dataclasses.replace(opened, image_size=side)


def _open(name: str, local_only: bool, expected_files: str | None) -> Opened:
    architecture, pretrained = parse(name)
    is_file = pretrained is not None and Path(pretrained).is_file()
    if local_only or architecture.startswith("local-dir:"):
        network: contextlib.AbstractContextManager[None] = offline()
    else:
        network = contextlib.nullcontext() if is_file else offline_if_unreachable()
    only_own = is_incomplete() and not needs_all(architecture)
    if not only_own:
        complete()
    try:
        with quiet(), no_code(transformers=not only_own), network:
            if architecture.startswith("hf-hub:"):
                return _open_repository(name, local_only, expected_files)
            files_sha256 = _fingerprint(name, architecture, pretrained)
            _compare(name, files_sha256, expected_files)
            if architecture.startswith("local-dir:"):
                return _open_folder(Path(architecture.partition(":")[2]), files_sha256)
            if not is_file:
                return _open_tag(architecture, pretrained or "")
            path = Path(pretrained or "")
            if architecture:
                return _open_file(name, architecture, path, files_sha256)
            opened = _open_file_alone(path, files_sha256)
        return opened or _open_unnamed(path, files_sha256, local_only=local_only)
    except ModelError:
        raise
    except Exception as error:
        if is_exhausted(error):
            raise
        raise explained(name, architecture, error, local_only=local_only) from error


def fingerprint(name: str) -> str:
    """SHA-256 over all files that the named model is read from: relative paths and contents.

    Returns:
        "" for a model that its name identifies: demo, an original name, or one of open_clip's.

    Raises:
        ModelError: the model is not on this machine.
    """
    name, _ = split_image_size(absolute(name))
    architecture, pretrained = parse(name)
    try:
        with offline():
            return _fingerprint(name, architecture, pretrained)
    except ModelError:
        raise
    except Exception as error:
        raise explained(name, architecture, error, local_only=True) from error


def _fingerprint(name: str, architecture: str, pretrained: str | None) -> str:
    if name == "demo":
        return ""
    kind, _, rest = architecture.partition(":")
    if kind == "local-dir":
        return model_files.hash_folder(Path(rest))
    if kind == "hf-hub":
        return model_files.hash_folder(_snapshot(rest, local_only=True), from_hub=True)
    if pretrained is None or not Path(pretrained).is_file():
        return ""
    named = name.partition(":")[0] if architecture else ""
    return hashlib.sha256(f"{named}\0{file_sha256(Path(pretrained))}".encode()).hexdigest()


def _compare(name: str, files_sha256: str, expected: str | None) -> None:
    if expected is not None and files_sha256 != expected:
        raise ModelError(
            f"The files of the model {name} have changed: their SHA-256 is {files_sha256[:12] or 'not defined'}, "
            f"expected {expected[:12] or 'none'}",
            remedy="Restore the original files, or pass the model with --model.",
        )


# --- opening ---------------------------------------------------------------------------------------------


def _create(architecture: str, pretrained: str | None, *, quick_gelu: bool = False) -> tuple[nn.Module, Any]:
    model = _create_model(architecture, pretrained, quick_gelu=quick_gelu)
    return model, import_open_clip().get_tokenizer(architecture)


def _create_model(architecture: str, pretrained: str | None, *, quick_gelu: bool = False) -> nn.Module:
    model: nn.Module = import_open_clip().create_model(
        architecture,
        pretrained=pretrained,
        force_quick_gelu=quick_gelu,
        require_pretrained=True,
        pretrained_text=False,
    )
    return model


def _open_folder(folder: Path, files_sha256: str, *, from_hub: bool = False) -> Opened:
    """A folder of open_clip, of transformers (or a repository's snapshot), or of a fine-tuned model."""
    if is_tuned(folder):
        return _open_tuned(folder, files_sha256)
    if is_open_clip(folder):
        return _open_own_folder(folder, files_sha256)
    return _open_converted(str(folder), files_sha256, lambda: hugging_face.convert(folder, from_hub=from_hub))


def _open_tuned(folder: Path, files_sha256: str) -> Opened:
    base = read_base(folder)
    opened = open_pretrained(base.name, local_only=True, expected_files=base.files_sha256)
    set_weights(opened.model, folder)
    return dataclasses.replace(opened, files_sha256=files_sha256, chain=base.chain)


def _open_converted(origin: str, files_sha256: str, convert: Callable[[], Conversion]) -> Opened:
    """A model of another format, from its conversion to open_clip's."""
    found = converted(origin, files_sha256, convert)
    opened = _open_own_folder(found.folder, files_sha256)
    set_activations(opened.model, image=found.image_activation, text=found.text_activation)
    opened.tokenizer.keep = found.temporary
    activation = shown_activations(found.image_activation, found.text_activation)
    return dataclasses.replace(opened, notes=found.notes, activation=activation)


def _open_own_folder(folder: Path, files_sha256: str) -> Opened:
    """A folder's model; its tokenizer may need transformers, which is slow to import, so it waits for a sentence."""
    with model_files.staged(folder) as stage:
        model = _create_model(f"local-dir:{stage}", None)
    return Opened(model=model, tokenizer=FolderTokenizer(folder), files_sha256=files_sha256)


class FolderTokenizer:
    """The tokenizer of a local-dir: model, opened and checked when it is first called."""

    def __init__(self, folder: Path) -> None:
        self.keep: Any = None
        """What the folder lasts as long as, if it is temporary."""
        self._folder = folder
        self._tokenizer: Any = None

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Tokens int64 [T, context].

        Raises:
            ModelError: its files are refused, missing or unreadable.
        """
        if self._tokenizer is None:
            self._tokenizer = self._opened()
        tokens: Tensor = self._tokenizer(list(sentences))
        return tokens

    def _opened(self) -> Any:
        try:
            with quiet(), no_code(), offline(), model_files.staged(self._folder) as stage:
                return import_open_clip().get_tokenizer(f"local-dir:{stage}")
        except ModelError:
            raise
        except Exception as error:
            name = f"local-dir:{self._folder}"
            raise explained(name, name, error, local_only=True) from error


def _open_repository(name: str, local_only: bool, expected_files: str | None) -> Opened:
    """A repository of the hub: its configurations first, checked, and only then its weights."""
    own = name.partition(":")[2]
    folder = _snapshot(own, local_only=local_only)
    if not is_open_clip(folder) and (folder / "config.json").is_file():
        if expected_files is None:
            hugging_face.check(folder, from_hub=True)
        _download_weights(own, folder, _transformers_weights(folder), local_only=local_only)
        files_sha256 = model_files.hash_folder(folder, from_hub=True)
        _compare(name, files_sha256, expected_files)
        return _open_folder(folder, files_sha256, from_hub=True)

    @functools.cache
    def repository(other: str) -> Path:
        if other == own:
            return folder
        if local_only:
            raise ModelError(
                f"{name} takes its tokenizer or text encoder from another repository, {other}",
                remedy=f"Pass --model {name} to allow it.",
            )
        return _snapshot(other, local_only=False)

    if expected_files is None:
        with model_files.staged(folder, repository):
            pass
    _download_weights(own, folder, [(file,) for file in _HUB_WEIGHTS], local_only=local_only)
    files_sha256 = model_files.hash_folder(folder, from_hub=True)
    _compare(name, files_sha256, expected_files)
    with model_files.staged(folder, repository) as stage:
        model, tokenizer = _create(f"local-dir:{stage}", None)
    return Opened(model=model, tokenizer=tokenizer, files_sha256=files_sha256)


def _snapshot(repository: str, *, local_only: bool) -> Path:
    """The folder of a repository's configurations and tokenizer in the hub's cache."""
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in sorted(model_files.TEXT_SUFFIXES)]
    return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=local_only))


def _transformers_weights(folder: Path) -> list[tuple[str, ...]]:
    """The alternatives of weight files that a transformers repository may have, each one file or its parts."""
    alternatives: list[tuple[str, ...]] = []
    for file in model_files.TRANSFORMERS_WEIGHTS:
        index = folder / f"{file}.index.json"
        alternatives.append(tuple(model_files.weight_parts(index)) if index.is_file() else (file,))
    return alternatives


def _download_weights(
    repository: str, folder: Path, alternatives: Sequence[tuple[str, ...]], *, local_only: bool
) -> None:
    """Download the first alternative that the repository has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for files in alternatives:
        try:
            for file in files:
                hf_hub_download(repository, file, revision=folder.name, local_files_only=local_only)
            return
        except EntryNotFoundError:  # also what an offline cache without the file raises
            if files == alternatives[-1]:
                raise


def _open_file_alone(path: Path, files_sha256: str) -> Opened | None:
    """A weight file whose tensors tell its architecture; None for one that is of open_clip's architectures."""
    weights = openai_weights.read_openai(path)
    if weights is not None:
        context_length = openai_weights.read_layout(path, weights).context_length
        tokenizer = import_open_clip().SimpleTokenizer(context_length=context_length)
        return Opened(model=openai_weights.build(path, weights), tokenizer=tokenizer, files_sha256=files_sha256)
    found = openai_weights.read_weights(path)
    for kind in (slip, tinyclip):
        if kind.recognises(found):
            return _open_converted(str(path), files_sha256, functools.partial(kind.convert, path, found))
    return None


def _open_unnamed(path: Path, files_sha256: str, *, local_only: bool) -> Opened:
    """A weight file of one of open_clip's architectures, found by the shapes of its tensors."""
    complete()
    with quiet(), no_code(), offline() if local_only else contextlib.nullcontext():
        architecture = matching_architecture(path, openai_weights.read_weights(path))
        named = f"{architecture}:{path}"
        try:
            opened = _open_file(named, architecture, path, files_sha256)
        except Exception as error:
            if isinstance(error, ModelError) or is_exhausted(error):
                raise
            raise explained(named, architecture, error, local_only=local_only) from error
    note = f"{path.name} does not record its architecture: using {architecture}, the only one with these shapes"
    return dataclasses.replace(opened, notes=(note, *opened.notes))


def _open_file(name: str, architecture: str, path: Path, files_sha256: str) -> Opened:
    open_clip = import_open_clip()

    weights = openai_weights.read_openai(path)
    config = open_clip.get_model_config(architecture)
    if weights is not None:
        openai_weights.check_layout(path, weights, architecture, config)
        model, tokenizer = openai_weights.build(path, weights), open_clip.get_tokenizer(architecture)
        return Opened(model=model, tokenizer=tokenizer, files_sha256=files_sha256)
    historic = name.partition(":")[0] in HISTORIC_NAMES
    model, tokenizer = _create(architecture, str(path), quick_gelu=historic)
    return Opened(
        model=model,
        tokenizer=tokenizer,
        notes=_activation_notes(name, path, config, historic=historic),
        files_sha256=files_sha256,
    )


def _activation_notes(name: str, path: Path, config: dict[str, Any], *, historic: bool) -> tuple[str, ...]:
    """Weights do not record their activation, and the wrong one costs accuracy without an error."""
    architecture = name.partition(":")[0]
    if historic:
        return (f"{path.name} does not record its activation: using QuickGELU, as in OpenAI's {architecture}",)
    if "timm_model_name" in config["vision_cfg"] or config.get("quick_gelu"):
        return ()
    original = next((old for old, new in HISTORIC_NAMES.items() if new.startswith(f"{architecture}:")), None)
    remedy = f"; for weights fine-tuned from OpenAI's, pass {original}:FILE" if original else ""
    return (f"{path.name} does not record its activation: using GELU, as in open_clip's {architecture}{remedy}",)


def _open_tag(architecture: str, tag: str) -> Opened:
    """One of open_clip's own models. OpenAI's weights may come as the original archive or converted."""
    open_clip = import_open_clip()

    if tag != "openai":
        model, tokenizer = _create(architecture, tag, quick_gelu=_needs_quick_gelu(architecture, tag))
        return Opened(model=model, tokenizer=tokenizer)
    path = Path(
        open_clip.factory.download_pretrained(open_clip.get_pretrained_cfg(architecture, tag))
    )  # checks the hash
    weights = openai_weights.read_openai(path)
    if weights is None:
        model, tokenizer = _create(architecture, str(path), quick_gelu=True)
        return Opened(model=model, tokenizer=tokenizer)
    openai_weights.check_layout(path, weights, architecture, open_clip.get_model_config(architecture))
    return Opened(model=openai_weights.build(path, weights), tokenizer=open_clip.get_tokenizer(architecture))


def _needs_quick_gelu(architecture: str, pretrained: str) -> bool:
    """OpenAI's and some other weights were trained with QuickGELU; plain GELU costs them accuracy silently."""
    open_clip = import_open_clip()

    tag = open_clip.get_pretrained_cfg(architecture, pretrained) or {}
    return bool(tag.get("quick_gelu", False))
