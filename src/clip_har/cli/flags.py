"""What is wrong with a command line, as one line; which commands there are is in app.py and data.py."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
import textwrap
from collections.abc import Mapping, Sequence

import cyclopts
from cyclopts import App

from clip_har.config import (
    AuditConfig,
    CleanConfig,
    CompareConfig,
    EmbedConfig,
    EvaluateConfig,
    ExplainConfig,
    ExportConfig,
    FetchConfig,
    ImportConfig,
    ModelsConfig,
    PredictConfig,
    PromptsConfig,
    QuickstartConfig,
    ServeConfig,
    SplitConfig,
    SweepConfig,
    TrainConfig,
    VerifyConfig,
    VideoConfig,
    flat_fields,
)
from clip_har.errors import UserError

MESSAGE_LENGTH = 1000
CONFIG_TYPES: Mapping[tuple[str, ...], type] = {
    ("quickstart",): QuickstartConfig,
    ("train",): TrainConfig,
    ("evaluate",): EvaluateConfig,
    ("compare",): CompareConfig,
    ("sweep",): SweepConfig,
    ("prompts",): PromptsConfig,
    ("models",): ModelsConfig,
    ("explain",): ExplainConfig,
    ("predict",): PredictConfig,
    ("video",): VideoConfig,
    ("embed",): EmbedConfig,
    ("serve",): ServeConfig,
    ("import",): ImportConfig,
    ("export",): ExportConfig,
    ("data", "fetch"): FetchConfig,
    ("data", "audit"): AuditConfig,
    ("data", "clean"): CleanConfig,
    ("data", "split"): SplitConfig,
    ("data", "verify"): VerifyConfig,
}
"""Words of a command -> what its flags and its --config fill."""


def value_of(tokens: Sequence[str], flag: str) -> str | None:
    """The value that a command line gives a flag, None if it does not."""
    for index, token in enumerate(tokens):
        if token == flag and index + 1 < len(tokens):
            return tokens[index + 1]
        if token.startswith(f"{flag}="):
            return token.partition("=")[2]
    return None


def refuse_empty(tokens: Sequence[str]) -> None:
    """An empty value mostly comes from a shell variable that is not set, and would mean the working directory."""
    for before, token in zip(("", *tokens), tokens, strict=False):
        if not token.strip() or (token.startswith("--") and token.endswith("=")):
            flag = token.rstrip("=") or (before if before.startswith("--") else "An argument")
            raise UserError(f"{flag} is empty", remedy="Give a value, or remove it.")


def flag_problem(error: cyclopts.CycloptsError, tokens: Sequence[str], app: App) -> str:
    """What cyclopts found wrong, as one line; a misspelt flag before the required one it hides."""
    words = command_words(tokens, app)
    command = " ".join(words)
    if isinstance(error, cyclopts.UnknownOptionError) and words == ("predict",) and (flag := _flag_of_videos(tokens)):
        return f"{flag} is for videos. Run: {shlex.join([*app.name, 'video', *tokens[1:]])}"
    what = textwrap.shorten(str(error), MESSAGE_LENGTH, placeholder=" ...").rstrip(".")
    if isinstance(error, cyclopts.UnknownCommandError) and error.unused_tokens:
        what = _unknown_command(error.unused_tokens[0], app[words[0]] if words else app)
    if isinstance(error, cyclopts.MissingArgumentError) and words in CONFIG_TYPES:
        config_type = CONFIG_TYPES[words]
        what = _unknown_flag(tokens, config_type) or ("--data is needed" if _needs_data(config_type) else what)
    ending = "" if what.endswith("?") else "."
    return f"{what}{ending} See {' '.join([*app.name, command]).strip()} --help."


def command_words(tokens: Sequence[str], app: App) -> tuple[str, ...]:
    """The words that name a command, such as data and audit."""
    words: list[str] = []
    for token in tokens:
        if token.startswith("-") or token not in set(app):
            break
        words.append(token)
        app = app[token]
    return tuple(words)


def _needs_data(config_type: type) -> bool:
    return any(str(item.type) == "DataConfig" for item in dataclasses.fields(config_type))


def _flag_of_videos(tokens: Sequence[str]) -> str | None:
    """The first flag that `video` has and `predict` has not."""
    own, other = ({field.name for field in flat_fields(kind)} for kind in (VideoConfig, PredictConfig))
    flags = [token.partition("=")[0] for token in tokens if token.startswith("--")]
    return next((flag for flag in flags if flag[2:].replace("-", "_") in own - other), None)


def _unknown_command(token: str, app: App) -> str:
    """The command that was probably meant, and all commands, of which cyclopts lists eight."""
    known = [name for name in app if not name.startswith("-")]
    near = difflib.get_close_matches(token, known, n=1)
    meant = f'Did you mean "{near[0]}"? ' if near else ""
    return f'Unknown command "{token}". {meant}Available commands: {", ".join(known)}'


def _unknown_flag(tokens: Sequence[str], config_type: type) -> str | None:
    known = [field.name.replace("_", "-") for field in flat_fields(config_type)] + ["config"]
    for token in tokens:
        flag = token.partition("=")[0].replace("_", "-").removeprefix("--")
        if token.startswith("--") and flag.removeprefix("no-") not in known:
            near = difflib.get_close_matches(flag, known, n=1)
            return f"Unknown option --{flag}" + (f". Did you mean --{near[0]}?" if near else "")
    return None
