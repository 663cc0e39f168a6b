"""How the plots look, and a matplotlib figure -> PNG bytes and an SVG that follows the page's colours.

Which data a plot shows is decided in `plots`.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#1c2128"
MUTED = "#5b6470"
GRID = "#d9dee4"
ACCENT = "#2a6fbb"
BASELINE = "#868e99"
WRONG = "#c8500a"
# Blue and vermilion stay apart in all common forms of colour blindness (Okabe & Ito 2008).
HEAT_RIGHT = "#1f5fa8"
HEAT_WRONG = "#d55e00"
ON_HEAT = "#fffffe"

CSS_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    ACCENT: "var(--accent)",
    BASELINE: "var(--baseline)",
    WRONG: "var(--wrong)",
}
"""The plots' colours on a light ground, and the CSS variables that stand for them in the SVG."""

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    # A class may be called "$x_": text is text, never a formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "clip-har",
}
PNG_DPI = 160
CSS_PIXELS_PER_INCH = 96


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One finished plot, as a file and as a part of a page."""

    png: bytes
    svg: str
    """An <svg> element without namespaces, ids unique to the plot, colours as CSS variables, text as text; empty where
    no page shows the plot."""
    width: int
    """Width at which the SVG's text has its intended size, in CSS pixels."""
    description: str
    """What the plot shows, in words, for those who do not see it."""


def render(draw: Callable[[], Figure], *, name: str, title: str, description: str, for_page: bool = True) -> Plot:
    """Draws a figure under the project's style and renders it twice.

    Args:
        draw: makes the figure; called once, under the style.
        name: prefix of the ids in the SVG, unique on the page.
        title: stands above the PNG; in a page, the heading takes its place.
        description: alternative text.
        for_page: False where a page shows the same in another form; there is no SVG then.
    """
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        # Class names in scripts that the font lacks show as boxes in the PNG, and properly in the page.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = draw()
        FigureCanvasAgg(figure)
        heading = figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None}, facecolor="white")
        if not for_page:
            return Plot(png=png.getvalue(), svg="", width=0, description=description)
        heading.remove()
        figure._suptitle = None  # type: ignore[attr-defined]
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(svg, format="svg", metadata=no_metadata, facecolor="none", edgecolor="none")
    return Plot(
        png=png.getvalue(),
        svg=page_svg(svg.getvalue(), name=name, description=description),
        width=round(figure.get_figwidth() * CSS_PIXELS_PER_INCH),
        description=description,
    )


def page_svg(svg: bytes, *, name: str, description: str) -> str:
    """matplotlib's SVG file -> an <svg> element to put into an HTML page.

    Namespaces, sizes and unused ids go; ids get the plot's name in front; colours become CSS variables.
    """
    root = ElementTree.fromstring(svg)
    referenced = set(re.findall(rb"#([\w-]+)", svg))
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        if attributes.get("id", "").encode() not in referenced:
            attributes.pop("id", None)
        element.attrib = {key: _page_value(key, value, name) for key, value in attributes.items()}
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
        for child in list(element):
            # A <style> would apply to the whole page, whose own style sheet has what is needed of it.
            if _local(child.tag) in {"metadata", "style"}:
                element.remove(child)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _page_value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    value = re.sub(r"font-family: [^;]*(;|$)", "", value)
    value = re.sub(r"url\(#([\w-]+)\)", rf"url(#{name}-\1)", value)
    for colour, variable in CSS_VARIABLES.items():
        value = value.replace(colour, variable)
    return value
