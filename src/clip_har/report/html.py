"""Results -> one HTML file that needs nothing beside it, for one evaluation or for a comparison.

Words and selection are here, layout is in templates/, plots come ready from `plots`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from clip_har.errors import UnreadableImageError
from clip_har.evaluation import ClassMetrics, ComparisonRow, EvalResult, Evaluated, confused_pairs
from clip_har.report import plots, sheet, wording
from clip_har.report.style import Plot
from clip_har.report.tables import METRIC_FIELDS, metric_values

ThumbnailLoader = Callable[[str], Image.Image | None]

GALLERY_LIMIT = 24
PAIRS_LIMIT = 8
SPLIT_WORDS = {"test": "test", "val": "validation", "train": "training"}


def evaluation_page(
    result: EvalResult,
    *,
    card: Mapping[str, Any],
    figures: Mapping[str, Plot],
    command: str,
    load_thumbnail: ThumbnailLoader | None,
) -> str:
    """The page of one evaluation.

    Args:
        result: what was measured.
        card: facts about the run, as `card_rows` knows them.
        figures: "confusion" and "per_class"; "confusion_baseline" and "training" where they apply.
        command: the command line that makes this page again.
        load_thumbnail: a path from `result.paths` -> image, or None if it cannot be read. Without it the
            page has no photographs.
    """
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            headline=headline(result),
            verdict=verdict(result),
            split=split_word(result.split),
            result=result,
            label=wording.method_label(result.best.name),
            bars=_accuracy_bars(result),
            metrics=_metric_rows(result),
            card=card_rows(card),
            versions=_versions(card),
            figures=figures,
            classes=_class_rows(result),
            pairs=confused_pairs(result.best.metrics, PAIRS_LIMIT),
            mistakes=_mistakes(result, load_thumbnail),
            n_mistakes=int((result.best.predictions != result.targets_N).sum()),
            command=command,
        )
    )


def comparison_page(
    rows: Sequence[ComparisonRow],
    results: Mapping[str, EvalResult],
    *,
    card: Mapping[str, Any],
    figure: Plot,
    command: str,
    load_thumbnail: ThumbnailLoader | None,
) -> str:
    """The page of a comparison. `results` may lack methods; what needs them is then left out."""
    baseline = plots.baseline_row(rows)
    first = next(iter(results.values()), None)
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(
            headline=comparison_headline(rows, first),
            rows=sorted(rows, key=lambda row: -row.accuracy),
            baseline=baseline,
            standing={row.method: plots.standing(row, baseline) for row in rows},
            n_above=sum(plots.stands_above(row, baseline) for row in rows),
            first=first,
            split=split_word(first.split) if first else "",
            warnings=list(dict.fromkeys(text for result in results.values() for text in result.warnings)),
            figure=figure,
            methods=[wording.method_label(name) for name in results],
            classes=_classes_by_method(list(results.values())),
            hardest=_hardest(list(results.values()), load_thumbnail),
            card=card_rows(card),
            versions=_versions(card),
            command=command,
        )
    )


def headline(result: EvalResult) -> str:
    """The answer in one sentence."""
    label = wording.sentence_start(
        "zero-shot CLIP" if result.finetuned is None else wording.method_label(result.finetuned.name)
    )
    images = f"{wording.thousands(result.n)} {split_word(result.split)} image{'' if result.n == 1 else 's'}"
    sentence = f"{label} answers {wording.percent(result.best.metrics.accuracy)} of {images} correctly"
    if result.finetuned is not None:
        sentence += f"; zero-shot CLIP {wording.percent(result.baseline.metrics.accuracy)}"
    return sentence + "."


def verdict(result: EvalResult) -> str:
    """What the difference to zero-shot is worth, in one sentence; for zero-shot alone, its interval."""
    if result.finetuned is None or result.mcnemar_p is None or result.difference_ci95 is None:
        interval = wording.percent_interval(result.baseline.metrics.accuracy_ci95)
        return f"The 95 % interval is {interval}. Nothing has been adapted yet: this is the level to beat."
    difference = result.finetuned.metrics.accuracy - result.baseline.metrics.accuracy
    low, high = result.difference_ci95
    evidence = (
        f"95 % interval {wording.points(low)} to {wording.points(high)}; "
        f"McNemar’s test: {wording.p_value(result.mcnemar_p)}"
    )
    if result.mcnemar_p >= wording.SIGNIFICANT_BELOW:
        return f"The difference of {wording.points(difference)} points may well be chance ({evidence})."
    size = f"{abs(100 * difference):.1f} percentage points"
    if difference < 0:
        return f"That is {size} below zero-shot: the adaptation did harm ({evidence})."
    return f"That is {size} above zero-shot ({evidence})."


def comparison_headline(rows: Sequence[ComparisonRow], result: EvalResult | None) -> str:
    """The answer in one sentence: the most accurate method, unless none is shown to be above zero-shot."""
    baseline = plots.baseline_row(rows)
    images = "the images" if result is None else f"{result.n:,} {split_word(result.split)} images"
    best = max(rows, key=lambda row: row.accuracy)
    label = wording.method_label(best.method)
    if baseline is None:
        return f"{wording.sentence_start(label)} does best: {wording.percent(best.accuracy)} of {images}."
    if not any(plots.stands_above(row, baseline) for row in rows):
        level = wording.percent(baseline.accuracy)
        return f"No method is shown to be above zero-shot CLIP, which answers {level} of {images} correctly."
    return (
        f"{wording.sentence_start(label)} does best: {wording.percent(best.accuracy)} of {images} answered "
        f"correctly; zero-shot CLIP {wording.percent(baseline.accuracy)}."
    )


def split_word(split: str) -> str:
    """The split as an adjective: "val" -> "validation"."""
    return SPLIT_WORDS.get(split, split)


def card_rows(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of a run that are known, as label and text, in reading order.

    Known keys: method, backbone, activation, weights_hash, data, splits (split -> images), classes,
    templates, loss, seed, trainable_params, trainable_fraction, train_seconds, peak_memory_bytes, unreadable.
    """
    known: dict[str, Callable[[Any], str]] = {
        "method": lambda value: wording.method_label(str(value)),
        "backbone": str,
        "activation": str,
        "weights_hash": lambda value: wording.shortened(str(value), 24),
        "data": str,
        "splits": lambda value: ", ".join(f"{n:,} {split_word(name)}" for name, n in value.items()),
        "classes": lambda value: str(value if isinstance(value, int) else len(value)),
        "templates": _templates,
        "loss": str,
        "seed": str,
        "trainable_params": lambda value: _trainable(value, card.get("trainable_fraction")),
        "train_seconds": wording.duration,
        "peak_memory_bytes": wording.size,
        "unreadable": lambda value: f"{value:,} unreadable image{'' if value == 1 else 's'}",
    }
    labels = {
        "weights_hash": "Weights (hash)",
        "splits": "Images",
        "templates": "Prompts",
        "trainable_params": "Trained parameters",
        "train_seconds": "Training time",
        "peak_memory_bytes": "Peak memory",
        "unreadable": "Left out",
    }
    return [
        (labels.get(key, key.capitalize()), write(card[key]))
        for key, write in known.items()
        if card.get(key) is not None
    ]


