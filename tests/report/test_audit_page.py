"""The audit's page: self-contained and escaped, and in a browser one can decide, and download a plan that applies."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from audit.datasets import NO_MODEL, audited, file, fill, jpeg, put, scene
from clip_har.audit.label_errors import LabelDoubt
from clip_har.audit.plan import PLAN_COLUMNS
from clip_har.audit.records import Audit, Check, Finding
from clip_har.commands.audit import apply_cleaning, audit_data
from clip_har.report.audit_page import FILES_SHOWN, audit_page, headline
from report.test_report_page import HOSTILE, Page, assert_accessible, assert_self_contained


def page_of(audit: Audit, load_thumbnail: Any = None) -> Page:
    return Page(
        audit_page(audit, command="clip-har data audit x", versions={"clip-har": "1"}, load_thumbnail=load_thumbnail)
    )


def faulty(root: Path) -> Path:
    """A leak, ten copies of one image, one of them under another class, a cut-off file, a tiny image."""
    fill(root, per_class=4)
    put(root, "train/cycling/leak.jpg", (root / "test/cycling/0.jpg").read_bytes())
    for number in range(9):
        put(root, f"train/running/copy {number}.jpg", (root / "train/running/0.jpg").read_bytes())
    put(root, 'train/cycling/other, "class".jpg', (root / "train/running/0.jpg").read_bytes())
    put(root, "train/running/cut.jpg", jpeg(scene(9))[:-900])
    put(root, "train/running/tiny.jpg", scene(10, (40, 30)))
    return root


def made_up(*findings: Finding, root: Path = Path("/data")) -> Audit:
    """An audit of nothing but these findings' files."""
    files = tuple({f.name: f for finding in findings for f in finding.files}.values())
    return Audit(root=root, files=files, findings=findings, checks=(CHECK,), warnings=(), model="m")


CHECK = Check(name="label_errors", found=1, limit=0)
DOUBT = LabelDoubt(
    index=0,
    given="run",
    given_probability=0.02,
    suggested="sit",
    suggested_probability=0.9,
    top=(("sit", 0.9), ("eat", 0.05), ("run", 0.02)),
)
SUSPECT = Finding(
    kind="label", severity="warning", files=(file("run/a.jpg"),), why="run has probability 0.02", action="", doubt=DOUBT
)


