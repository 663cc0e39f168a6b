"""A model's name -> its architecture and its weights' tag or file. Only open_clip's own lists are asked."""

from __future__ import annotations

from pathlib import Path

from clip_har.errors import ModelError
from clip_har.light_imports import import_open_clip
from clip_har.pretrained import files as model_files
from clip_har.pretrained.errors import nearest_models
from clip_har.pretrained.tuned import is_tuned

HISTORIC_NAMES = {
    "ViT-B/32": "ViT-B-32:openai",
    "ViT-B/16": "ViT-B-16:openai",
    "ViT-L/14": "ViT-L-14:openai",
    "RN50": "RN50:openai",
    "RN101": "RN101:openai",
}
"""The original model names and what they mean to open_clip: OpenAI's weights, which need QuickGELU."""


def parse(name: str) -> tuple[str, str | None]:
    """The architecture and the weights' tag or file; ("", file) for a weight file alone.

    A folder alone means the same as local-dir:FOLDER, unless open_clip knows a model of that name.

    Raises:
        ModelError: the name is not known, or lacks its weights.
    """
    open_clip = import_open_clip()

    if name == "demo":
        return f"local-dir:{Path(__file__).parents[1] / 'demo' / 'model'}", None
    if name.startswith(("local-dir:", "hf-hub:")):
        return _checked_local(name), None
    if Path(name).is_file():
        return "", name
    if _is_folder(name):
        return _checked_local(f"local-dir:{name}"), None
    architecture, _, pretrained = HISTORIC_NAMES.get(name, name).partition(":")
    architecture = architecture.replace("/", "-")
    known = open_clip.list_models()
    if architecture not in known:
        raise ModelError(f"Unknown model {name!r}", remedy=nearest_models(name, known, HISTORIC_NAMES))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not pretrained and tags:
        pretrained = "openai" if "openai" in tags else tags[0]
    if pretrained not in tags and not Path(pretrained).is_file():
        said = (
            f"{architecture} has no weights {pretrained!r}" if pretrained else f"{architecture} has no default weights"
        )
        raise ModelError(
            said, remedy=f"Known for it: {', '.join(tags) or 'none'}; or pass a file as {architecture}:FILE."
        )
    return architecture, pretrained


def is_built_in(name: str) -> bool:
    """Whether a name means the bundled model or one of open_clip's own list, judging by its letters alone.

    No file is looked for, so that it can be asked of a name that comes from somebody else.
    """
    open_clip = import_open_clip()

    if name == "demo":
        return True
    architecture, _, pretrained = HISTORIC_NAMES.get(name, name).partition(":")
    architecture = architecture.replace("/", "-")
    tags = open_clip.list_pretrained_tags_by_model(architecture) if architecture in open_clip.list_models() else []
    return pretrained in tags or (not pretrained and bool(tags))


def absolute(name: str) -> str:
    """The same model from any working directory: paths in a name made absolute."""
    kind, _, rest = name.partition(":")
    if kind == "local-dir":
        return f"local-dir:{Path(rest).resolve()}"
    if Path(name).is_file():
        return str(Path(name).resolve())
    if _is_folder(name):
        return f"local-dir:{Path(name).resolve()}"
    return f"{kind}:{Path(rest).resolve()}" if rest and kind != "hf-hub" and Path(rest).is_file() else name


def _is_folder(name: str) -> bool:
    """Whether a name is a folder's path, and not one of a model, of which a folder may have the name by chance."""
    if name == "demo" or not Path(name).is_dir():
        return False
    architecture = HISTORIC_NAMES.get(name, name).partition(":")[0].replace("/", "-")
    return architecture not in import_open_clip().list_models()


def _checked_local(name: str) -> str:
    folder = Path(name.partition(":")[2])
    known = is_tuned(folder) or is_open_clip(folder) or (folder / "config.json").is_file()
    if name.startswith("local-dir:") and not known:
        raise ModelError(
            f"{folder} contains no open_clip model (no open_clip_config.json) or transformers model (no config.json)",
            remedy="Pass the folder that contains the configuration and the weights.",
        )
    return name


def is_open_clip(folder: Path) -> bool:
    """Whether a folder is of open_clip's format; the other one that is read is that of transformers."""
    return (folder / model_files.CONFIG).is_file()