def _trainable(count: int, fraction: float | None) -> str:
    text = wording.thousands(count)
    return text if fraction is None else f"{text} ({wording.share(fraction)})"


def _templates(templates: str | Sequence[str]) -> str:
    if isinstance(templates, str):
        return templates
    more = "" if len(templates) < 2 else f" and {len(templates) - 1} more"
    return f"“{templates[0]}”{more}" if templates else "none"


def _versions(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), str(version)) for name, version in (card.get("versions") or {}).items()]


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
            "difference": wording.signed(after[name] - before[name], 3) if after else "",
        }
        for name in METRIC_FIELDS
        if name not in trivial
    ]


def _class_rows(result: EvalResult) -> list[dict[str, Any]]:
    """One row for each class; values are None for a class without images."""
    rows = []
    for before, after in zip(result.baseline.metrics.per_class, result.best.metrics.per_class, strict=True):
        row: dict[str, Any] = {"name": after.name, "support": after.support}
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


def _classes_by_method(results: Sequence[EvalResult]) -> list[tuple[str, list[float]]]:
    """F1 of each class that has images under each method, if all methods know the same classes."""
    if not results or any(result.classes != results[0].classes for result in results):
        return []
    columns: list[tuple[ClassMetrics, ...]] = [result.best.metrics.per_class for result in results]
    return [(row[0].name, [entry.f1 for entry in row]) for row in zip(*columns, strict=True) if row[0].support]


def _mistakes(result: EvalResult, load_thumbnail: ThumbnailLoader | None) -> list[dict[str, Any]]:
    """The wrong answers that the model was surest of, surest first."""
    wrong = np.flatnonzero(result.best.predictions != result.targets_N)
    surest = wrong[np.argsort(-result.best.confidence[wrong], kind="stable")][:GALLERY_LIMIT]
    return [_tile(result, result.best, int(index), load_thumbnail) for index in surest]


def _hardest(results: Sequence[EvalResult], load_thumbnail: ThumbnailLoader | None) -> list[dict[str, Any]]:
    """Images that every method answers wrongly, those with the least probability for the truth first."""
    if not results or any(result.paths != results[0].paths for result in results):
        return []
    targets = results[0].targets_N
    wrong = np.all([result.best.predictions != targets for result in results], axis=0)
    truth_MN = [result.best.probabilities_NC[np.arange(len(targets)), targets] for result in results]
    order = np.argsort(np.mean(truth_MN, axis=0), kind="stable")
    chosen = [int(index) for index in order if wrong[index]][: GALLERY_LIMIT // 2]
    best = max(results, key=lambda result: result.best.metrics.accuracy)
    return [_tile(best, best.best, index, load_thumbnail) for index in chosen]


def _tile(result: EvalResult, model: Evaluated, index: int, load_thumbnail: ThumbnailLoader | None) -> dict[str, Any]:
    path = result.paths[index]
    return {
        "path": path,
        "true": result.classes[result.targets_N[index]],
        "answer": result.classes[model.predictions[index]],
        "confidence": wording.percent(float(model.confidence[index]), 0),
        "source": None if load_thumbnail is None else _thumbnail(path, load_thumbnail),
        "wanted": load_thumbnail is not None,
    }


def _thumbnail(path: str, load_thumbnail: ThumbnailLoader) -> Markup | None:
    """A data URI, or None for an image that has become unreadable since it was scored."""
    try:
        image = load_thumbnail(path)
    except UnreadableImageError:
        return None
    return None if image is None else Markup(sheet.data_uri(image))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clip_har.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: Iterable[Callable[..., str]] = (
        wording.duration,
        wording.method_label,
        wording.p_value,
        wording.percent,
        wording.percent_interval,
        wording.share,
        wording.signed,
        wording.size,
        wording.thousands,
    )
    environment.filters.update({function.__name__: function for function in shown})
    return environment
