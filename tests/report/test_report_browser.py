"""The pages in headless Chromium: no error, and sorting, click-through, keyboard, themes and print work.

Skipped where there is no Chromium, or no Playwright to drive it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_har.evaluation import EpochRecord, EvalResult, PairedTest, evaluate
from clip_har.report import write_comparison, write_evaluation, write_models
from report.conftest import ACTIONS, row_of, scores_for
from report.findings_fixture import every_finding
from report.model_tables_fixture import made_up_table

SIZES = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


def evaluated(skill: float | None, seed: int = 2) -> EvalResult:
    targets = np.arange(96) % len(ACTIONS)
    return evaluate(
        classes=ACTIONS,
        paths=[f"test/{ACTIONS[target]}/{index}.jpg" for index, target in enumerate(targets.tolist())],
        targets_N=targets,
        baseline_NC=scores_for(targets, len(ACTIONS), 0.8, seed=1),
        finetuned_NC=None if skill is None else scores_for(targets, len(ACTIONS), skill, seed=seed),
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind, with everything on it."""
    folder = tmp_path_factory.mktemp("pages")
    result = evaluated(2.0)
    record = EpochRecord(
        epoch=1, train_loss=1.0, val_loss=1.0, val_accuracy=0.5, val_macro_f1=0.5, lr=1.0, seconds=1.0, best=True
    )
    picture = Image.new("RGB", (80, 60), "teal")
    write_evaluation(
        result,
        folder / "evaluation",
        facts={"seed": 0, "device": "cpu"},
        history=[record],
        findings=every_finding(result, folder / "evaluation"),
        command="clip-har evaluate",
        load_thumbnail=lambda path: picture,
    )
    results = {"zero-shot": evaluated(None), "lora": result, "full": evaluated(3.0, seed=5)}
    tests = [
        PairedTest(first="lora", second="full", difference=0.2, p=0.01, p_holm=0.02, test="mcnemar"),
        PairedTest(first="zero-shot", second="full", difference=0.5, p=0.001, p_holm=0.003, test="mcnemar"),
        PairedTest(first="zero-shot", second="lora", difference=0.3, p=0.04, p_holm=0.08, test="mcnemar"),
    ]
    rows = [row_of(name, [found], 10 * len(name)) for name, found in results.items()]
    write_comparison(
        rows,
        results,
        folder / "comparison",
        facts={"seed": 0},
        pairwise=tests,
        command="clip-har compare",
        load_thumbnail=lambda path: picture,
    )
    write_models(made_up_table(), folder / "models", facts={"seed": 0}, command="clip-har compare --models a,b")
    return {name: folder / name / "report.html" for name in ("evaluation", "comparison", "models")}


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Opens a page by name; at the end no page may have complained, or asked for anything but itself."""
    contexts, complaints, requests = [], [], []

    def open_page(name: str, width: int = 1280, scheme: str = "light", **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(pages[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", pages["evaluation"].parents[1].as_uri()))] == []


def test_a_table_that_does_not_fit_says_so_until_its_end_is_reached(opened: Any) -> None:
    table = "[aria-labelledby=methods].scroll"
    for width, overflows in ((1280, False), (390, True)):
        box = opened("comparison", width).locator(table)
        assert [name in (box.get_attribute("class") or "") for name in ("overflows", "more")] == [overflows] * 2
        hint = box.evaluate("box => getComputedStyle(box, '::after').content")
        assert (hint == '"Scroll sideways: more columns →"') is overflows
    box.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    box.page.wait_for_function("box => !box.classList.contains('more')", arg=box.element_handle())
    assert box.evaluate("box => getComputedStyle(box, '::after').content") == '"← Scroll back"'


def column(page: Any, table: str, index: int) -> list[str]:
    texts: list[str] = page.locator(f"{table} tbody tr").evaluate_all(
        "(rows, index) => rows.map(row => row.cells[index].textContent.trim())", index
    )
    return texts


@pytest.mark.parametrize(("width", "scheme"), SIZES)
@pytest.mark.parametrize("name", ["evaluation", "comparison", "models"])
def test_pages_open_without_a_complaint_and_fit_their_width(opened: Any, name: str, width: int, scheme: str) -> None:
    page = opened(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 27)")
    assert page.locator("h1").is_visible()


@pytest.mark.parametrize("width", [1280, 390])
def test_bars_of_probabilities_and_prompts_are_shown_at_any_width(opened: Any, width: int) -> None:
    page = opened("evaluation", width)
    bars = page.locator(".sentences .track")
    boxes = [bar.bounding_box() for bar in bars.all()]
    assert boxes and all(box and box["width"] > 70 and box["x"] + box["width"] <= width for box in boxes)
    sketches = page.locator("td.sketch").first.is_visible()
    assert sketches is page.locator(".of-sketch").first.is_visible() is (width == 1280)


def test_tables_sort_both_ways_with_the_keyboard(opened: Any) -> None:
    page = opened("evaluation")
    before = column(page, "#class-table", 0)
    heading = page.locator("#class-table thead th", has_text="recall")
    index = heading.evaluate("heading => heading.cellIndex")
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    falling = [float(value) for value in column(page, "#class-table", index)]
    assert falling == sorted(falling, reverse=True) and len(set(falling)) > 1
    assert page.locator("#status").text_content() == "Sorted by recall, descending."
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "ascending"
    rising = [float(value) for value in column(page, "#class-table", index)]
    assert rising == sorted(rising)
    page.locator("#class-table thead button", has_text="Class").click()
    assert heading.get_attribute("aria-sort") is None
    assert column(page, "#class-table", 0) == sorted(before)


def test_what_was_not_measured_stays_at_the_end(opened: Any) -> None:
    page = opened("evaluation")
    table = "#confidence ~ .columns table"
    for _ in range(2):
        page.locator(f"{table} thead button", has_text="threshold").click()
        assert column(page, table, 2) == ["0.610", "0.610", "not reached", "not reached"]


def test_the_matrix_is_sorted_with_its_rows_and_columns(opened: Any) -> None:
    page = opened("evaluation")
    read = """table => Object.fromEntries([...table.tBodies[0].rows].flatMap(row =>
      [...row.cells].slice(1, -1).map(cell => [row.dataset.index + "," + cell.dataset.index, cell.textContent])))"""
    matrix = page.locator("#matrix")
    before = matrix.evaluate(read)
    page.locator("#matrix-order").select_option(label="most errors first")
    rows = matrix.evaluate("table => [...table.tBodies[0].rows].map(row => row.dataset.index)")
    heads = matrix.evaluate("table => [...table.tHead.rows[0].cells].map(cell => cell.dataset.index).filter(Boolean)")
    right = [int(before[f"{index},{index}"]) for index in rows]
    assert rows == heads and right == sorted(right)
    assert matrix.evaluate(read) == before
    page.locator("#matrix-measure").select_option(label="% of the class")
    shares = matrix.evaluate(read)
    assert all(shares[cell] == str(round(100 * int(count) / 12)) for cell, count in before.items() if count)


def test_a_cell_opens_on_its_images(opened: Any) -> None:
    page = opened("evaluation")
    dialog = page.locator("#viewer")
    assert not dialog.is_visible()
    link = page.locator("#matrix td.wrong a").first
    count = int(link.text_content())
    link.click()
    assert dialog.is_visible()
    assert dialog.locator("figure svg").count() == count
    assert "→" in dialog.locator("h4").text_content()
    assert dialog.locator("svg").first.evaluate("svg => svg.getBoundingClientRect().width") > 60
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.locator(
        "table a[href^='#cell-']:not(#matrix a)"
    ).first.click()  # the list of frequent mistakes leads there too
    dialog.locator("button").click()
    assert not dialog.is_visible()


def test_arrow_keys_walk_the_matrix(opened: Any) -> None:
    page = opened("evaluation")
    links = page.locator("#matrix tbody a")
    assert page.locator("#matrix tbody a[tabindex='0']").count() == 1
    links.first.focus()
    start = page.evaluate("document.activeElement.hash")
    page.keyboard.press("ArrowRight")
    right = page.evaluate("document.activeElement.hash")
    assert right.split("-")[1] == start.split("-")[1] and int(right.split("-")[2]) > int(start.split("-")[2])
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.hash") == start
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.hash").split("-")[2] == start.split("-")[2]
    assert page.locator("#matrix tbody a[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.hash") != ""  # the focus is back in the matrix


def test_the_theme_can_be_turned_round(opened: Any) -> None:
    page = opened("evaluation", scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    button = page.locator("button.theme")
    assert (page.evaluate(ground), button.get_attribute("aria-pressed")) == ("rgb(18, 22, 27)", "true")
    button.click()
    assert (page.evaluate(ground), button.get_attribute("aria-pressed")) == ("rgb(255, 255, 255)", "false")
    page.reload()
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    button_shown = page.locator("button.theme").is_visible()
    assert page.evaluate(ground) == "rgb(255, 255, 255)" and not button_shown


def test_classes_of_the_map_are_picked_out(opened: Any) -> None:
    page = opened("evaluation")
    button = page.locator(".map-legend button").nth(2)
    button.focus()
    page.keyboard.press("Space")
    faded = page.locator("svg.map g.points.faded").count()
    assert button.get_attribute("aria-pressed") == "true" and faded == 2 * (len(ACTIONS) - 1)
    page.keyboard.press("Space")
    assert page.locator("svg.map .faded").count() == 0


def test_printing_unfolds_everything_but_the_cells(opened: Any) -> None:
    page = opened("evaluation")
    closed = page.locator("details:not([open])").count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").evaluate_all("all => all.map(one => one.className)") == ["screen cells"]
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == closed > 3


def test_without_javascript_the_page_reads_the_same(opened: Any) -> None:
    page = opened("evaluation", java_script_enabled=False)
    assert not page.locator("button.theme").is_visible() and not page.locator("#matrix-tools").is_visible()
    assert page.locator("#class-table").is_visible()
    cell = page.locator("#matrix td.wrong a").first
    target = page.locator(cell.get_attribute("href"))
    assert not target.is_visible()
    cell.click()  # the browser unfolds what a link leads to
    assert target.is_visible() and target.locator("figure svg").first.is_visible()


def test_the_comparison_sorts_its_methods(opened: Any) -> None:
    page = opened("comparison")
    table = "table.wide"
    page.locator(f"{table} thead button", has_text="trained").click()
    assert [text.split()[0] for text in column(page, table, 5)] == ["90", "40", "40"]
    page.locator(f"{table} thead button", has_text="trained").click()
    assert [text.split()[0] for text in column(page, table, 5)] == ["40", "40", "90"]
    assert page.locator("table.pairwise td.better").count() == page.locator("table.pairwise td.worse").count() == 2


def test_the_models_sort_with_those_that_are_missing_at_the_end(opened: Any) -> None:
    page = opened("models")
    table = "[aria-labelledby=models] table"
    for _ in range(2):
        page.locator(f"{table} thead button", has_text="images/s").click()
        rates = column(page, table, 2)
        assert rates[-1] == "–" and sorted(map(int, rates[:-1])) == [27, 30, 31, 110, 900]
    assert rates[0] == "27"
