"""The files of a report: which there are, and in which order they are written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from clip_har.audit.records import Audit
from clip_har.evaluation import ComparisonRow, EpochRecord, EvalResult, PairedTest
from clip_har.evaluation.few_shot import FewShotTable
from clip_har.evaluation.findings import ExplainResult
from clip_har.evaluation.model_comparison import ModelTable
from clip_har.files import write_atomically
from clip_har.report import (
    audit_page,
    comparison_page,
    comparison_plots,
    comparison_tables,
    contact_sheet,
    evaluation_page,
    explanations,
    few_shot_page,
    few_shot_plots,
    few_shot_tables,
    finding_plots,
    model_page,
    model_plots,
    model_tables,
    plots,
    result_documents,
    standing,
    tables,
)
from clip_har.report.html import split_word
from clip_har.report.parts import NOTHING, ReportParts
from clip_har.report.pictures import ThumbnailLoader
from clip_har.report.style import Plot

EVALUATION_PLOTS = {
    "confusion": "confusion_matrix.png",
    "confusion_baseline": "confusion_matrix_baseline.png",
    "per_class": "per_class_f1.png",
    "training": "training_curve.png",
    "interpolation": "wise_ft_curve.png",
    **finding_plots.FINDING_PLOTS,
}
COMPARISON_PLOTS = {"accuracy": "comparison.png", "cost": "accuracy_cost.png"}


def write_evaluation(
    result: EvalResult,
    out: Path,
    *,
    facts: Mapping[str, Any],
    history: Sequence[EpochRecord] = (),
    validation_level: float | None = None,
    interpolation: Sequence[tuple[float, float]] | None = None,
    chosen_share: float | None = None,
    hard_pairs: Mapping[str, Any] | None = None,
    findings: ReportParts = NOTHING,
    command: str,
    load_thumbnail: ThumbnailLoader | None,
) -> list[Path]:
    """Writes everything that is reported about one evaluation into the folder `out`.

    Args:
        result: what was measured.
        out: made if it does not exist; files of the same names are replaced.
        facts: facts about the run; `html.fact_rows` lists the known keys, and `versions` maps packages to
            versions.
        history: the training, epoch by epoch or candidate by candidate, for its curve.
        validation_level: zero-shot's accuracy on the same validation images, drawn through the curve if it is known.
        interpolation: share of the tuned weights in [0, 1] and validation accuracy, for WiSE-FT's curve.
        chosen_share: the share that was taken; the most accurate one unless it is given.
        hard_pairs: what was mined for training, {"class_pairs": [{"true", "answered", "count"}, ...],
            "image_pairs": [{"image", "label", "rival_image", "rival_label", "similarity"}, ...]}: classes taken
            for each other with the number of images, and images of different classes that look alike, with the
            cosine similarity of their embeddings; the 12 most alike are shown. Images are paths for
            `load_thumbnail`.
        findings: what else is known; a part that is not given is not shown. Overlays of explanations are read
            from `out`.
        command: the command line that makes these files again.
        load_thumbnail: a path from `result.paths` -> image, or None if it cannot be read. Without it the page
            has no photographs.

    Returns:
        The files written, tables first and report.html last.
    """
    figures = _evaluation_figures(result, history, validation_level)
    if interpolation:
        figures["interpolation"] = plots.interpolation_plot(interpolation, chosen_share)
    figures |= finding_plots.finding_plots(findings, result.best.name)
    page = evaluation_page.evaluation_page(
        result,
        facts=facts,
        figures=figures,
        hard_pairs=hard_pairs,
        findings=findings,
        folder=out,
        command=command,
        load_thumbnail=load_thumbnail,
    )
    return [
        _write(out / "results.json", tables.results_json(result)),
        _write(out / "results.csv", tables.results_csv(result)),
        _write(out / "results.md", result_documents.results_markdown(result)),
        _write(out / "results.tex", result_documents.results_latex(result)),
        _write(out / "confusion_matrix.csv", tables.confusion_csv(result)),
        _write(out / "classification_report.txt", tables.classification_text(result)),
        _write(out / "predictions.csv", tables.predictions_csv(result)),
        *(_write(out / EVALUATION_PLOTS[key], plot.png) for key, plot in figures.items()),
        _write(out / "report.html", page),
    ]


def write_explanations(
    result: ExplainResult, out: Path, *, command: str, load_thumbnail: ThumbnailLoader | None
) -> Path:
    """Writes report.html, one file that needs nothing beside it, into the folder `out`, and returns it.

    Args:
        result: what was explained.
        out: where the overlays are.
        command: the command line that makes it again.
        load_thumbnail: a path from the result -> image, or None if it cannot be read.
    """
    page = explanations.explanation_page(result, out, command=command, load_thumbnail=load_thumbnail)
    return _write(out / "report.html", page)


def write_audit(
    audit: Audit,
    out: Path,
    *,
    command: str,
    versions: Mapping[str, str],
    load_thumbnail: ThumbnailLoader | None,
) -> Path:
    """Writes an audit's page, one HTML file that needs nothing beside it.

    Args:
        audit: what was found.
        out: the file.
        command: the command line that makes it again.
        versions: package -> version.
        load_thumbnail: an image's name -> image, or None if it cannot be read. Without it the page has no
            photographs.
    """
    page = audit_page.audit_page(audit, command=command, versions=versions, load_thumbnail=load_thumbnail)
    return _write(out, page)


def write_comparison(
    rows: Sequence[ComparisonRow],
    results: Mapping[str, EvalResult],
    out: Path,
    *,
    facts: Mapping[str, Any],
    pairwise: Sequence[PairedTest] = (),
    reports: Mapping[str, Mapping[int, Path]] | None = None,
    command: str,
    load_thumbnail: ThumbnailLoader | None = None,
) -> list[Path]:
    """Writes comparison.json, .csv, .md, .txt and .png, accuracy_cost.png and report.html into the folder `out`.

    Args:
        rows: one for each method or preset, with different names.
        results: a row's name -> evaluation of its first seed, all on the same images; some may be missing.
        out: made if it does not exist; files of the same names are replaced.
        facts: facts that all methods share, as for `write_evaluation`.
        pairwise: tests between the methods on the same images, corrected for their number; one for each pair.
        reports: a row's name -> seed -> the page of that run alone; the comparison's page links to those that exist.
        command: the command line that makes these files again.
        load_thumbnail: as for `write_evaluation`.

    Returns:
        The files written, report.html last. There is no accuracy_cost.png where no row has a training time.
    """
    if not rows:
        raise ValueError("a comparison needs at least one row")
    if len({row.name for row in rows}) < len(rows):
        raise ValueError("the rows of a comparison need different names")
    first = next(iter(results.values()), None)
    level = standing.zero_shot_level(rows, results)
    figures = _comparison_figures(rows, level, split_word(first.split) if first else "")
    page = comparison_page.comparison_page(
        rows,
        results,
        facts=facts,
        figures=figures,
        pairwise=pairwise,
        reports=_addresses(reports or {}, out),
        command=command,
        load_thumbnail=load_thumbnail,
    )
    return [
        _write(out / "comparison.json", comparison_tables.comparison_json(rows)),
        _write(out / "comparison.csv", comparison_tables.comparison_csv(rows)),
        _write(out / "comparison.md", comparison_tables.comparison_markdown(rows, first, level)),
        _write(out / "comparison.txt", comparison_tables.comparison_text(rows, first, level)),
        *([_write(out / "pairwise.csv", comparison_tables.pairwise_csv(pairwise))] if pairwise else []),
        *(_write(out / COMPARISON_PLOTS[key], plot.png) for key, plot in figures.items()),
        _write(out / "report.html", page),
    ]


def write_few_shot(
    table: FewShotTable, out: Path, *, facts: Mapping[str, Any], reports: Mapping[int, Path], command: str
) -> list[Path]:
    """Writes few_shot.json, few_shot.csv, few_shot.png and report.html into the folder `out`.

    Args:
        table: what was measured.
        out: made if it does not exist; files of the same names are replaced.
        facts: facts that all methods share, as for `write_evaluation`.
        reports: images per class -> the page of that comparison; the page links to those that exist.
        command: the command line that makes these files again.

    Returns:
        The files written, report.html last.
    """
    figure = few_shot_plots.few_shot_plot(table)
    linked = _addresses({"": reports}, out).get("", {})
    page = few_shot_page.few_shot_page(table, facts=facts, figure=figure, reports=linked, command=command)
    return [
        _write(out / "few_shot.json", few_shot_tables.few_shot_json(table)),
        _write(out / "few_shot.csv", few_shot_tables.few_shot_csv(table)),
        _write(out / "few_shot.png", figure.png),
        _write(out / "report.html", page),
    ]


def write_models(table: ModelTable, out: Path, *, facts: Mapping[str, Any], command: str) -> list[Path]:
    """Writes models.json, models.csv, models.png and report.html into the folder `out`.

    Args:
        table: what was measured; the page links to the models' own pages in `out`, of those that exist.
        out: made if it does not exist; files of the same names are replaced.
        facts: facts that all models share, as for `write_evaluation`.
        command: the command line that makes these files again.

    Returns:
        The files written, report.html last. There is no models.png if no encoder was timed.
    """
    figure = model_plots.model_plot(table)
    pages = {model.name: {0: out / model.folder / "report.html"} for model in table.compared}
    reports = {name: found[0] for name, found in _addresses(pages, out).items()}
    page = model_page.model_page(table, facts=facts, figure=figure, reports=reports, command=command)
    return [
        _write(out / "models.json", model_tables.models_json(table)),
        _write(out / "models.csv", model_tables.models_csv(table)),
        *([] if figure is None else [_write(out / "models.png", figure.png)]),
        _write(out / "report.html", page),
    ]


def write_contact_sheet(
    items: Sequence[tuple[Path | Image.Image, str]], out: Path, *, predictions: Sequence[str] | None = None
) -> Path:
    """Writes a grid of thumbnails with their true classes to the PNG file `out`, and returns it.

    Args:
        items: image and true class; a file that cannot be read leaves a tile that says so.
        out: the PNG file.
        predictions: answers to the images, marked right or wrong.
    """
    return _write(out, contact_sheet.png_bytes(contact_sheet.contact_sheet(items, predictions)))


def _evaluation_figures(
    result: EvalResult, history: Sequence[EpochRecord], validation_level: float | None
) -> dict[str, Plot]:
    figures = {"confusion": plots.confusion_plot(result, result.best, name="confusion")}
    if result.finetuned is not None:
        figures["confusion_baseline"] = plots.confusion_plot(result, result.baseline, name="confusion-baseline")
    figures["per_class"] = plots.per_class_plot(result)
    if history:
        figures["training"] = plots.training_plot(history, validation_level)
    return figures


def _comparison_figures(rows: Sequence[ComparisonRow], level: float | None, split: str) -> dict[str, Plot]:
    figures = {"accuracy": comparison_plots.accuracy_plot(rows, level, split)}
    cost = comparison_plots.cost_plot(rows, level, split)
    return figures if cost is None else {**figures, "cost": cost}


def _addresses(reports: Mapping[str, Mapping[int, Path]], out: Path) -> dict[str, dict[int, str]]:
    """Row -> number -> the report as seen from a page in `out`, of those that exist."""
    found = {
        name: {
            seed: quote(Path(os.path.relpath(path.resolve(), out.resolve())).as_posix())
            for seed, path in by_seed.items()
            if path.is_file()
        }
        for name, by_seed in reports.items()
    }
    return {name: by_seed for name, by_seed in found.items() if by_seed}


def _write(path: Path, content: str | bytes) -> Path:
    write_atomically(path, content)
    return path
