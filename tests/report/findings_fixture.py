"""Made-up findings that fit a made-up evaluation: one of every kind, so that a page shows all its parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from clip_har.audit.records import Check
from clip_har.evaluation import EvalResult
from clip_har.evaluation.findings import (
    BaseNovel,
    Confidence,
    ConformalLevel,
    CorruptionScore,
    EmbeddingMap,
    Explanation,
    Neighbour,
    ReliabilityBin,
    Robustness,
    SelectivePoint,
    ShiftScore,
    Unseen,
    WiseCurve,
    WisePoint,
)
from clip_har.evaluation.unknown import UnknownActions, unknown_score
from clip_har.report import DataSummary, ReportParts


def bins(shift: float) -> tuple[ReliabilityBin, ...]:
    return tuple(
        ReliabilityBin(
            lower=index / 15,
            upper=(index + 1) / 15,
            count=index * 3,
            confidence=(index + 0.5) / 15 if index else 0.0,
            accuracy=min(1.0, (index + 0.5) / 15 + shift) if index else 0.0,
        )
        for index in range(15)
    )


def confidence(temperature: float) -> Confidence:
    return Confidence(
        temperature=temperature,
        ece_before=0.123,
        ece_after=0.045,
        reliability_before=bins(0.1),
        reliability_after=bins(0.0),
        risk_coverage=tuple((step / 20, 0.3 * (step / 20) ** 2) for step in range(1, 21)),
        aurc=0.087,
        selective=(
            SelectivePoint(wished_accuracy=0.95, threshold=0.61, coverage=0.72, accuracy=0.957),
            SelectivePoint(wished_accuracy=0.99, threshold=None, coverage=0.0, accuracy=0.0),
        ),
        conformal=(ConformalLevel(level=0.9, threshold=0.81, coverage=0.912, mean_size=1.84),),
    )


def every_finding(result: EvalResult, folder: Path) -> ReportParts:
    """One finding of each kind; the explanation's overlay is written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60), "orange").save(folder / "overlay.png")
    points = np.random.default_rng(0).normal(size=(2, result.n, 2)).tolist()
    kinds = ("gaussian-noise", "jpeg")
    first, second = result.classes[:2]
    return ReportParts(
        confidence_baseline=confidence(0.8),
        confidence_finetuned=confidence(1.4),
        robustness=Robustness(
            images=90,
            clean_baseline=0.6,
            clean_finetuned=0.9,
            scores=tuple(
                CorruptionScore(kind=kind, severity=level, baseline=0.6 - level / 20, finetuned=0.9 - level / 10)
                for kind in kinds
                for level in (1, 3, 5)
            ),
            mean_baseline=0.45,
            mean_finetuned=0.6,
        ),
        shifts=(
            ShiftScore(
                name="elsewhere",
                images=1812,
                classes=5,
                baseline=0.7,
                baseline_ci95=(0.65, 0.75),
                finetuned=0.64,
                finetuned_ci95=(0.6, 0.68),
                mcnemar_p=0.012,
            ),
        ),
        unseen=Unseen(
            base_classes=result.classes[2:],
            novel_classes=(first, second),
            baseline=BaseNovel(base=0.7, novel=0.8, harmonic=0.747),
            finetuned=BaseNovel(base=0.9, novel=0.75, harmonic=0.818),
        ),
        unknown=UnknownActions(
            classes=(first, second),
            known=72,
            unknown=24,
            rate=0.05,
            scores=tuple(
                unknown_score(model, score, *np.random.default_rng(1).normal([[level], [0.0]], size=(2, 40)))
                for model, score, level in (("zero-shot", "max-softmax", 0.5), ("lora", "energy", 1.5))
            ),
        ),
        wise_curve=WiseCurve(
            points=tuple(WisePoint(alpha=s / 4, in_domain=0.6 + s / 16, corrupted=0.5) for s in range(5)),
            chosen=0.75,
            severity=3,
        ),
        explanations=(
            Explanation(
                path=result.paths[0],
                true=first,
                predicted=second,
                confidence=0.77,
                overlay="overlay.png",
                prompts=((f"a photo of a person {second}.", 0.31), (f"a photo of a person {first}.", 0.28)),
                neighbours=(Neighbour(path="train/7.jpg", label=second, similarity=0.91),),
            ),
        ),
        embedding_map=EmbeddingMap(
            method="umap",
            baseline=tuple((x, y) for x, y in points[0]),
            finetuned=tuple((x, y) for x, y in points[1]),
        ),
        data=DataSummary(
            counts={"train": dict.fromkeys(result.classes, 1100), "test": dict.fromkeys(result.classes, 12)},
            unreadable=(("train/broken.jpg", "cut off"),),
            warnings=("A split was cut.",),
            checks=(Check(name="leaks", found=3, limit=0), Check(name="odd", found=0, limit=None, performed=False)),
        ),
    )
