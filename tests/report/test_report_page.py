"""The HTML pages: self-contained, escaped, well-formed, and saying what the numbers say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_har.errors import UnreadableImageError
from clip_har.evaluation import ComparisonRow, EpochRecord, EvalResult, comparison_row, evaluate
from clip_har.report import comparison_page, evaluation_page, galleries, html, write_comparison, write_evaluation
from clip_har.report.pictures import Pictures
from clip_har.report.style import Plot

MakeResult = Callable[..., EvalResult]
Loader = Callable[[str], Image.Image | None]
Comparison = tuple[list[ComparisonRow], dict[str, EvalResult]]
CARD = {
    "method": "lora",
    "backbone": "ViT-B/32",
    "splits": {"train": 9072, "val": 2268, "test": 96},
    "classes": 8,
    "templates": ["a photo of a person {}.", "a person {}."],
    "trainable_params": 32769,
    "trainable_fraction": 0.000217,
    "train_seconds": 64.2,
    "peak_memory_bytes": 811_597_824,
    "unreadable": 2,
    "versions": {"clip-har": "0.1.0", "torch": "2.13.0"},
}
HOSTILE = [
    "<script>alert(1)</script>",
    "\" onerror='alert(1)",
    "$x_{$",
    "a\x00b\u202e\udc80",
    "]]>&amp;{{ 7*7 }}",
]
VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}
BREAK = "\N{ZERO WIDTH SPACE}"  # where a browser may break a word


class Page(HTMLParser):
    """What a browser would find: open and close tags that match, and all elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "wbr":
            self.words.append(BREAK)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, (tag, self.stack[-3:])
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if not self.stack or self.stack[-1] not in {"script", "style"}:
            self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        words = " ".join(self.words).replace(f" {BREAK} ", "").replace("\u202f", " ")
        return " ".join(words.split())

    @property
    def photographs(self) -> list[str]:
        """The sources of the photographs, each of which is in the page once."""
        return [image["href"] or "" for image in self.of("image")]

    @property
    def plots(self) -> list[dict[str, str | None]]:
        """Drawings that are not photographs."""
        ids = {image["id"] for image in self.of("image")}
        shown = {(use["href"] or "")[1:] for use in self.of("use")}
        assert ids <= shown  # no photograph is carried that nobody sees
        return [svg for svg in self.of("svg") if not (svg.get("aria-label") or "An image").startswith("An image")]


def page_of(result: EvalResult, out: Path, **options: Any) -> Page:
    settings: dict[str, Any] = {
        "facts": CARD,
        "command": "clip-har evaluate",
        "load_thumbnail": None,
    } | options
    write_evaluation(result, out, **settings)
    return Page((out / "report.html").read_text(encoding="utf-8"))


def words_of(result: EvalResult, load_thumbnail: Loader | None = None) -> Page:
    """The page with empty plots, where only its words and photographs matter."""
    empty = Plot(png=b"", svg='<svg aria-label="plot"></svg>', width=500, description="plot")
    figures = dict.fromkeys(("confusion", "confusion_baseline", "per_class"), empty)
    text = evaluation_page.evaluation_page(
        result, facts=CARD, figures=figures, command="clip-har evaluate", load_thumbnail=load_thumbnail
    )
    return Page(text)


def assert_self_contained(page: Page, links: Sequence[str] = ()) -> None:
    """Nothing is loaded from elsewhere, and nothing but `links`, in their order, leads out of the page."""
    leading_out = []
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name)
            if value is None or value.startswith(("data:image/", "#")):
                continue
            assert (tag, name) == ("a", "href"), (tag, name, value)
            leading_out.append(value)
    assert leading_out == list(links)
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert not page.of("link") and not page.of("iframe")
    policy = next(meta["content"] for meta in page.of("meta") if "http-equiv" in meta)
    assert policy is not None and policy.startswith("default-src 'none'")


