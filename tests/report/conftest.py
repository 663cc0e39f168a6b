"""Made-up evaluations that look like real ones, from seeded generators.

The scores are random with a bias to the truth; no model runs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from clip_har.evaluation import ComparisonRow, EpochRecord, EvalResult, evaluate

ACTIONS = ["calling", "clapping", "cycling", "dancing", "drinking", "eating", "fighting", "hugging"]
Scores = npt.NDArray[np.float64]
MakeResult = Callable[..., EvalResult]


def scores_for(targets: npt.NDArray[np.int64], n_classes: int, skill: float, seed: int) -> Scores:
    logits = np.random.default_rng(seed).normal(size=(len(targets), n_classes))
    logits[np.arange(len(targets)), targets] += skill
    exponentials = np.exp(logits)
    scores: Scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scores


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


def comparison_row(method: str, result: EvalResult, params: int = 0) -> ComparisonRow:
    metrics = result.best.metrics
    return ComparisonRow(
        method=method,
        accuracy=metrics.accuracy,
        accuracy_ci95=metrics.accuracy_ci95,
        macro_f1=metrics.macro_f1,
        ece=metrics.ece,
        trainable_params=params,
        trainable_fraction=params / 151_277_313,
        peak_memory_bytes=400_000_000 if params else None,
        train_seconds=75.0 if params else None,
        mcnemar_p=result.mcnemar_p,
    )


@pytest.fixture
def comparison(make_result: MakeResult) -> tuple[list[ComparisonRow], dict[str, EvalResult]]:
    results = {
        "zero-shot": make_result(skill=None),
        "lora": make_result(skill=3.0),
        "full": make_result(skill=0.8, name="full"),
    }
    params = {"zero-shot": 0, "lora": 32769, "full": 151_277_313}
    rows = [comparison_row(name, result, params[name]) for name, result in results.items()]
    return rows, results
