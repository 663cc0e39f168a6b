"""Made-up evaluations that look like real ones, from seeded generators.

The scores are random with a bias to the truth; no model runs.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from clip_har.evaluation import ComparisonRow, EpochRecord, EvalResult, comparison_row, evaluate

ACTIONS = ["calling", "clapping", "cycling", "dancing", "drinking", "eating", "fighting", "hugging"]
Scores = npt.NDArray[np.float64]
MakeResult = Callable[..., EvalResult]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",  # its sandbox does not start as root
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def scores_for(targets: npt.NDArray[np.int64], n_classes: int, skill: float, seed: int) -> Scores:
    logits = np.random.default_rng(seed).normal(size=(len(targets), n_classes))
    logits[np.arange(len(targets)), targets] += skill
    exponentials = np.exp(logits)
    scores: Scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scores


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """An installed Chromium, headless, with an empty profile of its own; Playwright downloads none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if chromium is None:
        pytest.skip("no Chromium is installed, nor named by CHROMIUM")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def make_result() -> MakeResult:
    def make(
        classes: Sequence[str] = ACTIONS,
        n: int = 96,
        *,
        skill: float | None = 3.0,
        name: str = "lora",
        split: str = "test",
        warnings: Sequence[str] = (),
    ) -> EvalResult:
        targets = np.arange(n) % len(classes)
        return evaluate(
            classes=classes,
            paths=[f"{classes[target]}/{index}.jpg" for index, target in enumerate(targets.tolist())],
            targets_N=targets,
            baseline_NC=scores_for(targets, len(classes), 0.8, seed=1),
            finetuned_NC=None if skill is None else scores_for(targets, len(classes), skill, seed=2),
            finetuned_name=name,
            split=split,
            warnings=warnings,
        )

    return make


@pytest.fixture
def history() -> list[EpochRecord]:
    return [
        EpochRecord(
            epoch=epoch,
            train_loss=2 / epoch,
            val_loss=None if epoch == 2 else 2.5 / epoch,
            val_accuracy=0.5 + 0.04 * epoch,
            val_macro_f1=0.5,
            lr=1e-3,
            seconds=1.5,
            best=epoch <= 3,
        )
        for epoch in range(1, 5)
    ]


@pytest.fixture
def load_thumbnail() -> Callable[[str], Image.Image | None]:
    def load(path: str) -> Image.Image | None:
        rng = np.random.default_rng(zlib.crc32(path.encode("utf-8", "surrogateescape")))
        small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        return small.resize((640, 480))

    return load


def row_of(name: str, results: Sequence[EvalResult], params: int = 0) -> ComparisonRow:
    return comparison_row(
        name,
        results[0].best.name,
        dict(enumerate(results)),
        trainable_params=params,
        trainable_fraction=params / 151_277_313,
        peak_memory_bytes=[400_000_000 if params else None] * len(results),
        train_seconds=[75.0 if params else None] * len(results),
    )


@pytest.fixture
def comparison(make_result: MakeResult) -> tuple[list[ComparisonRow], dict[str, EvalResult]]:
    results = {
        "zero-shot": make_result(skill=None),
        "lora": make_result(skill=3.0),
        "full": make_result(skill=0.8, name="full"),
    }
    params = {"zero-shot": 0, "lora": 32769, "full": 151_277_313}
    rows = [row_of(name, [result], params[name]) for name, result in results.items()]
    return rows, results


NAMES = "zero-shot linear-probe lora lora-attention full two-tier augmented lp-ft wise-ft coop clip-adapter tip-adapter"


@pytest.fixture
def twelve_rows() -> list[ComparisonRow]:
    """Twelve methods over three seeds, among them one collapsed, one below and one like zero-shot."""
    rows = []
    for index, name in enumerate(NAMES.split()):
        accuracy = {"zero-shot": 0.63, "full": 0.07, "tip-adapter": 0.58, "lora": 0.635}.get(name, 0.9 + index / 200)
        rows.append(
            ComparisonRow(
                name=name,
                method="lora" if name == "lora-attention" else name,
                seeds=(0, 1, 2),
                accuracies=(accuracy - 0.01, accuracy, accuracy + 0.01),
                accuracy=accuracy,
                accuracy_ci95=(accuracy - 0.02, accuracy + 0.02),
                accuracy_std=0.01,
                macro_f1=accuracy,
                macro_f1_std=0.012,
                ece=0.05,
                trainable_params=0 if name == "zero-shot" else 10**index,
                trainable_fraction=0.0 if name == "zero-shot" else 0.01,
                peak_memory_bytes=None if name == "zero-shot" else index * 2**30,
                train_seconds=None if name == "zero-shot" else 3.0 ** (index % 9),
                mcnemar_p=None if name == "zero-shot" else 0.4 if name == "lora" else 0.0001,
                collapsed=name == "full",
                note="answers running for 97% of the images" if name == "full" else "",
            )
        )
    return rows
