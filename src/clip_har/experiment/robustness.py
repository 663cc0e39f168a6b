"""`evaluate --robustness` and `--shift`: accuracy on corrupted test images, and on another dataset of the same classes.

What a corruption does to an image is in images/corruptions.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clip_har import checkpoint
from clip_har.dataset import ActionDataset, ImageRecord, SplitName, load_dataset, read_manifest
from clip_har.errors import DataError
from clip_har.evaluation import BoolArray, FloatArray, bootstrap_accuracy, mcnemar_p
from clip_har.evaluation.findings import CorruptionScore, Robustness, ShiftScore
from clip_har.experiment.predictions import Predictions, stratified
from clip_har.experiment.setup import Experiment
from clip_har.images import Corruption, ImageFiles
from clip_har.methods import LabelledImages
from clip_har.progress import Progress


def measure_robustness(
    answering: Predictions,
    experiment: Experiment,
    split: SplitName,
    *,
    kinds: Sequence[str],
    severities: Sequence[int],
    limit: int,
    seed: int,
    progress: Progress,
) -> Robustness:
    """Accuracy of zero-shot and of the run under every corruption of the same images.

    Args:
        split: where the images are from.
        kinds: see images/corruptions.py.
        severities: of 1 to 5.
        limit: images at most, each class by its share; 0 takes all.
        seed: of the choice of images and of the corruptions.
    """
    plain = experiment.images(split)
    chosen = stratified(plain.labels_N, limit, seed)
    plain = plain.subset(chosen)
    records = [experiment.dataset.split(split)[index] for index in chosen]
    scores = []
    for kind in kinds:
        for severity in severities:
            corruption = Corruption(kind=kind, severity=severity, seed=seed)
            images = corrupted_images(experiment, records, plain.labels_N, corruption, progress)
            baseline, finetuned = answering.accuracies(images)
            scores.append(CorruptionScore(kind=kind, severity=severity, baseline=baseline, finetuned=finetuned))
    clean_baseline, clean_finetuned = answering.accuracies(plain)
    tuned = [score.finetuned for score in scores if score.finetuned is not None]
    return Robustness(
        images=len(records),
        clean_baseline=clean_baseline,
        clean_finetuned=clean_finetuned,
        scores=tuple(scores),
        mean_baseline=float(np.mean([score.baseline for score in scores])),
        mean_finetuned=float(np.mean(tuned)) if tuned else None,
    )


def corrupted_images(
    experiment: Experiment,
    records: Sequence[ImageRecord],
    labels_N: torch.Tensor,
    corruption: Corruption,
    progress: Progress,
) -> LabelledImages:
    """Some images under one corruption; features that are missing are computed and cached."""
    store = experiment.model.store.of_view(corruption)
    store.encode(records)
    files = ImageFiles(
        paths=tuple(record.path for record in records),
        preprocessing=experiment.model.backbone.info.preprocessing,
        workers=experiment.model.store.workers,
        corruption=corruption,
        seeds=tuple(corruption.image_seed(record.sha256) for record in records),
    )
    return LabelledImages(table=store.table(records), labels_N=labels_N, files=files)


def measure_shift(
    answering: Predictions, experiment: Experiment, folder: Path, *, seed: int, progress: Progress
) -> ShiftScore:
    """Accuracy of zero-shot and of the run on another dataset, choosing among the classes that both have.

    The images of its test/ are scored, or all of them where it has none, less those that the run was trained or
    chosen on. Answers are restricted to the shared classes as for ImageNet-R (Hendrycks et al. 2021, arXiv 2006.16241).

    Raises:
        DataError: no such folder, or fewer than two classes in common, or no image is left.
    """
    shifted = shifted_images(answering.run, experiment, folder, progress)
    targets = shifted.images.labels_N.numpy()
    before = shifted.is_correct(answering.baseline(shifted.images))
    tuned = answering.finetuned(shifted.images)
    after = None if tuned is None else shifted.is_correct(tuned)
    return ShiftScore(
        name=shifted.name,
        images=len(targets),
        classes=len(shifted.shared),
        baseline=float(before.mean()),
        baseline_ci95=bootstrap_accuracy(before, seed=seed),
        finetuned=None if after is None else float(after.mean()),
        finetuned_ci95=None if after is None else bootstrap_accuracy(after, seed=seed),
        mcnemar_p=None if after is None else mcnemar_p(before, after),
        left_out=shifted.left_out,
    )


@dataclass(frozen=True, kw_only=True)
class Shifted:
    """The images of another dataset that can be scored."""

    name: str
    images: LabelledImages
    shared: tuple[int, ...]
    """Indices of the model's classes that the other dataset has too: the possible answers."""
    left_out: int
    """Images whose content the run was trained or chosen on."""

    def is_correct(self, probabilities_NC: FloatArray) -> BoolArray:
        """Whether each image's most likely class of those shared is its own."""
        answers_N = np.array(self.shared)[probabilities_NC[:, list(self.shared)].argmax(axis=1)]
        right: BoolArray = answers_N == self.images.labels_N.numpy()
        return right


def shifted_images(run: checkpoint.Run | None, experiment: Experiment, folder: Path, progress: Progress) -> Shifted:
    """Read and encode another dataset.

    Raises:
        DataError: no such folder, or fewer than two classes in common.
    """
    dataset, left_out = _shifted(run, experiment, folder)
    encoding = experiment.model.store.encode(dataset.records)
    dataset = dataset.without(encoding.unreadable)
    if encoding.unreadable:
        progress.warn(f"{len(encoding.unreadable)} images of {folder} cannot be read and are skipped")
    present = {record.label for record in dataset.records}
    shared = [index for index, name in enumerate(dataset.classes) if name in present]
    if len(shared) < 2:
        raise DataError(
            f"--shift {folder} has {len(shared)} of the {len(dataset.classes)} classes with images to evaluate",
            remedy="Pass a dataset that shares at least two class names.",
        )
    images = experiment.model.images(dataset, "test")
    return Shifted(name=dataset.root.name, images=images, shared=tuple(shared), left_out=left_out)


def _shifted(run: checkpoint.Run | None, experiment: Experiment, folder: Path) -> tuple[ActionDataset, int]:
    """The other dataset with the images to score as its test split, and how many the run has seen."""
    dataset = load_dataset(folder, classes=experiment.dataset.classes)
    scored = dataset.split("test") if "test" in dataset.own_splits else dataset.records
    seen: set[str] = set()
    if run is not None and (run.folder / "manifest.csv").is_file():
        rows = read_manifest(run.folder / "manifest.csv")
        seen = {row.sha256 for row in rows if row.split in ("train", "val")}
    records = tuple(dataclasses.replace(record, split="test") for record in scored if record.sha256 not in seen)
    return dataclasses.replace(dataset, records=records), len(scored) - len(records)
