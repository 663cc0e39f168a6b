"""The images that a model was fine-tuned on, where it is a run of this project: they cannot judge it any more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clip_har.checkpoint import Run, load_run
from clip_har.dataset.manifests import read_manifest
from clip_har.fusion import part_names
from clip_har.pretrained.tuned import MOST_TIMES
from clip_har.tuned_models import FOLDER, folder_of


@dataclass(frozen=True, kw_only=True)
class SeenImages:
    """Content hashes (SHA-256) of the images behind a model's trainings."""

    trained: frozenset[str] = frozenset()
    """Its encoder was trained on them; with --shots, on some of them."""
    selected: frozenset[str] = frozenset()
    """They chose its epoch or another of its settings."""


def seen_images(name: str) -> SeenImages:
    """What all trainings have seen that a model came from; nothing where it is no run, or the run has gone.

    Args:
        name: as `tuned_models.load_given` takes it: a run's folder, or any other model, or several joined by +.

    Raises:
        DataError: a run's manifest is damaged.
        RunError: a run is damaged.
    """
    trained: set[str] = set()
    selected: set[str] = set()
    for part in part_names(name):
        for run in _runs_behind(part):
            held_out = set(run.novel_classes)
            for row in read_manifest(run.folder / "manifest.csv"):
                if row.label in held_out or row.split == "test":
                    continue
                fitted = row.split == "train" or run.settings.refit
                (trained if fitted else selected).add(row.sha256)
    return SeenImages(trained=frozenset(trained), selected=frozenset(selected - trained))


def _runs_behind(name: str) -> Iterator[Run]:
    """A run that a name stands for, the run whose model that one was trained on, and so on."""
    for _ in range(MOST_TIMES):
        folder = folder_of(name)
        if folder is not None and folder.name == FOLDER:
            folder = folder.parent
        if folder is None or not (folder / "card.json").is_file():
            return
        run = load_run(folder)
        yield run
        name = run.card.backbone.name
