"""The files of a pretrained model: which there are, their fingerprint, and a folder of checked copies for open_clip.

A library never sees the model's own folder, only the copies, so it cannot read what was not checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clip_har.errors import ModelError
from clip_har.integrity import file_sha256
from clip_har.pretrained.configs import check_open_clip_config, check_text_config, read_json, without_paths
from clip_har.pretrained.tuned import is_tuned

CONFIG = "open_clip_config.json"
TEXT_SUFFIXES = frozenset({".json", ".txt", ".model", ".vocab", ".spm", ".bpe"})
"""Configurations and tokenizers, which may lie in subfolders."""
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Names of weight files in the order in which open_clip prefers them."""

TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Weights of a transformers folder, in the order of preference; each may be in parts that NAME.index.json lists."""

_PART = re.compile(r"\w[\w.-]*\.(safetensors|bin)")
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth")
_CODE_SUFFIXES = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib"})


def text_files(folder: Path, *, from_hub: bool = False) -> list[Path]:
    """Configurations and tokenizer files under a model's folder, relative to it and in order.

    Args:
        folder: the model's folder.
        from_hub: whether code in it is passed over, because clip-har never downloads or copies it, instead of refused.

    Raises:
        ModelError: the folder contains code, or a link that leads out of it.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *files):
            path = Path(place, name)
            if path.suffix.lower() in _CODE_SUFFIXES and path.is_file() and not from_hub:
                raise ModelError(
                    f"The model's folder contains Python code: {path}",
                    remedy="Remove it; clip-har runs no code that comes with a model.",
                )
            check_link(path, folder)
            if name in files and path.suffix.lower() in TEXT_SUFFIXES and path.is_file():
                found.append(path.relative_to(folder))
    return sorted(found)


def check_link(path: Path, folder: Path) -> None:
    """Refuse a link out of the model's folder; the hub's cache has links to its blobs.

    Raises:
        ModelError: the link leads elsewhere.
    """
    if not path.is_symlink():
        return
    roots = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":  # in the hub's cache, snapshots are links to blobs
        roots.append(folder.resolve().parents[1] / "blobs")
    target = Path(os.path.realpath(path))
    if not any(target.is_relative_to(root) for root in roots):
        raise ModelError(f"{path} is a link out of the model's folder", remedy="Replace it with the file itself.")


def weight_file(folder: Path) -> Path | None:
    """The file that open_clip would read the weights from."""
    found = [path for path in folder.iterdir() if path.suffix in _WEIGHT_SUFFIXES and path.is_file()]
    order = {name: index for index, name in enumerate(WEIGHTS)}
    found.sort(key=lambda path: (order.get(path.name, len(order)), path.suffix != ".safetensors", path.name))
    return found[0] if found else None


def weight_files(folder: Path) -> list[Path]:
    """Every file that the weights are read from: open_clip's one, or those of transformers, which may be in parts.

    Raises:
        ModelError: the list of parts is not readable, or names something else than files of the folder.
    """
    if (folder / CONFIG).is_file() or is_tuned(folder):
        found = weight_file(folder)
        return [found] if found else []
    for name in TRANSFORMERS_WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [folder / part for part in weight_parts(index)]
    return []


def weight_parts(index: Path) -> list[str]:
    """The files that an index of transformers lists.

    Raises:
        ModelError: not readable, or it names something else than weight files next to it.
    """
    content = read_json(index, str(index))
    listed = content.get("weight_map") if isinstance(content, dict) else None
    parts = set(listed.values()) if isinstance(listed, dict) and all(map(_is_part, listed.values())) else set()
    if not parts:
        raise ModelError(f"{index} lists no weight files of its folder", remedy="Download the model again.")
    return sorted(parts)


def _is_part(name: object) -> bool:
    return isinstance(name, str) and _PART.fullmatch(name) is not None