def assert_accessible(page: Page) -> None:
    assert page.of("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.of("img"))
    assert all(svg.get("aria-label") or svg["aria-hidden"] for svg in page.of("svg"))
    assert len(page.of("h1")) == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids
    assert any(meta.get("name") == "viewport" for meta in page.of("meta"))


def test_the_page_of_an_evaluation(
    make_result: MakeResult, history: list[EpochRecord], load_thumbnail: Loader, tmp_path: Path
) -> None:
    result = make_result(warnings=["Mind <this>."])
    assert result.finetuned is not None
    page = page_of(result, tmp_path, history=history, load_thumbnail=load_thumbnail)
    assert_self_contained(page)
    assert_accessible(page)
    accuracy = f"{100 * result.finetuned.metrics.accuracy:.1f} %"
    baseline = f"{100 * result.baseline.metrics.accuracy:.1f} %"
    assert f"LoRA classifies {accuracy} of 96 test images correctly; zero-shot CLIP {baseline}." in page.text
    assert "above zero-shot (95 % interval +" in page.text and "p < 0.001" in page.text
    assert "Warnings Mind <this>." in page.text
    for fact in (
        "ViT-B/32",
        "9,072 training",
        "32,769 (0.022 %)",
        "1 min 4 s",
        "774 MiB",
        "2 unreadable images",
    ):
        assert fact in page.text, fact
    assert "clip-har 0.1.0 torch 2.13.0" in page.text
    assert "Selected on validation: epoch 3." in page.text
    mistakes = int((result.best.predictions != result.targets_N).sum())
    assert len(page.photographs) >= mistakes > 0
    assert len(page.plots) == 1  # the training; the matrix and the classes are tables
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_hostile_names_are_text(make_result: MakeResult, load_thumbnail: Loader, tmp_path: Path) -> None:
    result = make_result(classes=HOSTILE, skill=0.5, name="<b>lora", warnings=["<img src=x onerror=alert(1)>"])
    page = page_of(
        result,
        tmp_path,
        facts={"backbone": "<i>", "versions": {"<u>": "</main>"}},
        command="clip-har evaluate --data '</code><script>'",
        load_thumbnail=load_thumbnail,
    )
    assert_self_contained(page)
    assert_accessible(page)
    assert len(page.of("script")) == 2
    assert not page.of("b") and not page.of("i") and not page.of("u")
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text


def test_the_page_of_the_baseline_alone(make_result: MakeResult, tmp_path: Path) -> None:
    page = page_of(make_result(skill=None), tmp_path)
    assert_self_contained(page)
    assert page.text.count("Zero-shot CLIP classifies") == 2  # title and heading
    assert "Nothing is fine-tuned yet: this is the baseline." in page.text
    assert "McNemar" not in page.text and "difference" not in page.text


def with_answers(result: EvalResult, p_value: float, accuracy: float) -> EvalResult:
    assert result.finetuned is not None
    metrics = replace(result.finetuned.metrics, accuracy=accuracy)
    return replace(result, finetuned=replace(result.finetuned, metrics=metrics), mcnemar_p=p_value)


def test_the_verdict_does_not_oversell(make_result: MakeResult) -> None:
    result = make_result()
    level = result.baseline.metrics.accuracy
    assert "may be due to chance" in evaluation_page.verdict(with_answers(result, 0.05, level + 0.01))
    assert "1.0 percentage points above zero-shot" in evaluation_page.verdict(with_answers(result, 0.049, level + 0.01))
    assert "below zero-shot: fine-tuning made the model worse" in evaluation_page.verdict(
        with_answers(result, 0.001, level - 0.1)
    )


def test_validation_images_are_named_as_such(make_result: MakeResult) -> None:
    page = words_of(make_result(split="val"))
    assert "of 96 validation images" in page.text
    assert "The model was selected on these validation images" in page.text
    assert "was selected on these" not in words_of(make_result()).text


def test_classes_without_images_have_no_numbers(make_result: MakeResult) -> None:
    result = make_result(classes=["a", "b", "c", "absent"], n=3)
    assert result.best.metrics.per_class[3].support == 0
    page = words_of(result)
    assert "absent – – – – – – – 0" in page.text


def test_mistakes_are_the_surest_ones_first(make_result: MakeResult) -> None:
    result = make_result(n=400, skill=1.5)
    tiles = galleries.galleries(result, Pictures(None))[0]["tiles"]
    confidence = result.best.probabilities_NC.max(axis=1)
    wrong = [i for i in range(400) if result.best.probabilities_NC[i].argmax() != result.targets_N[i]]
    expected = sorted(wrong, key=lambda i: -confidence[i])[:24]
    assert [tile["path"] for tile in tiles] == [result.paths[i] for i in expected]
    assert all(tile["true"] != tile["answer"] for tile in tiles)


def test_a_photograph_that_cannot_be_read_is_said(make_result: MakeResult) -> None:
    def load(path: str) -> Image.Image | None:
        raise UnreadableImageError("truncated")

    for loader in (load, lambda path: None):
        page = words_of(make_result(skill=1.0), loader)
        assert "cannot be read" in page.text and not page.photographs


def test_a_page_without_mistakes(make_result: MakeResult) -> None:
    page = words_of(make_result(skill=50.0))
    assert "every prediction is correct" in page.text
    assert "Most frequent confusions" not in page.text


def test_photographs_are_small(make_result: MakeResult, load_thumbnail: Loader) -> None:
    page = words_of(make_result(skill=0.5), load_thumbnail)
    sources = page.photographs
    assert len(sources) >= 24
    assert all(source.startswith("data:image/jpeg;base64,") and len(source) < 20_000 for source in sources)


def test_plots_follow_the_colours_of_the_page(
    make_result: MakeResult, history: list[EpochRecord], tmp_path: Path
) -> None:
    page_of(make_result(), tmp_path, history=history)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert "var(--ink)" in svg
        assert "#1c2128" not in svg and "#2a6fbb" not in svg
        for reference in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg):
            assert f'id="{"".join(reference)}"' in svg
    assert "<text" in text and "validation</text>" in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_the_card_shows_what_is_there() -> None:
    assert html.fact_rows({}) == []
    assert html.fact_rows({"seed": 0, "method": None, "loss": "class-aware", "other": 1}) == [
        ("Loss", "class-aware"),
        ("Seed", "0"),
    ]
    rows = dict(html.fact_rows({"trainable_params": 10, "trainable_fraction": 1.0, "unreadable": 1}))
    assert rows["Trained parameters"].replace("\u202f", " ") == "10 (100 %)"
    assert rows["Skipped"] == "1 unreadable image"


