"""The parts of the documentation that are written from the code: commands, options, config keys, presets, names.

A page says where with `<!-- generated: NAME -->` and `<!-- end -->`; refresh_docs.py fills what is between. Not here:
the shown output of commands, which is in docs_commands.py.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
from cyclopts import App

from clip_har.cli.app import app
from clip_har.cli.flags import CONFIG_TYPES
from clip_har.config import METHOD_NAMES, TrainConfig, load_config_file, preset_names
from clip_har.config.converters import PRESET_FOLDER
from clip_har.config.ranges import range_of
from clip_har.config.settings import SETTINGS_OF
from clip_har.evaluation import SCALARS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
REGION = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
DEFAULT_IN_TEXT = re.compile(r"\s*Default: (.+)\.$")
KINDS: Mapping[Any, str] = {Path: "path", str: "text", int: "integer", float: "number", bool: "true or false"}


# Markdown


def cell(text: str) -> str:
    """A plain text as the cell of a table: flags, files and values as code, pages of docs/ as links."""
    text = " ".join(text.split())
    for mark in ("\\", "*", "_", "<", "|"):
        text = text.replace(mark, f"\\{mark}" if mark != "<" else "&lt;")
    text = re.sub(r"(?<![\w-])--[a-z][\w-]*", r"`\g<0>`", text)
    text = re.sub(r"(?<![\w`])(?:\$[A-Z\\_]+|~/[\w./-]+|\{[^}]*\})", _code, text)
    return re.sub(r"\bdocs/([\w/-]+\.md)", _page_link, text)


def _code(match: re.Match[str]) -> str:
    return "`" + match[0].replace("\\", "") + "`"


def _page_link(match: re.Match[str]) -> str:
    return f"[{match[0]}](../{match[1]})"


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(row) for row in (header, ("---",) * len(header), *rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


# Types and values


def kind_of(hint: Any) -> str:
    """A type in words: "integer", "path", "list of text", "`light` or `strong`"."""
    if get_origin(hint) is Annotated:
        return kind_of(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        parts = [kind_of(part) for part in get_args(hint) if part is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is tuple:
        return f"list of {kind_of(get_args(hint)[0])}"
    return KINDS.get(hint, getattr(hint, "__name__", str(hint)))


def shown(value: Any) -> str:
    """A default as one would type it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_and_help(default: Any, text: str) -> tuple[str, str]:
    """The default, which a help text gives where no value is the same for all, and the rest of the text."""
    text = " ".join(text.split())
    found = DEFAULT_IN_TEXT.search(text)
    if found:
        return cell(found[1]), cell(text[: found.start()])
    empty = default is None or default is inspect.Parameter.empty or default == ()
    return ("" if empty else f"`{shown(default)}`"), cell(text)


# The command line