def hash_folder(folder: Path, *, from_hub: bool = False) -> str:
    """SHA-256 over the relative path and the content of every file that loading may read."""
    weights = [path.relative_to(folder) for path in weight_files(folder) if path.is_file()]
    files = [*text_files(folder, from_hub=from_hub), *weights]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.as_posix()}\0{file_sha256(folder / path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, which holds code of TorchScript's own language."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in entry or entry.endswith("/constants.pkl") for entry in archive.namelist())


@contextlib.contextmanager
def staged(folder: Path, repository: Callable[[str], Path] | None = None) -> Iterator[Path]:
    """A temporary folder that open_clip can load: checked copies of the configurations, and a link to the weights.

    Args:
        folder: the model's folder, or its snapshot in the hub's cache.
        repository: for a model of the hub, gives the snapshot's folder of another repository that its configuration
            names; None refuses every such name.

    Raises:
        ModelError: something in the model is refused.
    """
    from_hub = repository is not None
    files = text_files(folder, from_hub=from_hub)
    config = check_open_clip_config(
        read_json(folder / CONFIG, str(folder / CONFIG)), str(folder / CONFIG), from_hub=from_hub
    )
    with tempfile.TemporaryDirectory(prefix="clip-har-model-") as place:
        stage = Path(place)
        _stage_text(config["model_cfg"]["text_cfg"], folder, files, stage, repository)
        (stage / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        weights = weight_file(folder)
        if weights:
            check_link(weights, folder)
            if is_torchscript(weights):
                raise ModelError(
                    f"{weights} is a TorchScript archive, which contains code",
                    remedy="Save its tensors with safetensors.",
                )
            _link(weights, stage / weights.name)
        yield stage


def _stage_text(
    text: dict[str, Any], folder: Path, files: list[Path], stage: Path, repository: Callable[[str], Path] | None
) -> None:
    """Copy the tokenizer and the text encoder's configuration, and point the configuration at the copies."""
    tokenizer, encoder = text.get("hf_tokenizer_name"), text.get("hf_model_name")
    elsewhere = repository(tokenizer) if tokenizer and repository else folder
    if not repository:
        _check_tokenizer_name(tokenizer, folder)
    _copy(elsewhere, text_files(elsewhere, from_hub=True) if elsewhere != folder else files, stage)
    if not encoder:
        return
    inside = _inside(encoder, folder)
    if inside is None and repository is None:
        raise ModelError(
            f'{folder / CONFIG} takes its text encoder from outside the model\'s folder ("hf_model_name": "{encoder}")',
            remedy="Copy the encoder's config.json into the folder and set hf_model_name to it.",
        )
    source = inside if inside is not None else repository(encoder)  # type: ignore[misc]
    check_text_config(source / "config.json", str(source / "config.json"))
    _copy(source, [Path("config.json")], stage / "text_encoder")
    text["hf_model_name"] = str(stage / "text_encoder")
    text["hf_model_pretrained"] = False


def _check_tokenizer_name(name: str | None, folder: Path) -> None:
    """open_clip reads a folder's tokenizer from the folder, whatever the name; a path elsewhere is still refused."""
    if name and (Path(name).is_absolute() or ".." in Path(name).parts) and _inside(name, folder) is None:
        raise ModelError(
            f'{folder / CONFIG} takes its tokenizer from outside the model\'s folder ("hf_tokenizer_name": "{name}")',
            remedy="Copy the tokenizer's files into the folder.",
        )


def _inside(name: str, folder: Path) -> Path | None:
    path = (folder / name).resolve()
    return path if path.is_dir() and path.is_relative_to(folder.resolve()) else None


def _copy(source: Path, files: list[Path], target: Path) -> None:
    for path in files:
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() != ".json":
            shutil.copyfile(source / path, place)
            continue
        content = read_json(source / path, str(source / path))
        if path.name in ("config.json", "tokenizer_config.json"):
            place.write_text(json.dumps(without_paths(content)), encoding="utf-8")
        else:
            shutil.copyfile(source / path, place)


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:  # a file system or an account without links
        shutil.copyfile(source, target)