def test_the_page_of_a_comparison(comparison: Comparison, load_thumbnail: Loader, tmp_path: Path) -> None:
    rows, results = comparison
    write_comparison(rows, results, tmp_path, facts=CARD, command="clip-har compare", load_thumbnail=load_thumbnail)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert_accessible(page)
    assert "LoRA is the most accurate" in page.text
    assert "1 of 2 methods is significantly better than zero-shot" in page.text
    assert "full not distinguishable from zero-shot" in page.text
    assert "LoRA not distinguishable" not in page.text
    assert len(page.plots) == 2
    wrong = [result.best.predictions != result.targets_N for result in results.values()]
    assert len(page.photographs) == min(12, int(np.all(wrong, axis=0).sum())) > 0


def test_a_comparison_links_to_the_reports_that_exist(
    comparison: Comparison, twelve_rows: list[ComparisonRow], tmp_path: Path
) -> None:
    rows, results = comparison
    there = [tmp_path / "out" / "runs" / name / "eval" / "report.html" for name in ("lora", "lora #1")]
    for path in there:
        path.parent.mkdir(parents=True)
        path.write_text("")
    gone = tmp_path / "out" / "runs" / "full" / "eval" / "report.html"
    reports = {"lora": {0: there[0]}, "full": {0: gone}}
    write_comparison(rows, results, tmp_path / "out", facts={}, reports=reports, command="")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert_self_contained(page, ["runs/lora/eval/report.html"])
    assert "links to its report" in page.text
    several = {"coop": {0: there[0], 1: there[1], 2: gone}}
    write_comparison(twelve_rows, {}, tmp_path / "out", facts={}, reports=several, command="")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    first = "runs/lora/eval/report.html"
    assert_self_contained(page, [first, first, "runs/lora%20%231/eval/report.html"])  # the method, then its seeds


