"""WiSE-FT's curve: what is won in the domain and lost outside it, from the zero-shot weights to the trained ones.

How alpha is chosen, on validation, is in methods/wise_ft.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from clip_har import checkpoint
from clip_har.dataset import SplitName
from clip_har.errors import RunError
from clip_har.evaluation.findings import WiseCurve, WisePoint
from clip_har.experiment.novel_classes import NovelImages, accuracy, novel_images
from clip_har.experiment.predictions import stratified
from clip_har.experiment.robustness import Shifted, corrupted_images, shifted_images
from clip_har.experiment.setup import Experiment
from clip_har.images import Corruption
from clip_har.methods import Classifier, ClassifierContext, InterpolatedMethod, LabelledImages
from clip_har.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What lies outside the domain, as asked for."""

    kinds: Sequence[str] = ()
    """Corruptions; none where robustness is not asked for."""
    severities: Sequence[int] = ()
    """Those asked for; the curve takes the middle one."""
    limit: int = 0
    """Images to corrupt at most; 0 takes all."""
    shift: Path | None = None
    """Another dataset."""
    seed: int = 0

    @property
    def severity(self) -> int | None:
        """The middle one, which alone the curve is drawn for: eleven models on all of them would take long."""
        return sorted(self.severities)[len(self.severities) // 2] if self.kinds else None


def measure_wise_curve(
    run: checkpoint.Run | None, experiment: Experiment, split: SplitName, outside: Outside, progress: Progress
) -> WiseCurve | None:
    """Accuracy inside and outside the domain at every alpha; None for other methods, or where nothing is outside."""
    method = None if run is None else run.method
    if run is None or not isinstance(method, InterpolatedMethod):
        return None
    novel = novel_images(run, experiment, split, progress)
    if novel is None and not outside.kinds and outside.shift is None:
        return None
    try:
        trained = _source_run(run).tensors()
    except (RunError, TypeError) as error:
        progress.warn(f"No WiSE-FT curve: the run it interpolates cannot be used ({error})")
        return None
    frame = run.frame(model=experiment.model.backbone.info.name, device=str(experiment.model.backbone.device))
    places = _Places(run, experiment, split, outside, novel, progress)
    points = []
    with progress.bar("WiSE-FT curve", total=len(method.shares), unit="models") as bar:
        for alpha, tensors in method.mixtures(frame, trained):
            points.append(places.point(alpha, tensors, frame))
            bar.advance()
    return WiseCurve(points=tuple(points), chosen=chosen_alpha(run), severity=outside.severity)


class _Places:
    """The images of all that is measured, each read once."""

    def __init__(
        self,
        run: checkpoint.Run,
        experiment: Experiment,
        split: SplitName,
        outside: Outside,
        novel: NovelImages | None,
        progress: Progress,
    ) -> None:
        self._run = run
        self._device = experiment.model.backbone.device
        self._inside = experiment.images(split)
        self._novel = novel
        self._corrupted: list[LabelledImages] = []
        if outside.severity is not None:
            chosen = stratified(self._inside.labels_N, outside.limit, outside.seed)
            records = [experiment.dataset.split(split)[index] for index in chosen]
            corruptions = [Corruption(kind=k, severity=outside.severity, seed=outside.seed) for k in outside.kinds]
            labels_N = self._inside.labels_N[chosen]
            self._corrupted = [corrupted_images(experiment, records, labels_N, c, progress) for c in corruptions]
        self._shift: Shifted | None = None
        if outside.shift is not None:
            self._shift = shifted_images(run, experiment, outside.shift, progress)

    def point(self, alpha: float, tensors: Mapping[str, Tensor], frame: ClassifierContext) -> WisePoint:
        """What one mixture is worth."""
        classifier = self._classifier(frame, tensors)
        shift = None
        if self._shift is not None:
            answers_NC = classifier.probabilities(self._shift.images).numpy()
            shift = float(self._shift.is_correct(answers_NC).mean())
        corrupted = [accuracy(classifier, images) for images in self._corrupted]
        novel = None
        if self._novel is not None:
            novel = accuracy(self._classifier(self._novel.frame, tensors), self._novel.images)
        return WisePoint(
            alpha=alpha,
            in_domain=accuracy(classifier, self._inside),
            novel=novel,
            corrupted=float(np.mean(corrupted)) if corrupted else None,
            shift=shift,
        )

    def _classifier(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> Classifier:
        return self._run.method.restore(frame, tensors).eval().requires_grad_(False).to(self._device)


def _source_run(run: checkpoint.Run) -> checkpoint.Run:
    """The run that was mixed, if it still has the weights that it had then: only its path is known.

    Raises:
        RunError: it is gone, or trained again.
    """
    start_from, then = run.settings.start_from, run.settings.source
    assert start_from is not None and then is not None  # of an interpolated run
    source = checkpoint.load_run(start_from)
    if source.weights_sha256() != then.weights_sha256:
        raise RunError(
            f"{source.folder} does not contain the weights that {run.folder} was interpolated from",
            remedy="Train the wise-ft run again.",
        )
    return source


def chosen_alpha(run: checkpoint.Run) -> float:
    """The share of the trained weights that an interpolated run kept."""
    method = run.method
    assert isinstance(method, InterpolatedMethod)
    return method.share_of(str(run.card.validation["candidate"]))
