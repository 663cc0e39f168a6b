"""What the text of a flag or the value of a config key becomes: names, lists and numbers.

The settings themselves are in tree.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from clip_har.config.methods import METHOD_CLASSES

Precision = Literal["auto", "float32", "bfloat16", "float16", "fp16-pure"]
Loss = Literal["cross-entropy", "sigmoid", "supcon", "infonce"]
Placement = Literal["embedding", "attention", "all"]
Features = Literal["embedding", "pre-projection"]
Augment = Literal["none", "light", "strong"]
Budget = Literal["full", "small", "seconds", "minutes", "hours"]
AutoBudget = Literal["seconds", "minutes", "hours"]
HeldOut = Literal["val", "test"]
ExportFormat = Literal["onnx", "onnx-int8", "openclip", "transformers", "peft", "hub", "web", "web-int8"]
HarSource = Literal["kaggle", "kaggle-structured", "hub"]
"""Where HAR is fetched from (download/har.py)."""
PredictionFormat = Literal["table", "text", "jsonl", "csv"]
PlaneMethod = Literal["auto", "pca", "umap", "none"]
CORRUPTION_KINDS = (
    "gaussian-noise",
    "gaussian-blur",
    "brightness",
    "contrast",
    "jpeg",
    "pixelate",
    "rotation",
    "occlusion",
)
"""What `evaluate --robustness` does to images (images/corruptions.py)."""
PRESET_FOLDER = Path(__file__).parent.parent / "presets"


def _whole_number(_type: object, tokens: Sequence[Any]) -> int:
    """ "15" and "15.0" -> 15; 1.5 is refused, where cyclopts would round it."""
    text, source = tokens[0].value, tokens[0].source
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        if float(text).is_integer():
            return int(float(text))
    place = f" (in {source})" if source not in ("", "cli") else ""
    raise ValueError(f'unable to convert "{text}" into int, a whole number{place}')


WholeNumber = Annotated[int, Parameter(converter=_whole_number)]


def _one_method(_type: object, tokens: Sequence[Any]) -> str:
    return known_method(tokens[0].value.strip())


def _one_preset(_type: object, tokens: Sequence[Any]) -> str:
    name = str(tokens[0].value.strip())
    if name not in preset_names():
        raise ValueError(_nearest("preset", name, preset_names()))
    return name


def _method_names(_type: object, tokens: Sequence[Any]) -> tuple[str, ...]:
    """ "a,b" or several values -> names of methods or presets."""
    names = tuple(known_method(name) for name in _listed(tokens))
    if not names:
        raise ValueError("no method is given")
    return names


def _seeds(_type: object, tokens: Sequence[Any]) -> tuple[int, ...]:
    """ "0,1,2" or several values -> seeds."""
    try:
        return tuple(int(text) for text in _listed(tokens))
    except ValueError as error:
        raise ValueError("seeds are whole numbers separated by commas") from error


def _shots(_type: object, tokens: Sequence[Any]) -> int | tuple[int, ...]:
    """ "16" -> 16; "1,2,4" or several values -> numbers of images per class."""
    try:
        numbers = tuple(int(text) for text in _listed(tokens))
    except ValueError as error:
        raise ValueError("shots are whole numbers separated by commas, such as 1,2,4,8,16") from error
    if not numbers:
        raise ValueError("no number of shots is given")
    return numbers[0] if len(numbers) == 1 else numbers


def _betas(_type: object, tokens: Sequence[Any]) -> tuple[float, ...]:
    """ "0.9,0.98" or two values -> AdamW's betas."""
    try:
        return tuple(float(text) for text in _listed(tokens))
    except ValueError as error:
        raise ValueError("betas are two numbers separated by a comma, such as 0.9,0.98") from error


def _set_aside(_type: object, tokens: Sequence[Any]) -> tuple[HeldOut, ...]:
    """ "test", "val" or "test,val" -> these splits."""
    known: dict[str, HeldOut] = {"val": "val", "test": "test"}
    names = dict.fromkeys(_listed(tokens))
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"{strange[0]!r} cannot be ignored: choose from test and val")
    return tuple(known[name] for name in names)


def _corruptions(_type: object, tokens: Sequence[Any]) -> tuple[str, ...]:
    """ "noise,jpeg" or several values -> kinds of corruption."""
    kinds = tuple(dict.fromkeys(_listed(tokens)))
    for kind in kinds:
        if kind not in CORRUPTION_KINDS:
            raise ValueError(_nearest("corruption", kind, CORRUPTION_KINDS))
    return kinds


def _severities(_type: object, tokens: Sequence[Any]) -> tuple[int, ...]:
    """ "1,3,5" or several values -> severities."""
    given = tuple(dict.fromkeys(_listed(tokens)))
    if not given or any(text not in {"1", "2", "3", "4", "5"} for text in given):
        raise ValueError("severities are whole numbers from 1 to 5, separated by commas")
    return tuple(int(text) for text in given)


def _batch_size(type_: object, tokens: Sequence[Any]) -> int | str:
    return "auto" if tokens[0].value == "auto" else _whole_number(type_, tokens)


def _listed(tokens: Sequence[Any]) -> list[str]:
    return [part.strip() for token in tokens for part in str(token.value).split(",") if part.strip()]


def known_method(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: neither a method nor a preset is called so.
    """
    known = (*METHOD_CLASSES, *preset_names())
    if name not in known:
        raise ValueError(_nearest("method", name, tuple(dict.fromkeys(known))))
    return name


def preset_names() -> tuple[str, ...]:
    """The presets that the package brings."""
    return tuple(sorted(path.stem for path in PRESET_FOLDER.glob("*.toml")))


def _nearest(kind: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
    return f"unknown {kind} {name!r}: {hint}"


_PRESETS_TEXT = ", ".join(name for name in preset_names() if name not in METHOD_CLASSES)
SetAside = Annotated[tuple[HeldOut, ...], Parameter(converter=_set_aside)]


def _names(_type: object, tokens: Sequence[Any]) -> tuple[str, ...]:
    """ "a,b" or several values -> names."""
    return tuple(dict.fromkeys(_listed(tokens)))


Names = Annotated[tuple[str, ...], Parameter(converter=_names)]
MethodNames = Annotated[
    tuple[str, ...],
    Parameter(
        converter=_method_names,
        help=f"Methods and presets to compare, separated by commas: {', '.join(METHOD_CLASSES)}; {_PRESETS_TEXT}. "
        "Settings given here hold for all of them.",
    ),
]
MethodName = Annotated[
    str,
    Parameter(
        converter=_one_method,
        help=f"How the pretrained model is adapted: {', '.join(METHOD_CLASSES)}; or a preset: {_PRESETS_TEXT}. "
        "docs/methods/index.md compares them.",
    ),
]
PresetName = Annotated[str, Parameter(converter=_one_preset)]
Seeds = Annotated[tuple[int, ...], Parameter(converter=_seeds, alias="--seed")]
Shots = Annotated[int | tuple[int, ...], Parameter(converter=_shots)]
Betas = Annotated[tuple[float, ...], Parameter(converter=_betas)]
Corruptions = Annotated[tuple[str, ...], Parameter(converter=_corruptions)]
Severities = Annotated[tuple[int, ...], Parameter(converter=_severities)]
BatchSize = Annotated[int | Literal["auto"], Parameter(converter=_batch_size)]
