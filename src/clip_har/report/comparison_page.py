"""A comparison -> one HTML file that needs nothing beside it.

Words and selection are here, layout is in templates/, plots come ready from `comparison_plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clip_har import wording
from clip_har.evaluation import ClassMetrics, ComparisonRow, EvalResult, PairedTest, collapse_warnings
from clip_har.report import standing
from clip_har.report.comparison_plots import timed_rows
from clip_har.report.comparison_tables import largest_memory, with_unseen
from clip_har.report.html import GALLERY_LIMIT, environment, fact_rows, split_word, tile
from clip_har.report.pictures import Pictures, ThumbnailLoader
from clip_har.report.sections import environment_rows
from clip_har.report.style import Plot


def comparison_page(
    rows: Sequence[ComparisonRow],
    results: Mapping[str, EvalResult],
    *,
    facts: Mapping[str, Any],
    figures: Mapping[str, Plot],
    pairwise: Sequence[PairedTest] = (),
    reports: Mapping[str, Mapping[int, str]] | None = None,
    command: str,
    load_thumbnail: ThumbnailLoader | None,
) -> str:
    """The page of a comparison.

    Args:
        rows: one for each method.
        results: entry's name -> evaluation of its first seed; what needs those that are missing is left out.
        facts: facts that all methods share, as `html.fact_rows` knows them.
        figures: "accuracy"; "cost" where training times are known.
        pairwise: tests between the methods, one for each pair, in either order; others are left out.
        reports: row's name -> seed -> address of that run's own report, relative to the page.
        command: the command line that makes this page again.
        load_thumbnail: a path from the results -> image, or None if it cannot be read.
    """
    level = standing.zero_shot_level(rows, results)
    places = {row.name: standing.standing(row, level) for row in rows}
    first = next(iter(results.values()), None)
    pictures = Pictures(load_thumbnail)
    hardest = _hardest(list(results.values()), pictures)
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            headline=headline(rows, first, level),
            verdict=verdict(list(places.values())),
            rows=sorted(rows, key=lambda row: -row.accuracy),
            level=level,
            standing=places,
            loud=standing.LOUD,
            alarms=alarms(rows, places, level),
            notes=standing.reading_notes(rows),
            memory=largest_memory(rows),
            reports=reports or {},
            split=split_word(first.split) if first else "",
            warnings=_other_warnings(results),
            figures=figures,
            untimed=_untimed(rows),
            methods=[wording.method_label(name) for name in results],
            several_seeds=any(len(row.seeds) > 1 for row in rows),
            classes=_classes_by_method(list(results.values())),
            hardest=hardest,
            photographs=pictures.shown,
            unseen=with_unseen(sorted(rows, key=lambda row: -row.accuracy)),
            pairwise=pairwise_table(rows, pairwise),
            spread=[
                row
                for row in sorted(rows, key=lambda row: -row.accuracy)
                if len(row.seeds) > 1 and places[row.name] != standing.ZERO_SHOT
            ],
            facts=fact_rows(facts),
            environment=environment_rows(facts),
            versions=[],
            command=command,
        )
    )


def headline(rows: Sequence[ComparisonRow], result: EvalResult | None, level: float | None) -> str:
    """The answer in one sentence: the most accurate method, unless none is shown to be above zero-shot."""
    images = "the images" if result is None else f"{result.n:,} {split_word(result.split)} images"
    if level is None:
        best = max(rows, key=lambda row: row.accuracy)
        label = wording.sentence_start(wording.method_label(best.name))
        return f"{label} is the most accurate: {wording.percent(best.accuracy)} of {images} classified correctly."
    above = [row for row in rows if standing.standing(row, level) == standing.ABOVE]
    if not above:
        shown = wording.percent(level)
        return f"No method is significantly better than zero-shot CLIP, which classifies {shown} of {images} correctly."
    best = max(above, key=lambda row: row.accuracy)
    return (
        f"{wording.sentence_start(wording.method_label(best.name))} is the most accurate: "
        f"{wording.percent(best.accuracy)} of {images} classified correctly; zero-shot CLIP {wording.percent(level)}."
    )


def verdict(places: Sequence[str]) -> str:
    """How many methods stand where, in one sentence; nothing where zero-shot is not known.

    Args:
        places: the standing of each row.
    """
    judged = [place for place in places if place not in (standing.ZERO_SHOT, standing.METHOD)]
    if not judged:
        return ""
    counts = {place: judged.count(place) for place in (standing.ABOVE, *standing.LOUD)}
    first = counts.pop(standing.ABOVE)
    rest = "".join(f", {n} {place}" for place, n in counts.items() if n)
    methods = "method" if len(judged) == 1 else "methods"
    verb = "is" if first == 1 else "are"
    return f"{first} of {len(judged)} {methods} {verb} significantly better than zero-shot{rest}."


def alarms(rows: Sequence[ComparisonRow], places: Mapping[str, str], level: float | None) -> list[tuple[str, str]]:
    """What must not be overlooked, worst first: a heading, and what it is about."""
    found = []
    for row in rows:
        label = wording.method_label(row.name)
        if places[row.name] == standing.COLLAPSED:
            found.append(("Collapsed", f"{label}: {row.note}. Its accuracy is meaningless: do not use it."))
    for row in rows:
        label = wording.method_label(row.name)
        if places[row.name] == standing.BELOW and level is not None:
            lost = wording.points(row.accuracy - level)
            found.append(("Below zero-shot", f"{label}, by {lost} points: training made the model worse."))
    alike = [wording.method_label(row.name) for row in rows if places[row.name] == standing.INDISTINCT]
    if alike:
        found.append(
            ("Not distinguishable from zero-shot", f"{', '.join(alike)}: the difference may be due to chance.")
        )
    return found


def _other_warnings(results: Mapping[str, EvalResult]) -> list[str]:
    """The results' warnings, each once, without those on collapses: `alarms` has them under the entries' names."""
    said = {text for result in results.values() for text in collapse_warnings([result.baseline, result.best])}
    texts = dict.fromkeys(text for result in results.values() for text in result.warnings)
    return [text for text in texts if text not in said]


def _untimed(rows: Sequence[ComparisonRow]) -> list[str]:
    """The methods that the cost plot cannot show."""
    shown = timed_rows(rows)
    return [wording.method_label(row.name) for row in rows if row not in shown and not wording.is_baseline(row.method)]


def _classes_by_method(results: Sequence[EvalResult]) -> list[tuple[str, list[float]]]:
    """F1 of each class that has images under each method, if all methods know the same classes."""
    if not results or any(result.classes != results[0].classes for result in results):
        return []
    columns: list[tuple[ClassMetrics, ...]] = [result.best.metrics.per_class for result in results]
    return [(row[0].name, [entry.f1 for entry in row]) for row in zip(*columns, strict=True) if row[0].support]


def pairwise_table(rows: Sequence[ComparisonRow], tests: Sequence[PairedTest]) -> list[dict[str, Any]]:
    """Each method against each other, the most accurate first; nothing without tests.

    A cell is the row's method minus the column's: the difference in points, p after Holm's correction, and
    whether the row's is "better", "worse" or "alike".
    """
    ranked = sorted(rows, key=lambda row: -row.accuracy)
    return pair_rows({row.name: wording.method_label(row.name) for row in ranked}, tests)


def pair_rows(labels: Mapping[str, str], tests: Sequence[PairedTest]) -> list[dict[str, Any]]:
    """The rows of `pairwise_table`.

    Args:
        labels: entry -> what it is called, in the order of the rows; entries without a test have none.
        tests: one for each pair, in either order.
    """
    found = {(test.second, test.first): (test.difference, test.p, test.p_holm) for test in tests}
    found |= {(test.first, test.second): (-test.difference, test.p, test.p_holm) for test in tests}
    names = [name for name in labels if any(name in pair for pair in found)]
    return [
        {
            "name": labels[name],
            "cells": [None if other == name else _pair_cell(found.get((name, other))) for other in names],
        }
        for name in names
    ]


def _pair_cell(test: tuple[float, float, float] | None) -> dict[str, str]:
    if test is None:
        return {"difference": "–", "p": "", "plain": "", "place": "alike"}
    difference, p, p_holm = test
    place = "alike" if p_holm >= wording.SIGNIFICANT_BELOW else "better" if difference > 0 else "worse"
    return {
        "difference": wording.points(difference),
        "p": wording.p_value(p_holm),
        "plain": wording.p_value(p),
        "place": place,
    }


def _hardest(results: Sequence[EvalResult], pictures: Pictures) -> list[dict[str, Any]]:
    """Images that every method answers wrongly, those with the least probability for the truth first."""
    if not results or any(result.paths != results[0].paths for result in results):
        return []
    targets = results[0].targets_N
    wrong = np.all([result.best.predictions != targets for result in results], axis=0)
    truth_MN = [result.best.probabilities_NC[np.arange(len(targets)), targets] for result in results]
    order = np.argsort(np.mean(truth_MN, axis=0), kind="stable")
    chosen = [int(index) for index in order if wrong[index]][: GALLERY_LIMIT // 2]
    best = max(results, key=lambda result: result.best.metrics.accuracy)
    return [tile(best, best.best, index, pictures) for index in chosen]
