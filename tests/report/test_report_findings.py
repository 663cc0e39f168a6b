"""What the page shows of the findings beside the metrics, and that it shows nothing of what was not measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_har.evaluation import ComparisonRow, EvalResult, PairedTest, evaluate
from clip_har.evaluation.findings import EmbeddingMap
from clip_har.report import (
    ReportParts,
    comparison_page,
    confusion,
    evaluation_page,
    galleries,
    write_comparison,
)
from clip_har.report.embedding_map import drawn_maps, hue
from clip_har.report.finding_plots import FINDING_PLOTS
from clip_har.report.overview import overview
from clip_har.report.pictures import Pictures
from clip_har.report.style import Plot
from report.findings_fixture import every_finding
from report.test_report_page import Page, assert_accessible, assert_self_contained, page_of

MakeResult = Callable[..., EvalResult]
Loader = Callable[[str], Image.Image | None]
SECTIONS = {
    "confidence": {"confidence_baseline", "confidence_finetuned"},
    "beyond": {"robustness", "shifts", "unseen", "unknown", "wise_curve"},
    "explanations": {"explanations"},
    "map": {"embedding_map"},
    "data": {"data"},
}


def page_with(
    result: EvalResult, findings: ReportParts, load_thumbnail: Loader | None = None, folder: Path | None = None
) -> Page:
    """The page with empty plots: drawing takes most of the time, and only words and photographs matter here."""
    empty = Plot(png=b"", svg='<svg aria-label="plot"></svg>', width=500, description="plot")
    figures = dict.fromkeys(("confusion", "confusion_baseline", "per_class", *FINDING_PLOTS), empty)
    text = evaluation_page.evaluation_page(
        result, facts={}, figures=figures, findings=findings, folder=folder, command="", load_thumbnail=load_thumbnail
    )
    return Page(text)


def sections(page: Page) -> set[str]:
    return {attributes["id"] or "" for attributes in page.of("h2") if "id" in attributes}


def test_every_finding_is_shown(make_result: MakeResult, load_thumbnail: Loader, tmp_path: Path) -> None:
    result = make_result()
    page = page_of(result, tmp_path, findings=every_finding(result, tmp_path), load_thumbnail=load_thumbnail)
    assert_self_contained(page)
    assert_accessible(page)
    for words in (
        "Mean accuracy 2 corruptions, 3 severities, 90 images 45.0 % 60.0 % +15.0",
        "elsewhere 1,812 images, 5 classes 70.0 % 64.0 % −6.0 worse p = 0.012",
        "Unseen classes 2 held out 80.0 % 75.0 % −5.0 worse",
        "ECE, scaled after temperature scaling 0.045 0.045 0.000",
        "zero-shot: temperature 0.80; LoRA: temperature 1.40",
        "LoRA 95.0 % 0.610 72.0 % 95.7 %",
        "LoRA 99.0 % not reached – –",
        "LoRA 90.0 % 91.2 % 1.84 0.810",
        "gaussian noise zero-shot 45.0 % 55.0 % 45.0 % 35.0 %",
        "0.25 66.2 % 50.0 % –",
        "predicted clapping, 77 %",
        "a photo of a person clapping. 0.310",
        "clapping 0.91",
        "leaks 3 above the limit 0",
        "odd not checked none",
        "8,800 training, 96 test images of 8 classes; 1 skipped",
        "train/broken.jpg cut off",
    ):
        assert words in page.text, words
    names = {path.name for path in tmp_path.glob("*.png")}
    assert {
        "reliability.png",
        "risk_coverage.png",
        "corruptions.png",
        "wise_ft_beyond.png",
        "unknown_actions.png",
    } <= names


@pytest.mark.parametrize("name", [field.name for field in fields(ReportParts)])
def test_each_finding_alone_makes_its_section(make_result: MakeResult, tmp_path: Path, name: str) -> None:
    result = make_result()
    every = every_finding(result, tmp_path)
    nothing = sections(page_with(result, ReportParts()))
    assert not nothing & set(SECTIONS)
    alone = sections(page_with(result, ReportParts(**{name: getattr(every, name)})))
    assert alone - nothing == {section for section, names in SECTIONS.items() if name in names}


def test_navigation_leads_to_sections_that_exist(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result()
    for findings in (ReportParts(), every_finding(result, tmp_path)):
        page = page_with(result, findings)
        ids = {attributes.get("id") for _, attributes in page.elements}
        targets = [(link["href"] or "")[1:] for link in page.of("a")]
        assert len(targets) > 8 and set(targets) <= ids


def test_the_card_knows_which_way_is_better(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result()
    findings = every_finding(result, tmp_path)
    rows = {(group, row.name): row for group, found in overview(result, findings) for row in found}
    assert rows["Distribution shift", "elsewhere"].better is False
    assert rows["Unseen classes", "Harmonic mean"].better is True
    assert rows["Calibration", "ECE, scaled"].better is None
    ece = rows["Calibration", "ECE"]
    assert ece.difference is not None and ece.better is (ece.difference < 0)
    alone = make_result(skill=None)
    assert [row.difference for _, found in overview(alone, ReportParts()) for row in found] == [None, None, None]


def test_fixed_and_broken_are_counted_for_each_class(make_result: MakeResult) -> None:
    result = make_result(n=200, skill=1.5)
    assert result.finetuned is not None
    found = galleries.changes(result)
    assert found is not None
    expected: dict[str, list[int]] = {name: [0] * 8 for name in ("fixed", "broken", "kept", "missed")}
    for index, target in enumerate(result.targets_N.tolist()):
        before = int(result.baseline.probabilities_NC[index].argmax()) == target
        after = int(result.finetuned.probabilities_NC[index].argmax()) == target
        kind = {(False, True): "fixed", (True, False): "broken", (True, True): "kept"}.get((before, after), "missed")
        expected[kind][target] += 1
    assert found["by_class"] == expected
    assert {name: found[name] for name in expected} == {name: sum(counts) for name, counts in expected.items()}
    assert min(found["fixed"], found["broken"], found["missed"]) > 0
    by_title = {gallery["title"]: gallery["tiles"] for gallery in galleries.galleries(result, Pictures(None))}
    assert list(by_title) == [
        "Most confident errors",
        "Fixed by fine-tuning",
        "Broken by fine-tuning",
        "Hardest images",
    ]
    assert all(tile["right"] for tile in by_title["Fixed by fine-tuning"])
    assert not any(tile["right"] for tile in by_title["Broken by fine-tuning"])


def test_cells_hold_the_images_they_count(make_result: MakeResult, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result(n=400, skill=1.0)
    cells = confusion.cell_images(result, result.best)
    answers = result.best.probabilities_NC.argmax(axis=1)
    for (true, answer), images in cells.items():
        inside = [i for i in range(400) if result.targets_N[i] == true and answers[i] == answer]
        limit = confusion.RIGHT_PER_CELL if true == answer else confusion.MISTAKES_PER_CELL
        sign = 1 if true == answer else -1
        assert images == sorted(inside, key=lambda i: sign * result.best.confidence[i])[:limit]
    assert set(cells) == {tuple(cell) for cell in np.argwhere(result.best.metrics.confusion).tolist()}
    monkeypatch.setattr(confusion, "TILES_LIMIT", 60)
    few = confusion.cell_images(result, result.best)
    assert sum(map(len, few.values())) == 60
    wrong = [cell for cell in cells if cell[0] != cell[1]]
    assert all(cell in few for cell in wrong)  # every mistake gets its first image before any gets its second


def test_orders_are_permutations_that_mean_what_they_say() -> None:
    counts = np.array([[9, 0, 1, 0], [0, 5, 0, 5], [4, 0, 6, 0], [0, 3, 0, 17]])
    orders = dict(confusion.orders(["b", "A", "d", "c"], counts))
    assert orders["by name"] == [1, 0, 3, 2]
    assert orders["most errors first"] == [1, 2, 3, 0]
    assert orders["most images first"] == [3, 0, 1, 2]
    together = orders["confused classes together"]
    assert sorted(together) == [0, 1, 2, 3]
    assert abs(together.index(0) - together.index(2)) == 1 and abs(together.index(1) - together.index(3)) == 1


def test_pictures_keep_to_their_budget(load_thumbnail: Loader) -> None:
    loaded: list[str] = []

    def load(path: str) -> Image.Image | None:
        loaded.append(path)
        return None if path == "broken" else load_thumbnail(path)

    pictures = Pictures(load, budget_bytes=10_000)
    first = pictures.get("a")
    assert first is not None and pictures.get("a") is first and (first.width, first.height) == (168, 126)
    assert pictures.get("broken") is None
    for number in range(40):
        pictures.get(f"{number}")
    assert pictures.full and loaded.count("a") == 1 and loaded.count("broken") == 1
    sizes = [len(picture.source) for picture in pictures.shown]
    assert sum(sizes[:-1]) < 10_000 <= sum(sizes)
    assert len({picture.id for picture in pictures.shown}) == len(sizes)
    states = [pictures.state(path) for path in ("a", "broken", "39")]
    assert states == ["shown", "unreadable", "omitted"]
    assert Pictures(None).state("a") == "not wanted"


def test_maps_mark_wrong_answers_with_crosses(make_result: MakeResult) -> None:
    result = make_result()
    points = tuple((float(index), 0.0) for index in range(result.n))
    drawn = drawn_maps(EmbeddingMap(method="pca", baseline=points, finetuned=points), result)
    assert drawn["method"] == "PCA" and drawn["shown"] is None
    for figure, model in zip(drawn["maps"], (result.baseline, result.finetuned), strict=True):
        assert model is not None
        dots = sum(path.count("M") for path in re.findall(r'class="dots" d="([^"]*)"', figure.svg))
        crosses = sum(path.count("M") for path in re.findall(r'class="crosses" d="([^"]*)"', figure.svg))
        right = int((model.predictions == result.targets_N).sum())
        assert (dots, crosses) == (right, result.n - right)
    assert len({hue(index, 15) for index in range(15)}) == 15
    hostile = make_result(classes=['<b>"', "&", "x"])
    assert "<b>" not in drawn_maps(EmbeddingMap(method="pca", baseline=points, finetuned=None), hostile)["maps"][0].svg


def test_large_maps_are_thinned_out(make_result: MakeResult) -> None:
    result = make_result(n=20_000, skill=None)
    points = tuple((float(index), float(index % 7)) for index in range(result.n))
    drawn = drawn_maps(EmbeddingMap(method="umap", baseline=points, finetuned=None), result)
    assert drawn["shown"] == 5000
    assert len(drawn["maps"][0].svg) < 200_000


def test_methods_stand_against_each_other(twelve_rows: list[ComparisonRow], tmp_path: Path) -> None:
    rows = [row for row in twelve_rows if row.name in {"zero-shot", "lora", "coop"}]
    tests = [
        PairedTest(first="zero-shot", second="lora", difference=0.005, p=0.2, p_holm=0.4, test="mcnemar"),
        PairedTest(first="coop", second="zero-shot", difference=-0.32, p=0.0001, p_holm=0.0003, test="mcnemar"),
        PairedTest(first="lora", second="coop", difference=0.315, p=0.0001, p_holm=0.0003, test="mcnemar"),
    ]
    table = comparison_page.pairwise_table(rows, tests)
    assert [line["name"] for line in table] == ["CoOp", "LoRA", "zero-shot"]
    places = [[cell and cell["place"] for cell in line["cells"]] for line in table]
    assert places == [[None, "better", "better"], ["worse", None, "alike"], ["worse", "alike", None]]
    assert table[1]["cells"][0] == {
        "difference": "−31.5",
        "p": "p < 0.001",
        "plain": "p < 0.001",
        "place": "worse",
    }
    write_comparison(rows, {}, tmp_path, facts={}, pairwise=tests, command="")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert_accessible(page)
    assert "zero-shot worse: −32.0 p < 0.001 not significant: −0.5 p = 0.400" in page.text
    assert "CoOp 94.5 % ± 1.00 93.5 % 95.5 % 93.5 (seed 0) , 94.5 (seed 1)" in page.text
    assert comparison_page.pairwise_table(rows, []) == []


def test_the_page_stays_small(tmp_path: Path) -> None:
    """HAR's largest test split, with photographs as hard to compress as any: the budget holds them."""
    n = 5400
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8))
    targets = np.arange(n) % 15
    scores = rng.dirichlet(np.ones(15), size=n)
    scores[np.arange(n), targets] += 0.15
    scores /= scores.sum(axis=1, keepdims=True)
    result = evaluate(
        classes=[f"action {index}" for index in range(15)],
        paths=[f"test/action {index % 15}/Image_{index}.jpg" for index in range(n)],
        targets_N=targets,
        baseline_NC=rng.dirichlet(np.ones(15), size=n),
        finetuned_NC=scores,
    )
    page = page_with(result, every_finding(result, tmp_path), lambda path: noise, tmp_path)
    assert len(page.photographs) > 100 and len(page.source) < 4_000_000


def test_an_overlay_that_is_missing_is_left_out(
    make_result: MakeResult, load_thumbnail: Loader, tmp_path: Path
) -> None:
    result = make_result()
    findings = every_finding(result, tmp_path)
    with_overlay = page_with(result, findings, load_thumbnail, tmp_path)
    assert "relevance for clapping" in with_overlay.text
    gone = replace(findings.explanations[0], overlay="none.png")
    page = page_with(result, replace(findings, explanations=(gone,)), load_thumbnail, tmp_path)
    assert "relevance for" not in page.text and "Closest prompts" in page.text
