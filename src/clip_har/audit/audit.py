"""The audit itself: from the files of a dataset, and features if there are any, to findings and checks.

Which features, and where results go, is decided in commands/audit.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from clip_har.audit.approximate import pairs_alike
from clip_har.audit.copies import CopyGroups, copy_findings
from clip_har.audit.embeddings import Features, whitened
from clip_har.audit.fingerprints import Fingerprints, fingerprints, unreadable_reasons
from clip_har.audit.inventory import Inventory, as_records
from clip_har.audit.label_errors import LabelDoubt, label_doubts
from clip_har.audit.near_duplicates import Groups, group_fingerprints, is_flat
from clip_har.audit.records import CHECKS, UNSPLIT, Audit, Check, CheckName, Finding, Kind, class_counts
from clip_har.config import AuditLimits, AuditSettings
from clip_har.dataset.layout import FoundFile
from clip_har.images.workers import worker_count
from clip_har.progress import Progress

GREY_SPREAD = 8
"""Levels of 255 between red, green and blue up to which a cell of the thumbnail counts as grey."""
IMPLAUSIBLE_LIKENESS = 0.1
"""Share of the images that may look like others to a model before the model is doubted."""
IMBALANCE = 10
"""A class is far smaller than others if the median class has more than so many times its images."""
_ENDS_EARLY = "ends early"
_NEEDS_MODEL: frozenset[CheckName] = frozenset({"label_errors"})
_SEVERITIES = ("error", "warning", "note")


def read_images(
    inventory: Inventory, settings: AuditSettings, cache: Path, progress: Progress
) -> tuple[tuple[FoundFile, ...], Fingerprints, dict[str, str]]:
    """Decode every image once.

    Returns:
        The N images that can be decoded, their fingerprints [N], and sha256 -> reason of the others.
    """
    prints = fingerprints(
        as_records(inventory.images), cache=cache, workers=worker_count(settings.workers), progress=progress
    )
    good = prints["reason"] == b""
    readable = tuple(file for file, is_good in zip(inventory.images, good, strict=True) if is_good)
    return readable, prints[good], dict(unreadable_reasons(prints))


def audit(
    inventory: Inventory,
    readable: Sequence[FoundFile],
    prints: Fingerprints,
    reasons: Mapping[str, str],
    *,
    settings: AuditSettings,
    limits: AuditLimits,
    features_NH: Features | None = None,
    model: str | None = None,
) -> Audit:
    """Examine a dataset whose images are read.

    Args:
        inventory: every file.
        readable: the N images that can be decoded.
        prints: their fingerprints [N].
        reasons: sha256 -> why an image cannot be decoded.
        settings: what counts as a fault.
        limits: how many of each are allowed.
        features_NH: features of the readable images; without, labels are not examined.
        model: whose features.
    """
    groups = _copy_groups(readable, prints, settings, features_NH)
    doubts: list[LabelDoubt] = []
    if features_NH is not None:
        doubts = label_doubts(features_NH, [file.label for file in readable], groups.all_N, seed=settings.seed)
    files = (*inventory.images, *(file for file, _ in inventory.unreadable))
    findings = [
        *_unreadable_findings(inventory, reasons),
        *copy_findings(readable, groups),
        *(_label_finding(readable[doubt.index], doubt) for doubt in doubts),
        *_odd_findings(readable, prints, settings),
        *_balance_findings(files),
    ]
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return Audit(
        root=inventory.root,
        files=files,
        findings=tuple(findings),
        checks=_checks(findings, limits, with_model=features_NH is not None),
        warnings=(*inventory.warnings, *_likeness_warnings(groups, model)),
        model=model,
    )


def _likeness_warnings(groups: CopyGroups, model: str | None) -> Iterator[str]:
    """What to say where likeness groups more images than copies explain."""
    sizes = Counter(groups.all_N.tolist())
    within = Counter(groups.hash_N.tolist())
    alike = sum(sizes[a] > within[h] for a, h in zip(groups.all_N.tolist(), groups.hash_N.tolist(), strict=True))
    if alike > IMPLAUSIBLE_LIKENESS * len(groups.all_N):
        yield (
            f"{alike:,} of {len(groups.all_N):,} images have similar features in {model} but different hashes, too "
            "many to be duplicates: raise --similarity, or audit without a model with --no-embeddings"
        )


def _copy_groups(
    files: Sequence[FoundFile], prints: Fingerprints, settings: AuditSettings, features_NH: Features | None
) -> CopyGroups:
    """Group by content, then also by hash, then also by likeness, each content looked at once."""
    hashes = np.array([file.sha256 for file in files], dtype="S64")
    _, first, content_N = np.unique(hashes, return_index=True, return_inverse=True)
    by_hash = group_fingerprints(prints[first], distance=settings.distance)
    hash_N = by_hash.root_N[content_N]
    if features_NH is None:
        return CopyGroups(content_N=content_N, hash_N=hash_N, all_N=hash_N)
    merged = Groups(len(first))
    merged.merge(np.arange(len(first)), by_hash.root_N)
    comparable = np.flatnonzero(~is_flat(prints[first]))
    for left, right in pairs_alike(whitened(features_NH[first])[comparable], settings.similarity):
        merged.merge(comparable[left], comparable[right])
    return CopyGroups(content_N=content_N, hash_N=hash_N, all_N=merged.root_N[content_N])


def _checks(findings: Sequence[Finding], limits: AuditLimits, *, with_model: bool) -> tuple[Check, ...]:
    counted: Counter[Kind] = Counter()
    for finding in findings:
        counted[finding.kind] += finding.count
    return tuple(
        Check(
            name=name,
            found=sum(counted[kind] for kind in kinds),
            limit=getattr(limits, f"max_{name}"),
            performed=with_model or name not in _NEEDS_MODEL,
        )
        for name, kinds in CHECKS.items()
    )


# Faults of single images


def _unreadable_findings(inventory: Inventory, reasons: Mapping[str, str]) -> Iterator[Finding]:
    bad = [(file, reasons[file.sha256]) for file in inventory.images if file.sha256 in reasons]
    for file, reason in sorted([*bad, *inventory.unreadable], key=lambda item: item[0].name):
        truncated = _ENDS_EARLY in reason
        yield Finding(
            kind="truncated" if truncated else "unreadable",
            severity="error",
            files=(file,),
            why=reason,
            action="Download it again or drop it." if truncated else "Repair or drop it.",
        )


def _label_finding(file: FoundFile, doubt: LabelDoubt) -> Finding:
    return Finding(
        kind="label",
        severity="warning",
        files=(file,),
        why=f"{doubt.given} has probability {doubt.given_probability:.2f}, "
        f"{doubt.suggested} {doubt.suggested_probability:.2f}",
        action=f"Review it: keep, relabel as {doubt.suggested}, or drop.",
        doubt=doubt,
    )


def _odd_findings(files: Sequence[FoundFile], prints: Fingerprints, settings: AuditSettings) -> Iterator[Finding]:
    flat_N = is_flat(prints)
    for file, row, flat in zip(files, prints, flat_N, strict=True):
        width, height = int(row["width"]), int(row["height"])
        if min(width, height) < settings.min_side:
            why = f"{width} x {height} pixels, less than {settings.min_side} on a side"
            yield _odd("tiny", file, why, "Replace it with a larger version or drop it.")
        if max(width, height) > settings.max_aspect * min(width, height):
            why = f"{width} x {height} pixels: the model sees only its centre, or at low resolution"
            yield _odd("shape", file, why, "Crop it to the action or drop it.")
        if flat:
            yield _odd("one-tone", file, "a single colour: it shows nothing", "Drop it.")
        elif row["colour"] <= GREY_SPREAD:
            yield _odd("greyscale", file, "without colour", "Keep it, unless a class is mostly grey.")


def _odd(kind: Kind, file: FoundFile, why: str, action: str) -> Finding:
    severity = {"tiny": "warning", "shape": "warning", "one-tone": "warning"}.get(kind, "note")
    return Finding(kind=kind, severity=severity, files=(file,), why=why, action=action)  # type: ignore[arg-type]


# Faults of whole classes


def _balance_findings(files: tuple[FoundFile, ...]) -> Iterator[Finding]:
    for split, counts in class_counts(files).items():
        where = "the dataset" if split == UNSPLIT else split
        median = float(np.median([count for count in counts.values() if count]))
        for label, count in counts.items():
            if count == 0:
                why = f"{where} has no image of {label}"
                yield Finding(kind="missing-class", severity="warning", files=(), why=why, action="Add images.")
            elif count * IMBALANCE < median:
                images = "1 image" if count == 1 else f"{count} images"
                why = f"{label} has {images} in {where}; the median class has {median:g}"
                action = "Add images, or interpret per-class metrics with care."
                yield Finding(kind="imbalance", severity="note", files=(), why=why, action=action)