def test_memory_has_one_unit(comparison: Comparison, tmp_path: Path) -> None:
    rows, results = comparison
    rows = [replace(row, peak_memory_bytes=count) for row, count in zip(rows, (None, 2**29, 12 * 2**30), strict=True)]
    write_comparison(rows, results, tmp_path, facts={}, command="")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for text in (page.text, *((tmp_path / f"comparison.{kind}").read_text() for kind in ("md", "txt"))):
        assert "0.5 GiB" in text and "12.0 GiB" in text and "MiB" not in text


def test_macro_f1_is_a_share_everywhere(make_result: MakeResult) -> None:
    result = make_result()
    assert result.finetuned is not None
    before, after = result.baseline.metrics.macro_f1, result.finetuned.metrics.macro_f1
    text = words_of(result).text
    assert f"Macro F1 mean over classes {before:.3f} {after:.3f} +{after - before:.3f}" in text
    assert f"Macro F1 {before:.3f} {after:.3f} +{after - before:.3f}" in text


def test_a_comparison_where_nothing_helps_says_so(comparison: Comparison, tmp_path: Path) -> None:
    rows, results = comparison
    chosen = [row for row in rows if row.name != "lora"]
    write_comparison(chosen, results, tmp_path, facts={}, command="")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No method is significantly better than zero-shot CLIP" in page.text


def test_a_comparison_without_zero_shot_or_results(comparison: Comparison, tmp_path: Path) -> None:
    rows, _ = comparison
    write_comparison(rows[1:], {}, tmp_path, facts={}, command="")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert "LoRA is the most accurate" in page.text and "significantly better" not in page.text


def test_a_comparison_of_twelve_methods_is_loud_where_it_must_be(
    twelve_rows: list[ComparisonRow], tmp_path: Path
) -> None:
    write_comparison(twelve_rows, {}, tmp_path, facts={"seeds": [0, 1, 2]}, command="")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert_accessible(page)
    assert (
        "8 of 11 methods are significantly better than zero-shot, 1 not distinguishable from zero-shot, 1 below"
        in page.text
    )
    assert "Collapsed full: answers running for 97% of the images. Its accuracy is meaningless" in page.text
    assert "Below zero-shot Tip-Adapter, by −5.0 points: training made the model worse." in page.text
    assert "Not distinguishable from zero-shot LoRA: the difference may be due to chance." in page.text
    chips = [span for span in page.of("span") if "chip" in (span.get("class") or "")]
    assert len(chips) == 3
    assert "95.0 % ± 1.0 93.0 to 97.0 %" in page.text  # coop: mean, spread, interval
    assert "sign-flip test" in page.text and "Seeds 0, 1, 2" in page.text


def test_a_collapsed_method_is_not_the_best(twelve_rows: list[ComparisonRow]) -> None:
    rows = [replace(row, accuracy=0.99) if row.collapsed else row for row in twelve_rows]
    assert comparison_page.headline(rows, None, 0.63).startswith("CLIP-Adapter is the most accurate: 95.0")


def test_a_collapse_is_told_once_and_under_the_name_of_the_entry(make_result: MakeResult, tmp_path: Path) -> None:
    result = collapsed(make_result())
    row = comparison_row(
        "lora-attention",
        "lora",
        {0: result},
        trainable_params=1,
        trainable_fraction=0.1,
        peak_memory_bytes=[1],
        train_seconds=[1.0],
    )
    write_comparison([row], {"lora-attention": result}, tmp_path, facts={}, command="")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Collapsed LoRA-attention: predicts cycling for 100% of the images." in page.text
    assert "Warnings" not in page.text


