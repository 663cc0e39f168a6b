"""One audit -> one HTML file to work through: thumbnails, a choice beside each, the choices as a plan to download.

Words and selection are here, layout and the script are in templates/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from clip_har import wording
from clip_har.audit.plan import PLAN_COLUMNS, PlanRow, proposed_plan
from clip_har.audit.records import UNSPLIT, Audit, Check, CheckName, Finding
from clip_har.dataset.layout import FoundFile
from clip_har.report.html import environment, split_word, thumbnail
from clip_har.report.pictures import ThumbnailLoader

CHECK_WORDS: Mapping[CheckName, tuple[str, str]] = {
    "unreadable": ("Unreadable images", "Training skips these images."),
    "leaks": (
        "Leaks between splits",
        "Duplicates and near-duplicates of held-out images in a split that a model is trained or selected on. The "
        "image to keep comes first.",
    ),
    "conflicts": (
        "Conflicting labels",
        "Duplicates and near-duplicates of one image under several classes: at most one class is right.",
    ),
    "duplicates": (
        "Duplicates within a split",
        "Duplicates and near-duplicates count several times in training and in metrics.",
    ),
    "label_errors": (
        "Suspected label errors",
        "A linear probe that was not trained on the image or its duplicates predicts another class. The most likely "
        "errors come first; some are correct labels of unusual images.",
    ),
    "odd": (
        "Anomalous images",
        "Tiny, very elongated, greyscale or of a single colour: often harmless; review them.",
    ),
    "imbalance": ("Missing and small classes", "Classes with no or few images in a split."),
}
"""Check -> heading and what it means."""
THUMBNAILS: Mapping[CheckName, int] = {"leaks": 100, "conflicts": 60, "duplicates": 60, "label_errors": 100, "odd": 40}
"""How many images each part shows at most: a few megabytes in all."""
FILES_SHOWN = 8
"""Images shown of one group."""
LISTED = 200
"""Rows of a part without photographs."""


def audit_page(
    audit: Audit, *, command: str, versions: Mapping[str, str], load_thumbnail: ThumbnailLoader | None
) -> str:
    """The page of one audit.

    Args:
        audit: what was found.
        command: the command line that makes this page again.
        versions: package -> version.
        load_thumbnail: an image's name -> image, or None if it cannot be read.
    """
    plan = {row.path: row for row in proposed_plan(audit)}
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            headline=headline(audit),
            verdict=verdict(audit),
            root=str(audit.root),
            model=audit.model,
            n_images=len(audit.files),
            n_classes=len({file.label for file in audit.files}),
            warnings=audit.warnings,
            checks=[_check_row(audit, check.name) for check in audit.checks],
            parts_list=[
                part for check in audit.checks if (part := _part(audit, check.name, plan, load_thumbnail)) is not None
            ],
            counts=_count_table(audit),
            splits=[_split_heading(split) for split in audit.counts()],
            columns=Markup(json.dumps(PLAN_COLUMNS)),
            command=command,
            versions=list(versions.items()),
        )
    )


def headline(audit: Audit) -> str:
    """What was found, and what of it is above its limit, in one sentence."""
    images = wording.counted(len(audit.files), "image")
    above = _listed([check for check in audit.checks if check.above])
    rest = _listed([check for check in audit.checks if check.found and not check.above])
    if above:
        return f"{images}: {above} above the limit" + (f"; also {rest}." if rest else ".")
    return f"{images}: {rest}; nothing is above its limit." if rest else f"{images}: no issues found."


def _listed(checks: Sequence[Check]) -> str:
    """How many of each was found, as "1 leak, 2 duplicates and 1 anomalous image"."""
    named = [f"{wording.thousands(check.found)} {_SHORT[check.name][check.found != 1]}" for check in checks]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def verdict(audit: Audit) -> str:
    """What to do with the page, in one or two sentences."""
    looked = "" if audit.model else " Labels were not checked, because that requires a model."
    if not audit.findings:
        return f"There is nothing to review.{looked}"
    return (
        "Review the findings below, choose an action for each image, and download your decisions as a plan for "
        f"clip-har data clean. Image files are never modified.{looked}"
    )


_SHORT: Mapping[CheckName, tuple[str, str]] = {
    "unreadable": ("unreadable image", "unreadable images"),
    "leaks": ("leak", "leaks"),
    "conflicts": ("conflicting label", "conflicting labels"),
    "duplicates": ("duplicate", "duplicates"),
    "label_errors": ("suspected label error", "suspected label errors"),
    "odd": ("anomalous image", "anomalous images"),
    "imbalance": ("missing or small class", "missing or small classes"),
}
"""Check -> what one is called, and several."""


def _check_row(audit: Audit, name: CheckName) -> dict[str, Any]:
    check = next(check for check in audit.checks if check.name == name)
    state = "not examined" if not check.performed else "above the limit" if check.above else "within the limit"
    if check.performed and check.limit is None:
        state = "for information"
    return {
        "name": name,
        "title": CHECK_WORDS[name][0],
        "found": wording.thousands(check.found) if check.performed else "–",
        "limit": "none" if check.limit is None else wording.thousands(check.limit),
        "state": state,
        "above": check.above,
        "linked": bool(audit.of(name)),
    }


def _part(
    audit: Audit, name: CheckName, plan: Mapping[str, PlanRow], load_thumbnail: ThumbnailLoader | None
) -> dict[str, Any] | None:
    """One check's findings as the template wants them, as many as the page has room for."""
    findings = audit.of(name)
    if not findings:
        return None
    title, meaning = CHECK_WORDS[name]
    room = THUMBNAILS.get(name, LISTED)
    shown: list[dict[str, Any]] = []
    for finding in findings:
        room -= max(1, min(FILES_SHOWN, len(finding.files)))
        if room < 0:
            break
        with_pictures = name in THUMBNAILS
        shown.append(_group(finding, plan, load_thumbnail if with_pictures else None, with_pictures=with_pictures))
    return {
        "name": name,
        "title": title,
        "meaning": meaning,
        "groups": shown,
        "left_out": len(findings) - len(shown),
        "total": len(findings),
        "pictures": name in THUMBNAILS,
        "single": all(len(finding.files) <= 1 for finding in findings),
    }


