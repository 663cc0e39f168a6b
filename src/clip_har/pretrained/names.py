"""A model's name -> its architecture and its weights' tag or file. Only open_clip's own lists are asked."""

from __future__ import annotations

import re
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
    "RN50x4": "RN50x4:openai",
    "RN50x16": "RN50x16:openai",
    "RN50x64": "RN50x64:openai",
    "ViT-L/14@336px": "ViT-L-14-336:openai",
}
"""The original model names and what they mean to open_clip: OpenAI's weights, which need QuickGELU."""

SHORT_NAMES = {
    "laion": "ViT-B-32:laion2b_s34b_b79k",
    "datacomp": "ViT-B-32:datacomp_xl_s13b_b90k",
    "datacomp-b16": "ViT-B-16:datacomp_xl_s13b_b90k",
    "dfn": "ViT-B-16:dfn2b",
    "metaclip": "ViT-B-32:metaclip_fullcc",
    "metaclip-b16": "ViT-B-16:metaclip_fullcc",
    "siglip": "ViT-B-16-SigLIP:webli",
    "siglip2": "ViT-B-32-SigLIP2-256:webli",
    "siglip2-b16": "ViT-B-16-SigLIP2:webli",
    "pe-core-t": "PE-Core-T-16-384:meta",
    "pe-core-s": "PE-Core-S-16-384:meta",
    "pe-core": "PE-Core-B-16:meta",
    "mobileclip": "MobileCLIP-S1:datacompdr",
    "mobileclip2": "MobileCLIP2-S0:dfndr2b",
    "eva02": "EVA02-B-16:merged2b_s8b_b131k",
    "convnext": "convnext_base_w:laion2b_s13b_b82k_augreg",
    "vitamin": "ViTamin-S:datacomp1b",
    "coca": "coca_ViT-B-32:laion2b_s13b_b90k",
}
"""Families by the name that people use, each in a size that fits a laptop, and what they mean to open_clip."""


_SIZED = re.compile(r"(?P<model>.+)@(?P<side>[0-9]{1,6})", re.DOTALL)


def split_image_size(name: str) -> tuple[str, int | None]:
    """A single model's name without its image size, and that: "ViT-B/32@288" means images of 288 x 288 pixels.

    No file is looked for. A folder whose own name ends so is written with a slash at the end.
    """
    sized = _SIZED.fullmatch(name)
    return (name, None) if sized is None else (sized["model"], int(sized["side"]))


def at_size(model: str, side: int | None) -> str:
    """The name of a model for images of another size; unchanged without one."""
    return model if side is None else f"{model}@{side}"


def require_one_meaning(name: str) -> None:
    """Refuse a user's name of a model at a size that is also the path of a folder or file.

    Raises:
        ModelError: both can be meant.
    """
    model, side = split_image_size(name)
    kind, _, rest = name.partition(":")
    if side is None or not Path(rest if kind == "local-dir" else name).exists():
        return
    raise ModelError(
        f"{name} is a path, and also the model {model} for images of {side} pixels",
        remedy=f"Pass {name}/ for the folder, or rename it.",
    )


def meaning(name: str) -> str:
    """An original or short name as open_clip's NAME:TAG, also for other weights of an original one; else unchanged.

    "ViT-B/32:FILE" becomes "ViT-B-32:FILE". No file is looked for. An image size is omitted.
    """
    name, _ = split_image_size(name)
    own, _, weights = name.partition(":")
    if own in SHORT_NAMES and not weights:
        return SHORT_NAMES[own]
    if own not in HISTORIC_NAMES:
        return name
    return f"{HISTORIC_NAMES[own].partition(':')[0]}:{weights}" if weights else HISTORIC_NAMES[own]


def parse(name: str) -> tuple[str, str | None]:
    """The architecture and the weights' tag or file; ("", file) for a weight file alone.

    A folder alone means the same as local-dir:FOLDER, unless open_clip knows a model of that name. An image size is
    omitted.

    Raises:
        ModelError: the name is not known, or lacks its weights.
    """
    open_clip = import_open_clip()
    name, _ = split_image_size(name)

    if name == "demo":
        return f"local-dir:{Path(__file__).parents[1] / 'demo' / 'model'}", None
    if name.startswith(("local-dir:", "hf-hub:")):
        return _checked_local(name), None
    if Path(name).is_file():
        return "", name
    if _is_folder(name):
        return _checked_local(f"local-dir:{name}"), None
    architecture, _, pretrained = meaning(name).partition(":")
    architecture = architecture.replace("/", "-")
    known = open_clip.list_models()
    if architecture in SHORT_NAMES:
        other = f"{SHORT_NAMES[architecture].partition(':')[0]}:{pretrained}"
        raise ModelError(
            f"{architecture} already specifies its weights, {SHORT_NAMES[architecture]}",
            remedy=f"Pass --model {architecture} alone, or other weights as --model {other}.",
        )
    if name in SHORT_NAMES and architecture not in known:
        raise ModelError(
            f"{name} is {meaning(name)}, which open_clip {open_clip.__version__} does not contain",
            remedy="Update it: pip install --upgrade open_clip_torch",
        )
    if architecture not in known:
        raise ModelError(f"Unknown model {name!r}", remedy=nearest_models(name, known, HISTORIC_NAMES, SHORT_NAMES))
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
    name, _ = split_image_size(name)

    if name == "demo":
        return True
    architecture, _, pretrained = meaning(name).partition(":")
    architecture = architecture.replace("/", "-")
    tags = open_clip.list_pretrained_tags_by_model(architecture) if architecture in open_clip.list_models() else []
    return pretrained in tags or (not pretrained and bool(tags))


def absolute(name: str) -> str:
    """The same model from any working directory: paths in a name made absolute. An image size stays."""
    model, side = split_image_size(name)
    kind, _, rest = model.partition(":")
    if kind == "local-dir":
        model = f"local-dir:{_resolved(rest)}"
    elif Path(model).is_file():
        model = _resolved(model)
    elif _is_folder(model):
        model = f"local-dir:{_resolved(model)}"
    elif rest and kind != "hf-hub" and Path(rest).is_file():
        model = f"{kind}:{_resolved(rest)}"
    return at_size(model, side)


def _resolved(path: str) -> str:
    """An absolute path, which does not end in what would be read as an image size."""
    whole = str(Path(path).resolve())
    return whole if split_image_size(whole)[1] is None else f"{whole}/"


def _is_folder(name: str) -> bool:
    """Whether a name is a folder's path, and not one of a model, of which a folder may have the name by chance."""
    if name == "demo" or not Path(name).is_dir():
        return False
    architecture = meaning(name).partition(":")[0].replace("/", "-")
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
