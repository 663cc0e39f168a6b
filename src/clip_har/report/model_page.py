"""Several models at several methods -> one HTML file that needs nothing beside it.

Words and selection are here, layout is in templates/, the plot comes ready from `model_plots`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_har import wording
from clip_har.evaluation.model_comparison import ComparedModel, ModelTable, results_of
from clip_har.report import model_tables
from clip_har.report.comparison_page import pair_rows
from clip_har.report.html import environment, fact_rows, split_word
from clip_har.report.sections import environment_rows
from clip_har.report.style import Plot


def model_page(
    table: ModelTable, *, facts: Mapping[str, Any], figure: Plot | None, reports: Mapping[str, str], command: str
) -> str:
    """The page of a comparison of models.

    Args:
        table: what was measured.
        facts: facts that all models share, as `html.fact_rows` knows them.
        figure: of `model_plots`.
        reports: model -> address of its own comparison's report, relative to the page.
        command: the command line that makes this page again.
    """
    labels = wording.model_labels([model.name for model in table.models])
    return (
        environment()
        .get_template("models.html.j2")
        .render(
            headline=headline(table, labels),
            verdict=verdict(table, labels),
            table=table,
            labels=labels,
            split=split_word(table.split),
            missing=[_missing(entry, labels) for entry in table.missing],
            figure=figure,
            frontier={(point.model, point.method) for point in table.points if point.on_frontier},
            reports=reports,
            results=[_result(*entry) for entry in results_of(table)],
            best_of_method={method: _best_of_method(table, method) for method in table.methods},
            models=[_model(model) for model in table.ranked],
            with_catalogue=any(model.figures.licence or model.figures.pretraining_data for model in table.models),
            pairwise=_pairwise(table, labels),
            note=model_tables.reading_note(table),
            facts=fact_rows(facts),
            environment=environment_rows(facts),
            versions=[],
            command=command,
        )
    )


def headline(table: ModelTable, labels: Mapping[str, str]) -> str:
    """The most accurate model with its best method."""
    best = table.best.best
    assert best is not None
    return (
        f"{labels[table.best.name]} with {wording.method_label(best.name)} is the most accurate: "
        f"{wording.percent(best.accuracy)} of {table.images:,} {split_word(table.split)} images classified correctly."
    )


def verdict(table: ModelTable, labels: Mapping[str, str]) -> str:
    """Whether the best model is shown to be above the others with their best methods; nothing without others."""
    tests = [test for test in table.tests_of_best if table.best.name in (test.first, test.second)]
    if not tests:
        return ""
    alike = [test for test in tests if test.p_holm >= wording.SIGNIFICANT_BELOW]
    names = [labels[test.first if test.second == table.best.name else test.second] for test in alike]
    others = "the other model" if len(tests) == 1 else f"each of the {len(tests)} other models"
    if not names:
        return f"It is significantly more accurate than the best method of {others}."
    return f"It is not distinguishable from the best method of {', '.join(names)}."


def _missing(entry: tuple[str, str, str], labels: Mapping[str, str]) -> tuple[str, str]:
    model, method, reason = entry
    return f"{labels[model]}{f', {wording.method_label(method)}' if method else ''}", reason


def _result(model: ComparedModel, method: str, row: object) -> dict[str, Any]:
    return {"model": model, "method": method, "row": row, "missing": model.missing(method)}


def _best_of_method(table: ModelTable, method: str) -> str:
    found = [(row.accuracy, model.name) for model in table.compared if (row := model.row(method)) is not None]
    return max(found)[1] if len(found) > 1 else ""


def _model(model: ComparedModel) -> dict[str, Any]:
    figures = model.figures
    return {
        "model": model,
        "best": model.best,
        "side": model_tables.image_side(model),
        "rate": model_tables.rate_text(figures.images_per_second),
        "parameters": model_tables.parameters_text(figures.parameters),
        "image_parameters": model_tables.parameters_text(figures.image_parameters),
        "weights": "" if figures.weights_bytes is None else wording.file_size(figures.weights_bytes),
        "licence": figures.licence + (" (research only)" if figures.research_only else ""),
    }


def _pairwise(table: ModelTable, labels: Mapping[str, str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Heading and rows of each table of tests: the best methods first, then each method that several models have."""
    found = []
    if table.tests_of_best:
        best = {
            model.name: f"{labels[model.name]}, {wording.method_label(model.best.name)}"
            for model in table.ranked
            if model.best is not None
        }
        found.append(("Each model with its best method", pair_rows(best, table.tests_of_best)))
    for method, tests in table.tests_by_method.items():
        rows = [(row.accuracy, model.name) for model in table.compared if (row := model.row(method)) is not None]
        names = [name for _, name in sorted(rows, key=lambda entry: -entry[0])]
        title = f"All models with {wording.method_label(method)}"
        found.append((title, pair_rows({name: labels[name] for name in names}, tests)))
    return found
