"""Unseen classes: the effect of training on classes held out of it, against zero-shot.

Which classes are held out is settled in prepare; the split of their images is that of the whole dataset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from clip_har import checkpoint
from clip_har.dataset import SplitName
from clip_har.errors import RunError
from clip_har.evaluation.findings import BaseNovel, Unseen
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment
from clip_har.experiment.zero_shot_model import embed_captions
from clip_har.methods import Classifier, ClassifierContext, LabelledImages
from clip_har.methods.zero_shot import ZeroShotClassifier
from clip_har.progress import Progress
from clip_har.text_tower import mean_prompts


@dataclass(frozen=True, kw_only=True)
class NovelImages:
    """The images of the held-out classes, and what a classifier of those is set into."""

    images: LabelledImages
    frame: ClassifierContext


def measure_novel(
    answering: Predictions, experiment: Experiment, split: SplitName, progress: Progress
) -> Unseen | None:
    """Accuracy on trained and on held-out actions, each among its own names; None where no images were held out.

    The protocol of CoCoOp (Zhou et al. 2022, arXiv 2203.05557, section 4.1). A method with a fixed head has no answer
    for other names: its place is taken by zero-shot, which is what one would then use, and `falls_back` says so.

    Args:
        answering: of the run and zero-shot, on the trained classes.
        split: the one whose images are scored.
    """
    novel = novel_images(answering.run, experiment, split, progress)
    if novel is None or experiment.novel is None:
        return None
    zero_shot = accuracy(ZeroShotClassifier(novel.frame.prompts_CD, novel.frame.logit_scale), novel.images)
    own = _restored(answering.run, novel.frame, experiment.model.backbone.device, progress)
    tuned = zero_shot if own is None else accuracy(own, novel.images)
    before, after = answering.accuracies(experiment.images(split))
    return Unseen(
        base_classes=experiment.dataset.classes,
        novel_classes=experiment.novel.classes,
        baseline=base_novel(before, zero_shot),
        finetuned=base_novel(before if after is None else after, tuned),
        falls_back=answering.run is not None and own is None,
    )


def base_novel(base: float, novel: float) -> BaseNovel:
    """Both accuracies and their harmonic mean, 0 where both are."""
    return BaseNovel(base=base, novel=novel, harmonic=2 * base * novel / (base + novel) if base + novel else 0.0)


def mean_of(found: list[BaseNovel]) -> BaseNovel:
    """Mean over trainings; the harmonic mean is that of the means, as CoCoOp has it."""
    return base_novel(float(np.mean([one.base for one in found])), float(np.mean([one.novel for one in found])))


def novel_images(
    run: checkpoint.Run | None, experiment: Experiment, split: SplitName, progress: Progress
) -> NovelImages | None:
    """The held-out classes' images of one split, encoded, with their prompts; None where there are none."""
    dataset = experiment.novel
    if dataset is None or not dataset.split(split):
        return None
    encoding = experiment.model.store.encode(dataset.split(split))
    dataset = dataset.without(encoding.unreadable)
    if not dataset.split(split):
        progress.warn(f"No image of the held-out classes can be read: {', '.join(dataset.classes)} are not evaluated")
        return None
    phrases = tuple(experiment.model.phrasing[name] for name in dataset.classes)
    captions_CTD = embed_captions(experiment.model.store, phrases, experiment.model.templates)
    card = experiment.model.backbone.info
    frame = ClassifierContext(
        classes=dataset.classes,
        templates=experiment.model.templates,
        phrases=phrases,
        prompts_CD=mean_prompts(captions_CTD),
        logit_scale=card.logit_scale if run is None else run.card.backbone.logit_scale,
        load_backbone=experiment.model.load_backbone,
    )
    return NovelImages(images=experiment.model.images(dataset, split), frame=frame)


def accuracy(classifier: Classifier, images: LabelledImages) -> float:
    """Share of the images that a classifier answers rightly."""
    return float((classifier.probabilities(images).argmax(dim=1) == images.labels_N).float().mean())


def _restored(
    run: checkpoint.Run | None, frame: ClassifierContext, device: torch.device, progress: Progress
) -> Classifier | None:
    """The run as a classifier of the frame's classes; None where its method cannot be one."""
    if run is None or not run.method.answers_new_names:
        return None
    run.tensors()  # missing or damaged weights are an error, not a question of names
    try:
        return run.classifier(frame=frame).to(device)
    except RunError:
        if run.method.fits_any_name:
            raise
        progress.warn(f"{run.folder} cannot predict the held-out classes: their names do not fit its learned prompts")
        return None
