"""What class numbers mean: from a list of names next to the data, or from the hub's own metadata.

Which column holds the numbers is decided where the form is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_har.errors import DataError

LISTS = ("classes.txt", "class_names.txt", "classnames.txt", "labels.txt", "classes.json", "class_names.json")
"""Files that list class names in the order of their numbers."""


def listed_names(folder: Path) -> tuple[str, ...]:
    """The class names that a file next to the data lists; empty where there is none.

    Raises:
        DataError: there is one that cannot be read.
    """
    for name in LISTS:
        path = folder / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
            found = _from_json(json.loads(text)) if path.suffix == ".json" else _from_lines(text)
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"Cannot read the class names in {path}: {error}", remedy="One name per line, in order."
            ) from error
        if found:
            return found
    return ()


DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "README.md")
"""Files in which the hub's datasets describe their columns."""


def is_described(folder: Path) -> bool:
    """Whether a folder has a file that may describe a hub dataset's columns."""
    return any((folder / name).is_file() for name in DESCRIPTIONS)


def hub_features(folder: Path) -> dict[str, Any]:
    """The columns' features as a hub dataset's folder describes them: column -> feature; empty where it does not."""
    for describe in (_from_info_file, _from_infos_file, _from_card):
        try:
            features = describe(folder)
        except Exception:  # of any kind: a description is a help, and the data may do without
            continue
        if features:
            return features
    return {}


def names_of_feature(feature: object) -> tuple[str, ...]:
    """The names of a ClassLabel, in any of the forms in which the hub writes it; empty for anything else."""
    if not isinstance(feature, Mapping):
        return ()
    inner = feature.get("dtype")
    if isinstance(inner, Mapping) and "class_label" in inner:
        feature = inner["class_label"]
    elif "class_label" in feature:
        feature = feature["class_label"]
    names = feature.get("names") if isinstance(feature, Mapping) else None
    try:
        return _from_json(names) if names else ()
    except ValueError:
        return ()


def is_image_feature(feature: object) -> bool:
    """Whether a feature is the hub's Image."""
    return isinstance(feature, Mapping) and "image" in {
        str(feature.get("_type", "")).lower(),
        str(feature.get("dtype", "")).lower(),
    }


def _from_lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _from_json(names: object) -> tuple[str, ...]:
    """Names from a list, from {"0": name} or from {name: 0}."""
    if isinstance(names, Sequence) and not isinstance(names, str):
        return tuple(str(name) for name in names)
    if not isinstance(names, Mapping):
        raise ValueError("neither a list nor an object")
    by_number = {int(key): str(value) for key, value in _number_first(names)}
    if sorted(by_number) != list(range(len(by_number))):
        raise ValueError("the numbers do not run from 0")
    return tuple(by_number[number] for number in range(len(by_number)))


def _number_first(names: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    for key, value in names.items():
        yield (key, value) if str(key).isdecimal() else (value, key)


def _from_info_file(folder: Path) -> dict[str, Any]:
    """dataset_info.json, which `save_to_disk` writes next to Arrow files."""
    return dict(json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["features"])


def _from_infos_file(folder: Path) -> dict[str, Any]:
    """dataset_infos.json, the hub's older form: one entry per configuration."""
    infos = json.loads((folder / "dataset_infos.json").read_text(encoding="utf-8"))
    return dict(next(iter(infos.values()))["features"])


def _from_card(folder: Path) -> dict[str, Any]:
    """README.md, whose YAML head has dataset_info.features as a list of name and dtype."""
    from huggingface_hub.repocard import metadata_load

    info = (metadata_load(folder / "README.md") or {})["dataset_info"]
    info = info[0] if isinstance(info, list) else info
    return {feature["name"]: feature for feature in info["features"]}
