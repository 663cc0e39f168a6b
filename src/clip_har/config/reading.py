"""A JSON or TOML file of settings, in the current flat format or the predecessor's nested format."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_har.config.commands import CompareConfig, EvaluateConfig, TrainConfig
from clip_har.config.flat import flat_fields
from clip_har.config.legacy import HISTORIC_KEYS, ignored_because, ignored_line, is_legacy
from clip_har.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_LARGEST_BYTES = 10_000_000


def load_config_file(
    path: Path,
    config_type: type,
    *,
    note: Callable[[str], None] = lambda _line: None,
    apart: Sequence[str] = (),
) -> dict[str, Any]:
    """Read a JSON or TOML file of settings, in the current flat format or the predecessor's nested format.

    Hyphens and underscores are the same. A null counts as not given, and so does `resume`, which a run's own
    config.json holds but which is for the command line to say. Of a predecessor project's file, what has no meaning
    for the command is ignored.

    Args:
        note: called with a line that names the ignored keys, if there are any, and one on the predecessor's names in a
            file that is not one of its own.
        apart: tables that `load_table` reads.

    Returns:
        Setting name -> raw value.

    Raises:
        ConfigError: the file is missing or malformed, or holds unknown keys (all named, each with the nearest
            known one).
    """
    given = list(_flatten({key: value for key, value in _read_mapping(path).items() if key not in apart}))
    known = {item.name for item in flat_fields(config_type)}
    legacy = is_legacy(key.replace("-", "_") for key, _ in given)
    values: dict[str, Any] = {}
    problems = []
    ignored: list[tuple[str, str]] = []
    renamed: list[str] = []
    for key, value in given:
        name = key.replace("-", "_")
        if legacy and (reason := ignored_because(name, known)):
            ignored.append((key, reason))
            continue
        name = HISTORIC_KEYS.get(name, name)
        if name == "seed" and "seed" not in known and "seeds" in known:
            name = "seeds"
        if name not in known:
            problems.append(_unknown_key(key, known))
        elif name in values:
            problems.append(f"{key!r} is given twice")
        elif value is not None:
            values[name] = value
            if name != key.replace("-", "_") and not legacy:
                renamed.append(f"{key} as {name}")
    values.pop("resume", None)
    if problems:
        raise ConfigError(f"{path}: {'; '.join(problems)}", remedy="Fix or remove these entries.")
    if ignored:
        note(ignored_line(str(path), ignored))
    if renamed:
        note(f"{path}: read {', '.join(renamed)}")
    return values


def load_table(path: Path, name: str) -> dict[str, Any]:
    """A table of a config file as it is; empty if there is none.

    Raises:
        ConfigError: the file is missing or malformed, or the entry is no table.
    """
    table = _read_mapping(path).get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {name} is not a table", remedy=f"Write [{name}] and its entries below it.")
    return table


def _read_mapping(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:  # in part only, since a device has no end
            content = stream.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise ConfigError(
                f"The config file {path} has more than {_LARGEST_BYTES // 10**6} MB", remedy="Check --config."
            )
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        raise ConfigError(f"Cannot read the config file {path}: {error}", remedy="Check --config.") from error
    kind = "TOML" if path.suffix.lower() == ".toml" else "JSON"
    try:
        raw = tomllib.loads(text) if kind == "TOML" else json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid {kind}: {error}", remedy="Fix the file.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} contains no settings", remedy="Write an object of option names and values.")
    return raw


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key given twice JSON itself would silently keep the second value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {repeated!r} is given twice")
    return found


def _flatten(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unknown_key(key: str, known: set[str]) -> str:
    """What is wrong with a key, and the key of clip-har or of the predecessor's files that was probably meant."""
    last = key.rpartition(".")[2].replace("-", "_")
    last = HISTORIC_KEYS.get(last, last)
    candidates = sorted(known | {old for old, new in HISTORIC_KEYS.items() if new in known})
    nearest = [last] if last in known else difflib.get_close_matches(key.replace("-", "_"), candidates, n=1)
    if any(last == item.name for command in _COMMANDS for item in flat_fields(command)) and not nearest:
        return f"{key!r} is not a setting of this command"
    return f"unknown key {key!r}" + (f" (did you mean {nearest[0]!r}?)" if nearest else "")


_COMMANDS = (TrainConfig, EvaluateConfig, CompareConfig)
