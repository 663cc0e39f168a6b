"""One evaluation -> one HTML file that needs nothing beside it.

Words and selection are here, layout is in templates/, plots come ready from `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip_har import wording
from clip_har.evaluation import EvalResult, collapse_of, confused_pairs
from clip_har.report import sections
from clip_har.report.confusion import cell_id, cell_sections, confusion_table
from clip_har.report.embedding_map import drawn_maps
from clip_har.report.explanations import EXPLANATIONS_LIMIT, explanations
from clip_har.report.galleries import changes, galleries
from clip_har.report.html import environment, fact_rows, photograph, split_word
from clip_har.report.overview import overview
from clip_har.report.parts import NOTHING, ReportParts
from clip_har.report.pictures import Pictures, ThumbnailLoader
from clip_har.report.style import Plot
from clip_har.report.tables import METRIC_FIELDS, metric_values

PAIRS_LIMIT = 10
HARD_PAIRS_LIMIT = 12


def evaluation_page(
    result: EvalResult,
    *,
    facts: Mapping[str, Any],
    figures: Mapping[str, Plot],
    hard_pairs: Mapping[str, Any] | None = None,
    findings: ReportParts = NOTHING,
    folder: Path | None = None,
    command: str,
    load_thumbnail: ThumbnailLoader | None,
) -> str:
    """The page of one evaluation.

    Args:
        result: what was measured.
        facts: facts about the run, as `fact_rows` knows them.
        figures: "confusion" and "per_class"; "confusion_baseline", "training", "interpolation" and those of
            `finding_plots` where they apply.
        hard_pairs: as for `report.write_evaluation`.
        findings: what else is known.
        folder: where the explanations' overlays lie.
        command: the command line that makes this page again.
        load_thumbnail: a path from `result.paths` -> image, or None if it cannot be read. Without it the
            page has no photographs.
    """
    pictures = Pictures(load_thumbnail)
    context = {
        **_answer(result, facts),
        **_metrics(result, figures),
        # What comes first has first call on the budget of photographs.
        "explanations": explanations(findings.explanations[:EXPLANATIONS_LIMIT], pictures, folder),
        "galleries": galleries(result, pictures),
        "n_mistakes": int((result.best.predictions != result.targets_N).sum()),
        "hard_pairs": _hard_pairs(hard_pairs, pictures),
        **_confusion(result, pictures),
        **_findings(result, findings),
        "facts": fact_rows(facts),
        "environment": sections.environment_rows(facts),
        "versions": [],
        "command": command,
    }
    return environment().get_template("report.html.j2").render(**context, photographs=pictures.shown)


def _answer(result: EvalResult, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the page opens with."""
    return {
        "headline": headline(result),
        "verdict": verdict(result),
        "alarm": alarm(result),
        "split": split_word(result.split),
        "result": result,
        "label": wording.method_label(result.best.name),
        "bars": _accuracy_bars(result),
        "key_facts": key_facts(result, facts),
    }


def _metrics(result: EvalResult, figures: Mapping[str, Plot]) -> dict[str, Any]:
    found = changes(result)
    return {
        "figures": figures,
        "metrics": _metric_rows(result),
        "classes": _class_rows(result, None if found is None else found["by_class"]),
        "changes": found,
    }


def _confusion(result: EvalResult, pictures: Pictures) -> dict[str, Any]:
    """The matrix, the photographs behind its cells, and the most frequent mistakes."""
    cells = cell_sections(result, pictures)
    places = {name: index for index, name in enumerate(result.classes)}
    before = None
    if result.finetuned is not None:
        before = confusion_table(result.classes, result.baseline.metrics.confusion)
    return {
        "matrix": confusion_table(result.classes, result.best.metrics.confusion, cells),
        "matrix_before": before,
        "cells": list(cells.values()),
        "pairs": [
            (pair, cell_id(*cell) if (cell := (places[pair.true], places[pair.predicted])) in cells else None)
            for pair in confused_pairs(result.best.metrics, PAIRS_LIMIT)
        ],
    }


def _findings(result: EvalResult, findings: ReportParts) -> dict[str, Any]:
    """The optional parts that need no photographs."""
    label = wording.method_label(result.best.name)
    return {
        "adaptation": overview(result, findings),
        "confidence": sections.confidence_tables(findings, label),
        "corruptions": sections.corruption_rows(findings.robustness),
        "shifts": findings.shifts,
        "unseen": findings.unseen,
        "unknown": findings.unknown,
        "wise": findings.wise_curve,
        "map": None if findings.embedding_map is None else drawn_maps(findings.embedding_map, result),
        "data": sections.data_summary(findings.data, result.warnings),
    }


