"""The page in headless Chromium: a photo is chosen, pasted or dropped, answered, explained, asked about own actions.

Skipped where there is no Chromium, or no Playwright to drive it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_har.predict import Predictor
from report.conftest import browser  # noqa: F401  # a fixture
from samples import CLASSES
from serving.conftest import Running, Serve

OWN = ["riding a bicycle", "playing chess", "reading"]


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:  # noqa: F811
    """Opens the page of a service; at the end no page may have complained, or asked for anything elsewhere."""
    contexts, complaints, requests = [], [], []

    def open_page(running: Running, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append((running.url, request.url)))
        page.goto(running.url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    refused = "Failed to load resource: the server responded with a status of 4"  # Chromium reports every 4xx
    assert [line for line in complaints if not line.startswith(refused)] == []
    assert [url for own, url in requests if not url.startswith((own, "blob:", "data:"))] == []


def answered(page: Any) -> None:
    page.wait_for_selector("#answer:not([hidden])")
    page.wait_for_selector("#result:not([aria-busy])")


def ranked(page: Any) -> list[tuple[str, str]]:
    rows = page.locator("#bars .bar").all()
    return [(row.locator(".label").text_content(), row.locator(".value").text_content()) for row in rows]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_a_photo_is_answered(
    opened: Any, running: Running, pictures: list[Path], served_runs: dict[str, Path], width: int, scheme: str
) -> None:
    page = opened(running, width, color_scheme=scheme)
    page.set_input_files("#file", pictures[2])
    answered(page)
    (expected,) = Predictor(served_runs["lora"], precision="float32").predict([pictures[2]])
    assert [label for label, _ in ranked(page)] == [label for label, _ in expected.top]
    shown = [float(value.removesuffix(" %")) for _, value in ranked(page)]
    assert shown == pytest.approx([100 * value for _, value in expected.top], abs=0.51)
    widths = [bar.bounding_box()["width"] for bar in page.locator(".track").all()]
    assert len(set(widths)) == 1 and 100 < widths[0] <= width
    page.wait_for_timeout(300)  # the bars grow
    filled = [bar.bounding_box()["width"] / widths[0] for bar in page.locator(".fill").all()]
    assert filled == pytest.approx([value for _, value in expected.top], abs=0.01)
    assert page.locator("#status").text_content().startswith(page.locator("#label").text_content())
    assert page.locator("#picture").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 27)")


def test_own_actions_move_the_scores_and_the_map_shows_where_they_come_from(
    opened: Any, running: Running, pictures: list[Path], served_runs: dict[str, Path]
) -> None:
    page = opened(running)
    page.set_input_files("#file", pictures[0])
    answered(page)
    page.locator("#classes").fill("\n".join(OWN))
    page.wait_for_selector("#bars li[data-label='playing chess']")
    (expected,) = Predictor(served_runs["lora"], precision="float32").predict([pictures[0]], classes=OWN)
    assert [label for label, _ in ranked(page)] == [label for label, _ in expected.top]
    before = page.locator("#picture").get_attribute("src")
    page.locator("#map").click()
    page.wait_for_selector("#map[aria-pressed=true]")
    assert page.locator("#map-label").text_content() == expected.top[0][0]
    assert page.locator("#picture").get_attribute("src") != before
    assert expected.top[0][0] in page.locator("#picture").get_attribute("alt")
    page.locator("#map").click()
    assert page.locator("#picture").get_attribute("src") == before
    page.locator("#reset").click()
    page.wait_for_selector(f"#bars li[data-label={CLASSES[0]}]")
    assert sorted(label for label, _ in ranked(page)) == sorted(CLASSES)


def test_a_model_that_knows_its_own_actions_only_says_so(opened: Any, running: Running, pictures: list[Path]) -> None:
    page = opened(running)
    page.set_input_files("#file", pictures[0])
    answered(page)
    page.locator("#model").select_option("linear-probe")
    answered(page)
    assert page.locator("#classes").is_disabled()
    assert "linear-probe" in page.locator("#own-note").text_content()


PUT = """async ([content, kind]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "photo.png", {type: "image/png"}));
  const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
    : new DragEvent("drop", {dataTransfer: data, bubbles: true});
  document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_photo_can_be_pasted_and_dropped(opened: Any, running: Running, pictures: list[Path], kind: str) -> None:
    page = opened(running)
    page.wait_for_selector("#model-choice:not([hidden])")
    page.evaluate(PUT, [base64.b64encode(pictures[1].read_bytes()).decode(), kind])
    answered(page)
    assert len(ranked(page)) == 3


def test_a_broken_image_is_a_sentence_and_the_next_photo_is_answered(
    opened: Any, running: Running, pictures: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"buy milk\n")
    page = opened(running)
    page.set_input_files("#file", broken)
    page.wait_for_selector("#problem:not([hidden])")
    assert page.locator("#problem").text_content() == "The image cannot be read: not an image but text."
    assert page.locator("#problem").get_attribute("role") == "alert"
    page.wait_for_selector("#picture[hidden]", state="attached")
    assert page.locator("#empty").text_content() == "Your browser cannot show this file."
    page.set_input_files("#file", pictures[0])
    answered(page)
    assert page.locator("#problem").is_hidden() and page.locator("#picture").is_visible()


def test_everything_is_reached_with_the_keyboard_and_has_a_name(
    opened: Any, running: Running, pictures: list[Path]
) -> None:
    page = opened(running)
    page.set_input_files("#file", pictures[0])
    answered(page)
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached[:6] == ["skip", "model", "file", "camera", "map", "classes"]
    page.locator("#map").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#map[aria-pressed=true]")
    for name in ("Choose photo", "Take photo", "Model", "Actions, one per line (at least two)"):
        assert page.get_by_label(name, exact=True).count() == 1
    assert page.locator("#camera").get_attribute("capture") == "environment"
    assert page.locator("#status").get_attribute("aria-live") == "polite"


def test_an_unsure_prediction_is_shown_as_such(opened: Any, serve: Serve, pictures: list[Path]) -> None:
    with serve(runs=("lora",), abstain_below=1.0) as running:
        page = opened(running)
        page.set_input_files("#file", pictures[0])
        answered(page)
        assert page.locator("#label").text_content() == "Unsure"
        assert "perhaps" in page.locator("#percent").text_content()
        assert "is below 1.00" in page.locator("#reason").text_content()
        assert page.locator("#model-choice").is_hidden(), "there is one model only"


def test_the_page_asks_for_the_key(opened: Any, serve: Serve, pictures: list[Path]) -> None:
    with serve(runs=("lora",), key="a-key-of-the-test") as running:
        page = opened(running)
        page.wait_for_selector("#key-form:not([hidden])")
        page.locator("#key").fill("a-key-of-the-test")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-form", state="hidden")
        page.set_input_files("#file", pictures[0])
        answered(page)
        assert len(ranked(page)) == 3