def commands(of: App = app, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """The words and the app of every command, groups of commands before their commands."""
    for name in of:
        if not name.startswith("-"):
            yield (*words, name), of[name]
            if of[name].default_command is None:
                yield from commands(of[name], (*words, name))


def command_list() -> str:
    """A table of all commands."""
    rows = []
    for words, command in commands():
        name = " ".join(("clip-har", *words))
        rows.append((f"[`{name}`](#{name.replace(' ', '-')})", cell(_described(command)[0])))
    return table(("command", "purpose"), rows)


def command_reference() -> str:
    """A section per command: purpose, example, arguments and options."""
    return "\n".join(_command_section(words, command) for words, command in commands())


def _command_section(words: tuple[str, ...], command: App) -> str:
    level, name = "#" * (len(words) + 1), " ".join(("clip-har", *words))
    summary, more, example = _described(command)
    parts = [f"{level} {name}", cell(summary)]
    if command.default_command is not None:
        parts += [f"```text\n{_usage(name, command)}\n```", *map(cell, more)]
        if example:
            parts.append(f"Example:\n\n```sh\n{example}\n```")
        parts += _option_tables(command)
    return "\n\n".join(parts) + "\n"


def _described(command: App) -> tuple[str, list[str], str]:
    """Summary, further paragraphs and example of a command's docstring."""
    text = inspect.cleandoc(command.help or "")
    parsed = docstring_parser.parse(text)
    paragraphs = [part.strip() for part in (parsed.long_description or "").split("\n\n")]
    after = re.split(r"\nArgs:\n(?:[ ]+[^\n]*\n|\n(?=[ ]))*", text + "\n")[1:]
    paragraphs += [part.strip() for part in after if part.strip()]
    examples = [part.removeprefix("Example:") for part in paragraphs if part.startswith("Example:")]
    lines = [line.strip() for part in examples for line in part.splitlines()]
    return parsed.short_description or "", [p for p in paragraphs if p and "Example:" not in p], "\n".join(lines)


def _arguments(command: App) -> list[Any]:
    return [argument for argument in command.assemble_argument_collection(parse_docstring=True) if argument.show]


def _usage(name: str, command: App) -> str:
    words = [name]
    for argument in _arguments(command):
        if argument.is_var_positional():
            words.append(f"[{argument.name}...]")
        elif argument.is_positional_only():
            words.append(argument.name)
        elif argument.required:
            words.append(f"{argument.name} {kind_of(argument.hint).upper().replace('`', '')}")
    return " ".join([*words, "[OPTIONS]"])


def _option_tables(command: App) -> Iterator[str]:
    """A table of the arguments, and one of the options of each group as `--help` shows them."""
    groups: dict[Any, list[Any]] = {}
    for argument in _arguments(command):
        groups.setdefault(argument.parameter.group[0], []).append(argument)
    own = [group for group in groups if not isinstance(group.sort_key, int)]
    for group in [*own, *sorted(groups.keys() - set(own), key=lambda group: group.sort_key)]:
        title = {"Parameters": "Options"}.get(group.name, group.name)
        rows = [_option_row(argument) for argument in groups[group]]
        if title == "Arguments":
            yield f"**{title}**\n\n" + table(("argument", "type", "description"), [(r[0], r[1], r[3]) for r in rows])
        else:
            yield f"**{title}**\n\n" + table(("option", "type", "default", "description"), rows)


def _option_row(argument: Any) -> tuple[str, ...]:
    negatives = [name for name in argument.negatives if not name.startswith("--empty-")]  # app.py turns those off
    names = ", ".join(f"`{name}`" for name in (*argument.positives, *negatives) or argument.names)
    if argument.is_positional_only():
        names = f"`{argument.name}`"
    default, text = default_and_help(argument.field_info.default, argument.parameter.help or "")
    if argument.is_flag():
        default = {"`true`": "yes", "`false`": "no"}.get(default, default)
    kind = "" if argument.is_flag() else kind_of(argument.hint)
    return names, kind, "required" if argument.required else default, text


# Config files


def config_keys() -> str:
    """A section per group of keys, then one per command with its own keys and the groups that it reads."""
    groups: dict[str, type] = {}
    sections = []
    for words, config_type in CONFIG_TYPES.items():
        own, used = [], []
        for item in dataclasses.fields(config_type):
            group = _group_of(config_type, item)
            if group is None:
                own.append(item)
            else:
                title = _title(group)
                groups[title] = group
                used.append(f"[{title}](#{_anchor(title)})")
        text = f"### Keys of {' '.join(words)}\n\n"
        if own:
            text += _key_table(config_type, own)
        if used:
            text += f"\n{'Also' if own else 'Only'} the keys of: {', '.join(used)}.\n"
        sections.append(text)
    shared = [f"### {title}\n\n" + _key_table(group) for title, group in groups.items()]
    return "\n".join(["## Groups of keys\n", *shared, "## Keys by command\n", *sections])


def _group_of(config_type: type, item: dataclasses.Field[Any]) -> type | None:
    hint = get_type_hints(config_type)[item.name]
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((kind for kind in options if dataclasses.is_dataclass(kind) and isinstance(kind, type)), None)


def _title(group: type) -> str:
    """The heading of a group: that of `--help`, or the name of its dataclass."""
    special = {"RunModelConfig": "Pretrained model of a run", "AuditSettings": "Audit", "AuditLimits": "Audit limits"}
    known = getattr(group, "__cyclopts__", None)
    groups = () if known is None else getattr(known.parameters[0], "group", None) or ()
    names = [one.name for one in groups] if isinstance(groups, tuple) else [groups.name]
    return special.get(group.__name__) or (names[0] if names else group.__name__)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-")


def _key_table(config_type: type, items: list[dataclasses.Field[Any]] | None = None) -> str:
    hints = get_type_hints(config_type, include_extras=True)
    filled = {item.name: item for item in dataclasses.fields(SETTINGS_OF.get(config_type, config_type))}
    texts = _help_texts(config_type)
    rows = []
    for item in dataclasses.fields(config_type) if items is None else items:
        allowed = range_of(filled[item.name])
        default = item.default if item.default is not dataclasses.MISSING else None
        required = default is None and item.default is dataclasses.MISSING
        shown_default, text = default_and_help(default, texts[item.name])
        if allowed is not None:
            text = re.sub(r" (?:In [\[(][^ ]*, [^ ]*[\])]|At least \d+)\.", "", text)
        kind = kind_of(hints[item.name])
        shown_default = (
            re.sub(r"^no\b", "false", re.sub(r"^yes\b", "true", shown_default)) if kind in _BOOLEAN else shown_default
        )
        limits = allowed.text if allowed is not None else ""
        rows.append((f"`{item.name}`", kind, "required" if required else shown_default, limits, text))
    return table(("key", "type", "default", "allowed", "description"), rows)


_BOOLEAN = {KINDS[bool]}


def _help_texts(config_type: type) -> dict[str, str]:
    """Name of a field -> its help text, of the annotation or of the docstring below the field."""
    texts = {item.arg_name: item.description or "" for item in docstring_parser.parse_from_object(config_type).params}
    for name, hint in get_type_hints(config_type, include_extras=True).items():
        given = [extra.help for extra in getattr(hint, "__metadata__", ()) if getattr(extra, "help", None)]
        if given:
            texts[name] = given[0]
    return texts


def presets() -> str:
    """A table of the presets and what each sets."""
    rows = []
    for name in preset_names():
        file = PRESET_FOLDER / f"{name}.toml"
        purpose = file.read_text(encoding="utf-8").split("# clip-har train")[0].replace("# ", "")
        values = load_config_file(file, TrainConfig)
        listed = ", ".join(f"`{key} = {json.dumps(value)}`" for key, value in values.items())
        rows.append((f"`{name}`", cell(purpose), listed))
    return table(("preset", "purpose", "settings"), rows)


def methods() -> str:
    """The names that `method` takes."""
    return ", ".join(f"`{name}`" for name in METHOD_NAMES) + ".\n"


def metrics() -> str:
    """The names that results.json gives the metrics that are one number."""
    return ", ".join(f"`{name}`" for name in SCALARS) + ".\n"


# Installation

EXTRAS = {
    "audit": "likely label errors in `clip-har data audit`",
    "parquet": "`clip-har embed`, Parquet and Arrow datasets, Parquet predictions, and the `hub` source of HAR",
    "kaggle": "HAR from Kaggle (`clip-har data fetch har`)",
    "heic": "HEIC and HEIF photos, as iPhones take them",
    "explain": "UMAP for embedding maps; without it, PCA is used",
    "serve": "`clip-har serve`: a page and an API for a run",
    "export": "`clip-har export` to ONNX or a web page",
    "video": "videos and cameras: `clip-har video`",
    "sweep": "`clip-har sweep`: a search for hyperparameters",
    "ray": "`clip-har embed`, `predict` and `sweep` with `--engine ray`",
    "remote": "images behind `s3://`, `hf://` and `https://` URLs, for `embed` and `predict`",
    "faiss": "faster `clip-har data audit` above 200,000 images",
    "tracking": "TensorBoard and Weights & Biases logs (`--tensorboard`, `--wandb`)",
    "docs": "this documentation as a site: `make docs`",
    "dev": "all of the above, and the tools for tests and checks",
}
"""Extra of pyproject.toml -> what a user gets."""


def extras() -> str:
    """A table of the extras, with the packages that pyproject.toml lists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = []
    for name, requirements in project["optional-dependencies"].items():
        packages = [re.split(r"[><=!;\[ ]", requirement)[0] for requirement in requirements]
        listed = ", ".join(package for package in packages if package != "clip-har") if name != "dev" else ""
        rows.append((f"`{name}`", EXTRAS[name], listed))
    return table(("extra", "adds", "packages"), rows)


def requirements() -> str:
    """What an installation without extras needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = project["requires-python"].removeprefix(">=")
    least = dict(re.findall(r"^(torch|torchvision)>=([\d.]+)$", "\n".join(project["dependencies"]), re.MULTILINE))
    return (
        f"* Python {python} or later\n"
        f"* PyTorch {least['torch']} or later, and torchvision {least['torchvision']} or later; pip installs both\n"
    )


GENERATED: Mapping[str, Callable[[], str]] = {
    "commands": command_list,
    "command-reference": command_reference,
    "config-keys": config_keys,
    "presets": presets,
    "methods": methods,
    "metrics": metrics,
    "extras": extras,
    "requirements": requirements,
}
"""Name in a page -> what writes the region."""


def with_generated_regions(text: str) -> str:
    """A page's text with its generated regions written again.

    Raises:
        KeyError: a region's name is not among `GENERATED`.
    """
    return REGION.sub(lambda match: f"{match[1]}\n{GENERATED[match[2]]()}\n{match[4]}", text)
