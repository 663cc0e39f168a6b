"""Whether the weights of a pretrained model are on this machine, where open_clip would look for them.

Only looks: nothing is read, hashed or downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path

from clip_har.pretrained.architectures import DEMO, listed_weights
from clip_har.pretrained.catalogue import listed_name
from clip_har.pretrained.names import meaning, split_image_size

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""The weight files of a repository of the hub, in the order in which open_clip asks for them."""


def weights_on_disk(name: str) -> Path | None:
    """The file, or the folder for local-dir: and demo, that the named model's weights would be read from."""
    name, _ = split_image_size(name)
    if name == DEMO:
        return Path(__file__).parents[1] / "demo" / "model"
    kind, _, rest = name.partition(":")
    if kind == "local-dir":
        return Path(rest) if Path(rest).is_dir() else None
    if Path(name).is_file():
        return Path(name)
    listed = listed_name(name)
    if listed is not None:
        return _in_cache(listed_weights()[listed].hub)
    if kind == "hf-hub":
        return _in_cache(f"{rest}/")
    file = Path(meaning(name).partition(":")[2])
    return file if file.is_file() else None


def _in_cache(place: str) -> Path | None:
    """A weight file in the hub's cache; `place` is its repository and, unless open_clip's usual one, its name."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, file = place.rpartition("/")
    own = (str(Path(file).with_suffix(".safetensors")), file) if file else HUB_FILES
    for candidate in own:
        found = try_to_load_from_cache(repository, candidate)
        if isinstance(found, (str, os.PathLike)):
            return Path(found)
    return None
