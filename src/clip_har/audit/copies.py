"""From groups of copies to findings: leaks between splits, conflicts between classes, duplicates within a split.

How the groups are found is in near_duplicates.py and embeddings.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clip_har.audit.hamming import Indices
from clip_har.audit.records import Finding
from clip_har.dataset import SplitName
from clip_har.dataset.layout import FoundFile

SAME_BYTES, SAME_PICTURE, LOOKS_ALIKE = "same bytes", "same picture", "looks alike"
_HELD_OUT_FIRST: dict[SplitName | None, int] = {"test": 0, "val": 1, "train": 2, None: 3}


@dataclass(frozen=True, kw_only=True)
class CopyGroups:
    """The groups of N images by each kind of evidence; each refines the next."""

    content_N: Indices
    hash_N: Indices
    all_N: Indices
    """By content, perceptual hash and, where there are embeddings, likeness to the model."""


def copy_findings(files: Sequence[FoundFile], groups: CopyGroups) -> Iterator[Finding]:
    """Yield the findings of every group of two or more; a group may show several faults.

    Args:
        files: N images.
        groups: of these.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups.all_N.tolist()):
        members[group].append(index)
    for indices in members.values():
        if len(indices) > 1:
            # The one to keep first: held out before trained on, then by name.
            indices.sort(key=lambda index: (_HELD_OUT_FIRST[files[index].split], files[index].name))
            group_files = tuple(files[index] for index in indices)
            notes = _notes(indices, groups)
            yield from _conflict(group_files, notes)
            yield from _leak(group_files, notes)
            yield from _duplicates(files, indices, groups)


def _conflict(files: tuple[FoundFile, ...], notes: tuple[str, ...]) -> Iterator[Finding]:
    classes = sorted({file.label for file in files})
    if len(classes) < 2:
        return
    yield Finding(
        kind="conflict",
        severity="error",
        files=files,
        notes=notes,
        count=len(files),
        why=f"{_weakest(notes)}, in {len(classes)} classes: {', '.join(classes)}",
        action="Decide which class is right, and relabel or drop the others.",
    )


def _leak(files: tuple[FoundFile, ...], notes: tuple[str, ...]) -> Iterator[Finding]:
    splits = list(dict.fromkeys(file.split for file in files if file.split is not None))
    if len(splits) < 2:
        return
    surplus = sum(file.split is not None and file.split != splits[0] for file in files)
    yield Finding(
        kind="leak",
        severity="error",
        files=files,
        notes=notes,
        count=surplus,
        why=f"{_weakest(notes)} in {' and '.join(splits)}: metrics on {splits[0]} are too optimistic",
        action=f"Drop the {'duplicate' if surplus == 1 else f'{surplus} duplicates'} outside {splits[0]}.",
    )


def _duplicates(files: Sequence[FoundFile], indices: Sequence[int], groups: CopyGroups) -> Iterator[Finding]:
    by_split: dict[SplitName | None, list[int]] = defaultdict(list)
    for index in indices:
        by_split[files[index].split].append(index)
    for split, own in by_split.items():
        if len(own) > 1:
            notes = _notes(own, groups)
            yield Finding(
                kind="duplicate",
                severity="warning",
                files=tuple(files[index] for index in own),
                notes=notes,
                count=len(own) - 1,
                why=f"{_weakest(notes)}: {len(own)} images" + (f" in {split}" if split else ""),
                action="Drop all but one, or keep them in one split: clip-har data split.",
            )


def _notes(indices: Sequence[int], groups: CopyGroups) -> tuple[str, ...]:
    """How each image is related to the first of them."""
    first = indices[0]

    def note(index: int) -> str:
        if groups.content_N[index] == groups.content_N[first]:
            return SAME_BYTES
        return SAME_PICTURE if groups.hash_N[index] == groups.hash_N[first] else LOOKS_ALIKE

    return ("", *(note(index) for index in indices[1:]))


def _weakest(notes: Sequence[str]) -> str:
    """What can be said of all of a group's images."""
    for note, said in ((LOOKS_ALIKE, "Images with similar features"), (SAME_PICTURE, "The same picture")):
        if note in notes:
            return said
    return "The same file"
