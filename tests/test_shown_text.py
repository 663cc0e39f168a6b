"""Text from outside never acts on a terminal or a page, and ordinary text of any script stays as it is."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from clip_har.console import Output
from clip_har.console.table import ShownTable
from clip_har.errors import DataError
from clip_har.report.html import environment
from clip_har.shown_text import shown, shown_json, shown_lines

HOSTILE = "a\x1b]0;owned\x07\x9b31m\u202egpj\u2066\u200b\ufeff\u2028\udc80\n"
ESCAPED = r"a\x1b]0;owned\x07\x9b31m\u202egpj\u2066\u200b\ufeff\u2028\udc80\n"


def test_what_would_act_is_written_out() -> None:
    assert shown(HOSTILE) == ESCAPED
    assert shown_lines("one\n\ttwo\x1b") == "one\n\ttwo\\x1b"


@pytest.mark.parametrize(
    "name",
    [
        "run ning",
        "跑步",
        "café",
        "e\u0301t",
        "👨\u200d👩\u200d👧",
        "جري",
        "ריצה",
        "می\u200cدود",
        "🏃🏽",
        "[red]",
        "\\x1b",
    ],
)
def test_ordinary_text_stays(name: str) -> None:
    assert shown(name) == name


def test_joiners_that_hide_in_plain_letters_are_written_out() -> None:
    assert shown("run\u200dning") == r"run\u200dning"


def test_json_keeps_its_meaning() -> None:
    text = shown_json(json.dumps({"name": HOSTILE}, ensure_ascii=False, indent=2))
    assert json.loads(text) == {"name": HOSTILE}
    assert shown_lines(text) == text


def test_errors_show_hostile_names_escaped() -> None:
    assert str(DataError("No \x1b[2Jfile", remedy="Check \u202ethis.")) == r"No \x1b[2Jfile. Check \u202ethis."


def test_tables_and_lines_show_hostile_names_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Output().line(HOSTILE)
    assert capsys.readouterr().out == f"{ESCAPED}\n"
    table = ShownTable(title=f"t{HOSTILE}")
    table.add_column(f"h{HOSTILE}", no_wrap=True)
    table.add_row(f"c{HOSTILE}")
    stream = io.StringIO()
    Console(file=stream, width=200).print(table)
    assert all(f"{mark}{ESCAPED}" in stream.getvalue() for mark in "thc")


def test_pages_show_hostile_names_escaped_and_keep_markup() -> None:
    template = environment().from_string("{{ name }}|{{ name | breakable }}|{{ name | unbroken }}|{{ '<b>' | safe }}")
    assert template.render(name="<\x1b\u202e>").replace("<wbr>", "") == "|".join([r"&lt;\x1b\u202e&gt;"] * 3) + "|<b>"