def key_facts(result: EvalResult, facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The gain, what it is worth and what it cost: label, figure, and what the figure stands beside."""
    tiles = []
    if result.finetuned is not None and result.mcnemar_p is not None and result.difference_ci95 is not None:
        gain = result.finetuned.metrics.accuracy - result.baseline.metrics.accuracy
        low, high = result.difference_ci95
        interval = f"points; 95 % interval {wording.points(low)} to {wording.points(high)}"
        tiles.append(("Against zero-shot", wording.points(gain), interval))
        tiles.append(("McNemar’s test", wording.p_value(result.mcnemar_p), "two-sided, on the same images"))
    if facts.get("trainable_params"):
        fraction = facts.get("trainable_fraction")
        beside = "" if fraction is None else f"{wording.share(fraction)} of the model"
        tiles.append(("Trained parameters", wording.thousands(facts["trainable_params"]), beside))
    if facts.get("train_seconds") is not None:
        tiles.append(("Training time", wording.duration(facts["train_seconds"]), ""))
    if facts.get("peak_memory_bytes") is not None:
        tiles.append(("Peak memory", wording.size(facts["peak_memory_bytes"]), "of the training"))
    return tiles


def headline(result: EvalResult) -> str:
    """The answer in one sentence."""
    label = wording.sentence_start(
        "zero-shot CLIP" if result.finetuned is None else wording.method_label(result.finetuned.name)
    )
    images = f"{wording.thousands(result.n)} {split_word(result.split)} image{'' if result.n == 1 else 's'}"
    sentence = f"{label} classifies {wording.percent(result.best.metrics.accuracy)} of {images} correctly"
    if result.finetuned is not None:
        sentence += f"; zero-shot CLIP {wording.percent(result.baseline.metrics.accuracy)}"
    return sentence + "."


def alarm(result: EvalResult) -> str:
    """What must be seen before anything else: a collapse, or an adaptation that did harm; else nothing."""
    collapse = collapse_of(result.best.metrics)
    if collapse is not None:
        answer, share = collapse
        return f"Collapsed: {wording.percent(share, 0)} of the predictions are {answer}"
    if result.finetuned is None or result.mcnemar_p is None:
        return ""
    harmed = result.finetuned.metrics.accuracy < result.baseline.metrics.accuracy
    return "Below zero-shot" if harmed and result.mcnemar_p < wording.SIGNIFICANT_BELOW else ""


def verdict(result: EvalResult) -> str:
    """What the difference to zero-shot is worth, in one sentence; for zero-shot alone, its interval."""
    if result.finetuned is None or result.mcnemar_p is None or result.difference_ci95 is None:
        interval = wording.percent_interval(result.baseline.metrics.accuracy_ci95)
        return f"The 95 % interval is {interval}. Nothing is fine-tuned yet: this is the baseline."
    difference = result.finetuned.metrics.accuracy - result.baseline.metrics.accuracy
    low, high = result.difference_ci95
    evidence = (
        f"95 % interval {wording.points(low)} to {wording.points(high)}; "
        f"McNemar’s test: {wording.p_value(result.mcnemar_p)}"
    )
    if result.mcnemar_p >= wording.SIGNIFICANT_BELOW:
        return f"The difference of {wording.points(difference)} points may be due to chance ({evidence})."
    size = f"{abs(100 * difference):.1f} percentage points"
    if difference < 0:
        return f"That is {size} below zero-shot: fine-tuning made the model worse ({evidence})."
    return f"That is {size} above zero-shot ({evidence})."


def _accuracy_bars(result: EvalResult) -> list[dict[str, Any]]:
    """The models as bars with intervals; numbers are percentages of the track's length."""
    models = [result.baseline] + ([result.finetuned] if result.finetuned else [])
    bars = []
    for model in models:
        low, high = model.metrics.accuracy_ci95
        bars.append(
            {
                "label": wording.method_label(model.name),
                "kind": "baseline" if model is result.baseline else "finetuned",
                "width": f"{100 * model.metrics.accuracy:.2f}",
                "low": f"{100 * low:.2f}",
                "span": f"{100 * (high - low):.2f}",
                "text": wording.percent(model.metrics.accuracy),
                "interval": wording.percent_interval(model.metrics.accuracy_ci95),
            }
        )
    return bars


def _metric_rows(result: EvalResult) -> list[dict[str, str]]:
    """The table of metrics. Top-3 and top-5 are left out where they are 1 by definition."""
    before = metric_values(result.baseline.metrics)
    after = metric_values(result.finetuned.metrics) if result.finetuned else {}
    trivial = {f"Top-{k} Accuracy" for k in (3, 5) if len(result.classes) <= k}
    return [
        {
            "name": name,
            "before": f"{before[name]:.3f}",
            "after": f"{after[name]:.3f}" if after else "",
            "change": f"{after[name] - before[name]:.6f}" if after else "",
            "difference": wording.signed(after[name] - before[name], 3) if after else "",
        }
        for name in METRIC_FIELDS
        if name not in trivial
    ]


def _class_rows(result: EvalResult, changed: Mapping[str, list[int]] | None) -> list[dict[str, Any]]:
    """One row for each class; values are None for a class without images."""
    rows = []
    pairs = zip(result.baseline.metrics.per_class, result.best.metrics.per_class, strict=True)
    for index, (before, after) in enumerate(pairs):
        row: dict[str, Any] = {"name": after.name, "support": after.support}
        if changed is not None:
            row |= {"fixed": changed["fixed"][index], "broken": changed["broken"][index]}
        if after.support:
            row |= {
                "precision": after.precision,
                "recall": after.recall,
                "f1": after.f1,
                "before": before.f1,
                "change": after.f1 - before.f1,
            }
        rows.append(row)
    return rows


def _hard_pairs(pairs: Mapping[str, Any] | None, pictures: Pictures) -> dict[str, Any] | None:
    """The mined pairs as the template wants them, the most alike images first."""
    if not pairs or not (pairs.get("class_pairs") or pairs.get("image_pairs")):
        return None
    alike = sorted(pairs.get("image_pairs", ()), key=lambda pair: -pair["similarity"])[:HARD_PAIRS_LIMIT]
    return {
        "classes": pairs.get("class_pairs", ()),
        "images": [
            {
                "similarity": f"{pair['similarity']:.2f}",
                "sides": [
                    {"label": pair[label], **photograph(pair[path], pictures)}
                    for path, label in (("image", "label"), ("rival_image", "rival_label"))
                ],
            }
            for pair in alike
        ],
    }
