"""Accuracy by number of training images per class -> one HTML file that needs nothing beside it.

Words and selection are here, layout is in templates/, the plot comes ready from `few_shot_plots`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_har import wording
from clip_har.evaluation.few_shot import FewShotTable
from clip_har.report.few_shot_tables import reading_note
from clip_har.report.html import environment, fact_rows, split_word
from clip_har.report.sections import environment_rows
from clip_har.report.style import Plot


def few_shot_page(
    table: FewShotTable, *, facts: Mapping[str, Any], figure: Plot, reports: Mapping[int, str], command: str
) -> str:
    """The page of a few-shot table.

    Args:
        table: what was measured.
        facts: facts that all methods share, as `html.fact_rows` knows them.
        figure: of `few_shot_plots`.
        reports: images per class -> address of that comparison's own report, relative to the page.
        command: the command line that makes this page again.
    """
    return (
        environment()
        .get_template("few_shot.html.j2")
        .render(
            headline=headline(table),
            table=table,
            best={shots: method.name for shots in table.shots if (method := table.best(shots)) is not None},
            split=split_word(table.split),
            figure=figure,
            reports=reports,
            note=reading_note(table),
            facts=fact_rows(facts),
            environment=environment_rows(facts),
            versions=[],
            command=command,
        )
    )


def headline(table: FewShotTable) -> str:
    """The most accurate method at the largest number of images, next to zero-shot."""
    shots = table.shots[-1]
    best = table.best(shots)
    if best is None:
        return f"No method was trained with {wording.counted(shots, 'image')} per class."
    label = wording.sentence_start(wording.method_label(best.name))
    beside = "" if table.zero_shot is None else f"; zero-shot CLIP {wording.percent(table.zero_shot)}"
    return (
        f"{label} is the most accurate with {wording.counted(shots, 'training image')} per class: "
        f"{wording.percent(best.rows[shots].accuracy)} of the {split_word(table.split)} images classified "
        f"correctly{beside}."
    )