def collapsed(result: EvalResult) -> EvalResult:
    """The same images, all answered with the third class."""
    return evaluate(
        classes=result.classes,
        paths=result.paths,
        targets_N=result.targets_N,
        baseline_NC=result.baseline.probabilities_NC,
        finetuned_NC=np.eye(len(result.classes))[[2] * result.n],
    )


def test_a_collapsed_evaluation_says_so_above_its_headline(make_result: MakeResult) -> None:
    result = collapsed(make_result())
    page = words_of(result)
    assert [part for part in page.of("p") if part.get("class") == "alarm"]
    assert page.text.index("Collapsed: 100 % of the predictions are cycling") < page.text.rindex("LoRA classifies")
    assert "Warnings lora predicts cycling for 100% of the images" in page.text
    sound = words_of(make_result())
    assert not [part for part in sound.of("p") if part.get("class") == "alarm"]
    harmful = with_answers(make_result(), 0.001, 0.0)
    assert evaluation_page.alarm(harmful) == "Below zero-shot"
    assert evaluation_page.alarm(with_answers(make_result(), 0.3, 0.0)) == ""


def pair(number: int, similarity: float) -> dict[str, Any]:
    return {
        "image": f"a/{number}.jpg",
        "label": "texting",
        "rival_image": f"b/{number}.jpg",
        "rival_label": "<calling>",
        "similarity": similarity,
    }


def test_hard_pairs_stand_side_by_side(make_result: MakeResult, load_thumbnail: Loader, tmp_path: Path) -> None:
    pairs = {
        "class_pairs": [{"true": "texting", "answered": "calling", "count": 1041}],
        "image_pairs": [pair(number, 0.5 + number / 100) for number in range(14)],
    }
    page = page_of(make_result(skill=50.0), tmp_path, hard_pairs=pairs, load_thumbnail=load_thumbnail)
    assert_self_contained(page)
    assert_accessible(page)
    assert "texting calling 1,041" in page.text
    assert len(page.of("figure")) == 24 + 12 + 6 * 8  # the twelve most alike, two each; fixed; the matrix
    assert "texting a/13.jpg <calling> b/13.jpg similarity 0.63" in page.text
    assert "a/2.jpg" in page.text and " a/1.jpg" not in page.text
    assert page.text.index("a/13.jpg") < page.text.index("a/2.jpg")
    unread = page_of(make_result(skill=50.0), tmp_path, hard_pairs=pairs, load_thumbnail=lambda path: None)
    assert unread.text.count("cannot be read") == 24 + 12 + 6 * 8
    without: list[dict[str, Any] | None] = [None, {}, {"class_pairs": [], "image_pairs": []}]
    for nothing in without:
        assert evaluation_page._hard_pairs(nothing, Pictures(None)) is None


def test_the_interpolation_stands_in_the_page(make_result: MakeResult, tmp_path: Path) -> None:
    curve = [(0.0, 0.6), (0.5, 0.8), (1.0, 0.7)]
    page = page_of(make_result(), tmp_path, interpolation=curve)
    assert (
        "Validation accuracy at 3 points between zero-shot (0) and fine-tuned (1) weights; 0.5 was selected"
        in page.text
    )
    assert "0.5 was selected" not in words_of(make_result()).text


@pytest.mark.parametrize("n_classes", [2, 3, 60])
def test_few_and_many_classes(make_result: MakeResult, tmp_path: Path, n_classes: int) -> None:
    page = page_of(make_result([f"class number {i}" for i in range(n_classes)], n=240, skill=None), tmp_path)
    assert_accessible(page)
    assert ("Top-3 Accuracy" in page.text) == (n_classes > 3)