def test_the_page_is_self_contained_and_shows_every_finding(tmp_path: Path) -> None:
    root = faulty(tmp_path / "data")
    out = tmp_path / "audit.html"
    result = audit_data(root, settings=NO_MODEL, html_file=out, command="clip-har data audit data")
    page = Page(out.read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert_accessible(page)
    said = page.text
    assert (
        "29 images: 1 unreadable image, 1 leak, 11 conflicting labels and 10 duplicates above the limit; also " in said
    )
    assert "Labels were not checked, because that requires a model." in said
    for finding in result.findings:
        assert finding.why[1:] in said and finding.action in said
    assert "and 3 more images; --json lists them." in said  # of the eleven copies
    pictured = [image for image in page.of("img") if (image["src"] or "").startswith("data:image/jpeg")]
    assert len(pictured) == 2 + FILES_SHOWN + FILES_SHOWN + 1 == len(page.of("img"))
    # Each image shown has a box and a choice, the unreadable one too.
    paths = [attributes["aria-label"] or "" for attributes in page.of("select")]
    assert len(paths) == len(page.of("img")) + 1 == len(page.of("input"))
    assert "What becomes of train/running/cut.jpg" in paths


def test_clean_data_has_a_page_without_anything_to_decide(tmp_path: Path) -> None:
    page = page_of(audited(fill(tmp_path)))
    assert "12 images: no issues found." in page.text
    assert "There is nothing to review." in page.text and "Download" not in page.text
    assert not page.of("select") and [button["class"] for button in page.of("button")] == ["theme"]


def test_headlines_count_in_words_that_agree() -> None:
    audit = made_up(SUSPECT)
    assert headline(audit) == "1 image: 1 suspected label error above the limit."
    two = replace(audit, checks=(replace(CHECK, found=2), Check(name="leaks", found=1, limit=0)), files=audit.files * 2)
    assert headline(two) == "2 images: 2 suspected label errors and 1 leak above the limit."


def test_the_headline_says_what_was_found_within_its_limit() -> None:
    suspects = replace(CHECK, found=6, limit=None)
    within = replace(made_up(SUSPECT), checks=(suspects, Check(name="leaks", found=0, limit=0)))
    assert headline(within) == "1 image: 6 suspected label errors; nothing is above its limit."
    both = replace(
        within, checks=(suspects, Check(name="leaks", found=1, limit=0), Check(name="odd", found=0, limit=0))
    )
    assert headline(both) == "1 image: 1 leak above the limit; also 6 suspected label errors."


def test_a_suspect_shows_probabilities_and_offers_its_classes() -> None:
    page = page_of(made_up(SUSPECT))
    assert "sit 90\u202f% eat 5\u202f% run given 2\u202f%".replace("\u202f", " ") in page.text.replace("\xa0", " ")
    values = [option["value"] for option in page.of("option")]
    assert values == ["keep", "drop", "relabel:sit", "relabel:eat"]


def test_hostile_names_stay_text() -> None:
    for text in HOSTILE:
        name = f"{text}/a.jpg"
        found = file(f"x/{name}")
        doubt = replace(DOUBT, suggested=text, top=((text, 0.9),))
        audit = made_up(replace(SUSPECT, files=(replace(found, name=name, label=text),), why=text, doubt=doubt))
        page = page_of(replace(audit, warnings=(text,), root=Path("/data") / text.replace("\0", "")))
        assert_self_contained(page)
        assert len(page.of("script")) == 2


def test_what_there_is_no_room_for_is_said() -> None:
    suspects = [replace(SUSPECT, files=(file(f"run/{number}.jpg"),)) for number in range(130)]
    page = page_of(made_up(*suspects))
    assert "The first 100 of 130 are shown; --json lists all." in page.text
    assert len(page.of("select")) == 100


def test_an_image_that_has_become_unreadable_says_so() -> None:
    page = page_of(made_up(SUSPECT), load_thumbnail=lambda _: None)
    assert "cannot be shown" in page.text and not page.of("img")
    page = page_of(made_up(SUSPECT), load_thumbnail=lambda _: Image.new("RGB", (9, 9)))
    assert [image["alt"] for image in page.of("img")] == ["An image of run"]


# In a browser


def test_choices_download_as_a_plan_that_applies(browser: Any, tmp_path: Path) -> None:
    root = faulty(tmp_path / "data")
    out = tmp_path / "audit.html"
    audit_data(root, settings=NO_MODEL, html_file=out)
    faults: list[str] = []
    tab = browser.new_page(viewport={"width": 390, "height": 844}, accept_downloads=True)
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto(out.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390  # nothing sticks out on a telephone

    def choice(name: str) -> Any:
        return tab.get_by_label(f"What becomes of {name}", exact=True)

    def box(name: str) -> Any:
        return tab.get_by_label(f"Decided: {name}", exact=True)

    tally = tab.locator("#tally")
    assert tally.inner_text() == "Tick an image to decide on it."
    other = 'train/cycling/other, "class".jpg'
    assert choice("train/running/cut.jpg").input_value() == "drop"
    box("train/running/cut.jpg").check()
    # Shown as a conflict and as a duplicate: a choice for one is a choice for both, and ticks them.
    assert choice(other).count() == 2
    choice(other).nth(0).select_option("relabel:running")
    assert choice(other).nth(1).input_value() == "relabel:running"
    assert [box(other).nth(place).is_checked() for place in (0, 1)] == [True, True]
    box("train/cycling/leak.jpg").check()
    shown = len(set(tab.locator("select").evaluate_all("all => all.map(one => one.ariaLabel)")))
    assert tally.inner_text() == f"Decided: 2 drop, 1 relabel; of {shown} images shown."

    def downloaded() -> dict[str, dict[str, str]]:
        with tab.expect_download() as waiting:
            tab.get_by_role("button", name="Download plan.csv").click()
        assert waiting.value.suggested_filename == "plan.csv"
        waiting.value.save_as(tmp_path / "plan.csv")
        with (tmp_path / "plan.csv").open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            assert tuple(reader.fieldnames or ()) == PLAN_COLUMNS
            return {row["path"]: row for row in reader}

    rows = downloaded()
    assert {name: (row["action"], row["new_class"]) for name, row in rows.items()} == {
        "train/running/cut.jpg": ("drop", ""),
        "train/cycling/leak.jpg": ("drop", ""),
        other: ("relabel", "running"),
    }
    assert re.fullmatch("[0-9a-f]{64}", rows[other]["sha256"]) and rows[other]["class"] == "cycling"
    assert rows["train/cycling/leak.jpg"]["reason"] == "same file as test/cycling/0.jpg in test"
    cleaned = apply_cleaning(root, tmp_path / "plan.csv", tmp_path / "clean.csv")
    assert cleaned.done == {"drop": 2, "relabel": 1, "keep": 26}

    box(other).nth(1).uncheck()
    assert not box(other).nth(0).is_checked()
    tab.get_by_role("button", name="Tick all as proposed").click()
    assert len(downloaded()) == shown
    assert tab.locator(".group.decided").count() == tab.locator(".group").count()
    assert faults == []
    tab.close()


def test_the_table_of_classes_sorts(browser: Any, tmp_path: Path) -> None:
    root = faulty(tmp_path / "data")
    audit_data(root, settings=NO_MODEL, html_file=tmp_path / "audit.html")
    tab = browser.new_page()
    tab.goto((tmp_path / "audit.html").as_uri())
    first = tab.locator("table.sortable tbody th").first
    assert first.inner_text() == "cycling"
    tab.get_by_role("button", name="Training").click()
    assert first.inner_text() == "running"
    tab.close()