def _group(
    finding: Finding, plan: Mapping[str, PlanRow], load_thumbnail: ThumbnailLoader | None, *, with_pictures: bool
) -> dict[str, Any]:
    notes = finding.notes or ("",) * len(finding.files)
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "why": _sentence(finding),
        "action": wording.one_line(finding.action),
        "more": max(0, len(finding.files) - FILES_SHOWN),
        "tiles": [
            _tile(finding, file, note, plan[file.name], load_thumbnail, with_pictures=with_pictures)
            for file, note in list(zip(finding.files, notes, strict=True))[:FILES_SHOWN]
        ],
    }


def _sentence(finding: Finding) -> str:
    """Why, with a capital unless it starts with the name of a class or a split."""
    why = wording.one_line(finding.why)
    return why if finding.doubt or not finding.files else wording.sentence_start(why)


def _tile(
    finding: Finding,
    file: FoundFile,
    note: str,
    row: PlanRow,
    load_thumbnail: ThumbnailLoader | None,
    *,
    with_pictures: bool,
) -> dict[str, Any]:
    """One image, its class and split, and the choices that there are for it."""
    doubt = finding.doubt
    bars = [] if doubt is None else _bars(doubt.top, (doubt.given, doubt.given_probability))
    return {
        "path": file.name,
        "label": file.label,
        "split": file.split or "",
        "split_word": split_word(file.split) if file.split else "",
        "note": note,
        "bars": bars,
        "source": thumbnail(file.name, load_thumbnail) if load_thumbnail else None,
        "pictured": with_pictures,
        "choices": _choices(finding, file),
        "chosen": row.action,
        "data": {"path": row.path, "sha256": row.sha256, "class": row.label, "split": row.split, "reason": row.reason},
    }


def _bars(top: Sequence[tuple[str, float]], given: tuple[str, float]) -> list[dict[str, Any]]:
    """Classes with probabilities as bars: the most probable, and the given one in any case."""
    shown = [*top[:2], given] if given[0] not in dict(top[:2]) else list(top[:2])
    return [
        {
            "label": label,
            "width": f"{100 * probability:.1f}",
            "text": wording.percent(probability, 0),
            "given": label == given[0],
        }
        for label, probability in shown
    ]


def _choices(finding: Finding, file: FoundFile) -> list[tuple[str, str]]:
    """Value and words of each choice: keep, drop, and the classes that it might be of."""
    classes = [label for label, _ in finding.doubt.top] if finding.doubt else sorted({f.label for f in finding.files})
    relabel = [(f"relabel:{label}", f"relabel: {label}") for label in classes if label != file.label]
    return [("keep", "keep"), ("drop", "drop"), *relabel]


def _count_table(audit: Audit) -> list[dict[str, Any]]:
    counts = audit.counts()
    classes = next(iter(counts.values()), {})
    return [{"name": label, "cells": [counts[split][label] for split in counts]} for label in classes]


def _split_heading(split: str) -> str:
    return "Images" if split == UNSPLIT else wording.sentence_start(split_word(split))
