"""The page of explanations: self-contained and escaped, bars from zero, and everything known of each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from clip_har.evaluation.findings import ClassChange, ConfusedImages, ExplainResult, Explanation, Neighbour
from clip_har.report import write_explanations
from clip_har.report.explanations import explanations
from clip_har.report.pictures import Pictures
from report.test_report_page import HOSTILE, Page, assert_accessible, assert_self_contained

Loader = Callable[[str], Image.Image | None]
WRONG = Explanation(
    path="test/running/1.jpg",
    true="running",
    predicted="sitting",
    confidence=0.8,
    top=(("sitting", 0.8), ("running", 0.15), ("eating", 0.03), ("texting", 0.02)),
    overlay="overlay_000.png",
    overlay_true="overlay_000_true.png",
    prompts=(("a person sitting", 0.3), ("a person running", 0.24), ("a person eating", -0.1)),
    neighbours=(Neighbour(path="train/running/7.jpg", label="running", similarity=0.91),),
)
RESULT = ExplainResult(
    run="runs/lora",
    method="lora",
    classes=("eating", "running", "sitting", "texting"),
    map_method="attention relevance",
    explanations=(WRONG, replace(WRONG, predicted="running", overlay="overlay_001.png", overlay_true=None)),
    confused=(ConfusedImages(true="running", predicted="sitting", count=1200, support=2000, paths=()),),
    changes=(
        ClassChange(name="running", support=40, baseline=0.5, finetuned=0.4, fixed=1, broken=5),
        ClassChange(name="sitting", support=40, baseline=0.5, finetuned=0.75, fixed=12, broken=2),
    ),
)


def page_of(result: ExplainResult, folder: Path, load_thumbnail: Loader | None) -> Page:
    for name in ("overlay_000.png", "overlay_000_true.png", "overlay_001.png"):
        Image.new("RGB", (80, 60), "orange").save(folder / name)
    out = write_explanations(result, folder, command="clip-har explain runs/lora", load_thumbnail=load_thumbnail)
    assert out == folder / "report.html"
    return Page(out.read_text(encoding="utf-8"))


def test_the_page_shows_everything_of_each_image(load_thumbnail: Loader, tmp_path: Path) -> None:
    page = page_of(RESULT, tmp_path, load_thumbnail)
    assert_self_contained(page)
    assert_accessible(page)
    for words in (
        "explanations of runs/lora LoRA: 2 images explained",
        "1 of 2 predictions is wrong.",
        "running predicted sitting, 80 % test/running/1.jpg relevance for sitting",
        "relevance for the true class, running Probabilities",
        "running ✓ running, 80 %",
        "Probabilities sitting 80.0 % running 15.0 % eating 3.0 % Closest prompts",
        "Closest prompts a person sitting 0.300 a person running 0.240 a person eating -0.100",
        "Closest training images running 0.91",
        "running sitting 1,200 2,000",
        "sitting 50.0 % 75.0 % 12 2 40 running",  # what gained most comes first
        "Reproduce clip-har explain runs/lora",
    ):
        assert words in page.text, words
    assert len(page.photographs) == 5  # the image and its neighbour once, and three overlays


def test_bars_start_at_zero() -> None:
    [entry] = explanations([WRONG], Pictures(None), None)
    assert [prompt["width"] for prompt in entry["prompts"]] == ["100", "80", "0"]
    assert [row["width"] for row in entry["top"]] == ["80", "15", "3"]
    [entry] = explanations([replace(WRONG, prompts=(("a", 0.0), ("b", -0.2)))], Pictures(None), None)
    assert [prompt["width"] for prompt in entry["prompts"]] == ["0", "0"]


def test_images_whose_class_is_not_known(load_thumbnail: Loader, tmp_path: Path) -> None:
    unknown = replace(WRONG, true=None, overlay_true=None, neighbours=())
    bare = replace(RESULT, map_method=None, explanations=(unknown,), confused=(), changes=())
    page = page_of(bare, tmp_path, load_thumbnail)
    assert_accessible(page)
    assert "LoRA: 1 image explained" in page.text and "predicted sitting, 80 %" in page.text
    assert "wrong" not in page.text and "Recall" not in page.text and "None" not in page.text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(text: str, load_thumbnail: Loader, tmp_path: Path) -> None:
    entry = replace(
        WRONG,
        path=text,
        true=text,
        predicted=text,
        top=((text, 1.0),),
        prompts=((text, 0.3),),
        neighbours=(Neighbour(path=text, label=text, similarity=0.9),),
    )
    confused = (ConfusedImages(true=text, predicted=text, count=1, support=2, paths=(text,)),)
    changes = (replace(RESULT.changes[0], name=text),)
    result = replace(RESULT, run=text, method=text, explanations=(entry,), confused=confused, changes=changes)
    page = page_of(result, tmp_path, load_thumbnail)
    assert_self_contained(page)
    assert_accessible(page)
    assert len(page.of("script")) == 1


def test_an_overlay_that_is_missing_is_left_out(load_thumbnail: Loader, tmp_path: Path) -> None:
    gone = replace(WRONG, overlay="none.png", overlay_true="../none.png")
    page = page_of(replace(RESULT, explanations=(gone,)), tmp_path, load_thumbnail)
    assert "relevance for" not in page.text and len(page.photographs) == 2
