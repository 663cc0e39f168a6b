"""What pages that predict photos share: a style sheet and two scripts, for the service and for an export for the web.

The pages themselves are in serving/page and exporting/web_page.
"""

from __future__ import annotations

from pathlib import Path

from clip_har.report.html import environment

SCRIPTS = ("answer.js", "photos.js")
_HERE = Path(__file__).parent


def style_sheet(own: str) -> str:
    """The style sheet of a page: what reports share, what these pages share, and the page's own rules."""
    return environment().get_template("style.css.j2").render() + _text("page.css") + own


def scripts() -> dict[str, str]:
    """Name -> content of the scripts that the pages import."""
    return {name: _text(name) for name in SCRIPTS}


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
