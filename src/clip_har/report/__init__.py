"""Results of an evaluation or a comparison -> tables, plots and one self-contained HTML file.

The public functions of the package; what is measured comes from `clip_har.evaluation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from clip_har.evaluation import ComparisonRow, EpochRecord, EvalResult
from clip_har.files import write_atomically
from clip_har.report import html, plots, sheet, tables
from clip_har.report.html import ThumbnailLoader
from clip_har.report.style import Plot

__all__ = ["ThumbnailLoader", "write_comparison", "write_contact_sheet", "write_evaluation"]


def write_evaluation(
    result: EvalResult,
    out: Path,
    *,
    card: Mapping[str, Any],
    history: Sequence[EpochRecord] = (),
    command: str,
    load_thumbnail: ThumbnailLoader | None,
) -> list[Path]:
    """Writes everything that is reported about one evaluation into the folder `out`.

    Args:
        result: what was measured.
        out: made if it does not exist; files of the same names are replaced.
        card: facts about the run; `html.card_rows` lists the known keys, and `versions` maps packages to
            versions.
        history: the training, epoch by epoch, for its curve.
        command: the command line that makes these files again.
        load_thumbnail: a path from `result.paths` -> image, or None if it cannot be read. Without it the page
            has no photographs.

    Returns:
        The files written, tables first and report.html last.
    """
    figures = _evaluation_figures(result, history)
    page = html.evaluation_page(result, card=card, figures=figures, command=command, load_thumbnail=load_thumbnail)
    files = {
        "confusion": "confusion_matrix.png",
        "confusion_baseline": "confusion_matrix_baseline.png",
        "per_class": "per_class_f1.png",
        "training": "training_curve.png",
    }
    return [
        _write(out / "results.json", tables.results_json(result)),
        _write(out / "results.csv", tables.results_csv(result)),
        _write(out / "confusion_matrix.csv", tables.confusion_csv(result)),
        _write(out / "classification_report.txt", tables.classification_text(result)),
        _write(out / "predictions.csv", tables.predictions_csv(result)),
        *(_write(out / files[key], plot.png) for key, plot in figures.items()),
        _write(out / "report.html", page),
    ]


def write_comparison(
    rows: Sequence[ComparisonRow],
    results: Mapping[str, EvalResult],
    out: Path,
    *,
    card: Mapping[str, Any],
    command: str,
    load_thumbnail: ThumbnailLoader | None = None,
) -> list[Path]:
    """Writes comparison.json, .csv, .md, .png and report.html into the folder `out`.

    Args:
        rows: one for each method, zero-shot among them under that name.
        results: method -> its evaluation, all on the same images; methods may be missing.
        out: made if it does not exist; files of the same names are replaced.
        card: facts that all methods share, as for `write_evaluation`.
        command: the command line that makes these files again.
        load_thumbnail: as for `write_evaluation`.

    Returns:
        The files written, report.html last.
    """
    if not rows:
        raise ValueError("a comparison needs at least one row")
    first = next(iter(results.values()), None)
    figure = plots.comparison_plot(rows, html.split_word(first.split) if first else "")
    page = html.comparison_page(rows, results, card=card, figure=figure, command=command, load_thumbnail=load_thumbnail)
    return [
        _write(out / "comparison.json", tables.comparison_json(rows)),
        _write(out / "comparison.csv", tables.comparison_csv(rows)),
        _write(out / "comparison.md", tables.comparison_markdown(rows, first)),
        _write(out / "comparison.png", figure.png),
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
    return _write(out, sheet.png_bytes(sheet.contact_sheet(items, predictions)))


def _evaluation_figures(result: EvalResult, history: Sequence[EpochRecord]) -> dict[str, Plot]:
    figures = {"confusion": plots.confusion_plot(result, result.best, name="confusion")}
    if result.finetuned is not None:
        figures["confusion_baseline"] = plots.confusion_plot(result, result.baseline, name="confusion-baseline")
    figures["per_class"] = plots.per_class_plot(result)
    if history:
        level = result.baseline.metrics.accuracy
        figures["training"] = plots.training_plot(history, level, html.split_word(result.split))
    return figures


def _write(path: Path, content: str | bytes) -> Path:
    write_atomically(path, content)
    return path
