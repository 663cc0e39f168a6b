"""Numbers and names as people read them: percentages with intervals, sizes, durations, p-values, labels.

No layout: tables, plots, pages, the terminal and messages all use these functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clip_har.shown_text import shown

NARROW_SPACE = "\u202f"
MINUS = "\u2212"
SIGNIFICANT_BELOW = 0.05
METHOD_NAMES = {
    "linear-probe": "linear probe",
    "lora": "LoRA",
    "lp-ft": "LP-FT",
    "wise-ft": "WiSE-FT",
    "coop": "CoOp",
    "clip-adapter": "CLIP-Adapter",
    "tip-adapter": "Tip-Adapter",
    "proker": "ProKeR",
    "clap": "CLAP",
    "prolip": "ProLIP",
}
"""Methods as their papers spell them."""
_KNOWN_NAMES = re.compile(rf"\b({'|'.join(METHOD_NAMES)})\b", flags=re.IGNORECASE)


UNSURE, UNKNOWN = "unsure", "none of these"
"""What stands in place of an action that is withheld."""


def withheld(*, unsure: bool, unknown: bool) -> str:
    """What stands in place of an action; "" if it is not withheld."""
    return UNKNOWN if unknown else UNSURE if unsure else ""


def percent(fraction: float, digits: int = 1) -> str:
    """0.7123 -> "71.2 %", with a narrow no-break space."""
    return f"{100 * fraction:.{digits}f}{NARROW_SPACE}%"


def share(fraction: float) -> str:
    """0.000217 -> "0.022 %"; 1.0 -> "100 %": two digits that are not zeros, for fractions of any size."""
    value = 100 * fraction
    return f"{value:.0f}{NARROW_SPACE}%" if value >= 10 else f"{value:.2g}{NARROW_SPACE}%"


def percent_interval(interval: tuple[float, float]) -> str:
    """(0.68, 0.744) -> "68.0 to 74.4 %"."""
    return f"{100 * interval[0]:.1f} to {percent(interval[1])}"


def spread(fraction: float | None, digits: int = 1) -> str:
    """A standard deviation over seeds as percentage points: 0.0042 -> "± 0.4"; nothing for a single seed."""
    return "" if fraction is None else f"± {100 * fraction:.{digits}f}"


def points(difference: float) -> str:
    """0.365 -> "+36.5": a difference of two fractions in percentage points."""
    return signed(100 * difference, 1)


def signed(value: float, digits: int) -> str:
    """A number that always has its sign, unless it rounds to zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def p_value(p: float) -> str:
    """0.0001 -> "p < 0.001"; 0.0312 -> "p = 0.031"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def size(count_bytes: float, largest: float | None = None) -> str:
    """1_610_612_736 -> "1.5 GiB": as memory is measured.

    Args:
        count_bytes: the size.
        largest: the largest size of a column, whose unit all its cells then share.
    """
    reference = count_bytes if largest is None else largest
    for unit in ("B", "KiB", "MiB"):
        if reference < 1024:
            return f"{count_bytes:.0f} {unit}"
        count_bytes, reference = count_bytes / 1024, reference / 1024
    return f"{count_bytes:.1f} GiB" if count_bytes >= 1 or not count_bytes else f"{count_bytes:.2g} GiB"


def file_size(count_bytes: int) -> str:
    """1_500_000_000 -> "1.5 GB": as files, disks and downloads are measured."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count_bytes >= scale:
            return f"{count_bytes / scale:.1f} {unit}"
    return f"{count_bytes} bytes"


def duration(seconds: float) -> str:
    """0.42 -> "0.4 s"; 75 -> "1 min 15 s"; 7260 -> "2 h 1 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def number(value: float) -> str:
    """For CSV files: at most six significant digits, no exponent for whole numbers, no locale."""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def thousands(count: int) -> str:
    """32769 -> "32,769"."""
    return f"{count:,}"


def counted(count: int, noun: str) -> str:
    """(1, "epoch") -> "1 epoch"; (2700, "image") -> "2,700 images"."""
    return f"{thousands(count)} {noun}{'' if count == 1 else 's'}"


def method_label(name: str) -> str:
    """A method's name as it is written in prose: "lora" -> "LoRA", "linear-probe" -> "linear probe"; others stand."""
    return _KNOWN_NAMES.sub(lambda match: METHOD_NAMES[match[0].lower()], one_line(name))


def model_labels(names: Sequence[str]) -> dict[str, str]:
    """Models' names without the folders that lead to them: "local-dir:/a/b/c" -> "b/c"; in full where two are alike."""
    short = {name: one_line("+".join(map(_without_folders, name.split("+")))) for name in names}
    labels = list(short.values())
    return {name: label if labels.count(label) == 1 else one_line(name) for name, label in short.items()}


def _without_folders(name: str) -> str:
    kind, _, place = name.partition(":")
    parts = [part for part in re.split(r"[\\/]", place or name) if part not in ("", ".")]
    if kind == "local-dir":
        return "/".join(parts[-2:]) or name
    if kind == "hf-hub":
        return place or name
    if place:
        return f"{kind}:{parts[-1]}" if parts else name
    return parts[-1] if len(parts) > 2 or name.startswith(("/", ".")) else name


def sentence_start(text: str) -> str:
    """The text with its first letter raised, for the head of a sentence."""
    return text[:1].upper() + text[1:]


def is_baseline(name: str) -> bool:
    """Whether this is the name of the zero-shot model, in any of the usual spellings."""
    return re.sub(r"[-_ ]", "", name.casefold()) == "zeroshot"


def one_line(text: str) -> str:
    """A name from outside on one line: what would act on the page or the terminal is written out."""
    return shown(re.sub(r"[\n\r\t]+", " ", text).strip())


def shortened(text: str, length: int) -> str:
    """At most `length` characters on one line, the middle omitted where there are more."""
    line = one_line(text)
    if len(line) <= length:
        return line
    head = length // 2
    tail = length - 1 - head
    return f"{line[:head].rstrip()}…{line[len(line) - tail :].lstrip()}"
