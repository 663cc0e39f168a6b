"""A made-up comparison of six models at three methods, of which one model and one method are missing."""

from __future__ import annotations

import numpy as np

from clip_har.evaluation import ComparisonRow, EvalResult, evaluate
from clip_har.evaluation.model_comparison import ComparedModel, ModelFigures, ModelTable, model_table
from report.conftest import ACTIONS, row_of, scores_for

METHODS = ("zero-shot", "linear-probe", "lora")
NO_NETWORK = "The weights of RN50 could not be downloaded. Use --model demo, which needs no download."
NO_PROJECTION = "lora cannot train this model. Remove it from --methods."
# Name, images per second, million parameters, side, skill of each method.
MODELS: tuple[tuple[str, float, float, int, tuple[float, float, float]], ...] = (
    ("local-dir:/models/tiny/clip", 900.0, 2.1, 64, (0.6, 1.2, 1.1)),
    ("ViT-B/32", 110.0, 151.3, 224, (1.6, 2.6, 2.5)),
    ("ViT-B/16", 31.0, 149.6, 224, (1.8, 3.0, 2.9)),
    ("hf-hub:timm/ViT-B-16-SigLIP2-256", 27.0, 375.2, 256, (2.0, 2.9, 3.3)),
    ("ViT-B-16-quickgelu:dfn2b", 30.0, 149.6, 224, (1.9, 2.7, 2.6)),
)


def result_of(skill: float | None, seed: int) -> EvalResult:
    targets = np.arange(160) % len(ACTIONS)
    return evaluate(
        classes=ACTIONS,
        paths=[f"{ACTIONS[target]}/{index}.jpg" for index, target in enumerate(targets.tolist())],
        targets_N=targets,
        baseline_NC=scores_for(targets, len(ACTIONS), 0.8, seed=1),
        finetuned_NC=None if skill is None else scores_for(targets, len(ACTIONS), skill, seed=seed),
    )


def made_up_table(*, seeds: int = 1, timed: bool = True) -> ModelTable:
    models, evaluations = [], {}
    for number, (name, rate, millions, side, skills) in enumerate(MODELS):
        found = {
            method: {
                seed: result_of(skill, 10 * number + seed) for seed in range(seeds if method != "zero-shot" else 1)
            }
            for method, skill in zip(METHODS, skills, strict=True)
            if (number, method) != (2, "lora")
        }
        evaluations[name] = found
        rows: list[ComparisonRow] = [row_of(method, list(by_seed.values()), 1000) for method, by_seed in found.items()]
        figures = ModelFigures(
            parameters=round(millions * 1e6),
            image_parameters=round(millions * 6e5),
            embed_dim=512,
            image_size=(side, side),
            images_per_second=rate if timed else None,
            licence="MIT" if number else "",
            pretraining_data="WIT, 400 million pairs" if number else "",
        )
        skipped = {"lora": NO_PROJECTION} if number == 2 else {}
        models.append(
            ComparedModel(name=name, folder=f"model-{number}", figures=figures, rows=tuple(rows), skipped=skipped)
        )
    models.insert(1, ComparedModel(name="RN50", folder="RN50", error=NO_NETWORK))
    return model_table(models, evaluations, methods=METHODS, split="test", images=160)
