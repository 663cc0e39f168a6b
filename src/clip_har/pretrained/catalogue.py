"""What is known of a pretrained model before it is downloaded: size, cost, pretraining data, licence.

Nothing here asks the network or reads weights, and for what architectures.json lists no torch is imported.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from clip_har.errors import ModelError
from clip_har.pretrained.architectures import DEMO, Architecture, known_architecture, listed_weights
from clip_har.pretrained.names import HISTORIC_NAMES, SHORT_NAMES, meaning, split_image_size
from clip_har.pretrained.provenance import Provenance, provenance

CURATED = (DEMO, *HISTORIC_NAMES, *SHORT_NAMES)
"""The models that `clip-har models` lists by default."""
_OWN_FILES = Provenance(data="not recorded in the files", licence="not recorded in the files")
_DEMO = Provenance(data="clip-har's synthetic images", licence="MIT", research_only=False)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A pretrained model in a few facts."""

    name: str
    """As --model takes it."""
    meaning: str
    """What it stands for: open_clip's NAME:TAG, a folder, or the bundled model."""
    image_parameters: int
    """Parameters of the image encoder, with its projection."""
    text_parameters: int
    """Parameters of the text encoder, with its projection and the logit scale."""
    embed_dim: int
    """Width of the shared embedding space."""
    image_size: int
    """Side of the input image in pixels."""
    gflops: float
    """Billion multiply-adds of the image encoder for one image, as papers count FLOPs."""
    data: str
    """Pretraining data."""
    licence: str
    """Licence of the weights, from their model card."""
    research_only: bool | None
    """Whether the licence excludes commercial use; None if it is not certain."""


def describe(name: str) -> ModelFacts | None:
    """What is known of the model that --model NAME would load; None if nothing is, or the name is unknown.

    An open_clip folder (local-dir:) and architectures that architectures.json lacks are measured, which takes seconds.
    """
    with suppress(ModelError):
        return require_facts(name)
    return None


def require_facts(name: str) -> ModelFacts:
    """`describe`, for a name that the user gave.

    Raises:
        ModelError: unknown, refused, missing, or nothing can be known of it without a download.
    """
    architecture = architecture_of(name)
    if architecture is None:
        raise ModelError(
            f"Nothing is known of {name} before it is downloaded",
            remedy="Download it by passing it to --model of another command, or list a folder as local-dir:FOLDER.",
        )
    listed = listed_name(name)
    if split_image_size(name)[0] == DEMO:
        origin, stands_for = _DEMO, "bundled tiny CLIP"
    elif listed is not None:
        origin, stands_for = provenance(*listed.split(":", 1)), listed
    else:
        origin, stands_for = _OWN_FILES, meaning(name)
    return ModelFacts(
        name=name,
        meaning=stands_for,
        data=origin.data,
        licence=origin.licence,
        research_only=origin.research_only,
        **{field: getattr(architecture, field) for field in _SHARED},
    )


def architecture_of(name: str) -> Architecture | None:
    """Size and cost of the model that --model NAME would load; None if they cannot be known without its files.

    Raises:
        ModelError: unknown, refused, missing or unreadable.
    """
    model, side = split_image_size(name)
    if side is not None and ((unsized := architecture_of(model)) is None or unsized.image_size == side):
        return unsized
    if name == DEMO:
        return known_architecture(DEMO)
    listed = listed_name(name)
    if listed is not None and side is None:
        known = known_architecture(listed_weights()[listed].architecture)
        assert known is not None, "architectures.json measures whatever it lists"
        return known
    if name.startswith("hf-hub:"):
        return None
    if not name.startswith("local-dir:") and side is None:
        own = meaning(name).partition(":")[0].replace("/", "-")
        if (known := known_architecture(own)) is not None:
            return known
    from clip_har.pretrained.measuring import measure_named  # torch and open_clip take seconds to import

    return measure_named(name)


def listed_name(name: str) -> str | None:
    """The NAME:TAG of open_clip that a name means, if architectures.json lists it."""
    name, _ = split_image_size(name)
    known = listed_weights()
    kind, _, repository = name.partition(":")
    if kind == "hf-hub":
        return next((entry.name for entry in known.values() if entry.hub.rstrip("/") == repository), None)
    if Path(name).is_file():
        return None
    own, _, tag = meaning(name).partition(":")
    own = own.replace("/", "-")
    if tag:
        return f"{own}:{tag}" if f"{own}:{tag}" in known else None
    tags = [entry.name for entry in known.values() if entry.name.partition(":")[0] == own]
    return next((found for found in tags if found.endswith(":openai")), tags[0] if tags else None)


_SHARED = [field.name for field in fields(Architecture) if field.name in ModelFacts.__dataclass_fields__]
