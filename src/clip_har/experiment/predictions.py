"""What zero-shot and a run answer for any images of an experiment; a tower's answers are kept in the run folder.

Which images these are, and what the answers are worth, is for the other modules here to say.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clip_har import checkpoint, distributed
from clip_har.evaluation import BoolArray, FloatArray, IntArray
from clip_har.experiment.setup import Experiment
from clip_har.images import PIXELS_VERSION
from clip_har.integrity import DamagedError, read_sealed, write_sealed
from clip_har.methods import Classifier, LabelledImages
from clip_har.progress import SILENT, Progress


class Predictions:
    """Zero-shot and, where there is a trained run, the run.

    Args:
        run: None, or a run; one of the method zero-shot counts as none.
        experiment: the backbone and the class prompts.
        progress: shows a bar where images must be read.
        keep: whether a tower's answers are kept in the run folder.
    """

    def __init__(
        self, run: checkpoint.Run | None, experiment: Experiment, progress: Progress = SILENT, *, keep: bool = True
    ) -> None:
        self.run = run if run is not None and run.method.has_weights else None
        self._experiment = experiment
        self._progress = progress
        self._keep = keep

    def baseline(self, images: LabelledImages) -> FloatArray:
        """Zero-shot's class probabilities, float32 [N, C]."""
        probabilities: npt.NDArray[np.float32] = self._experiment.model.classifier().probabilities(images).numpy()
        return probabilities

    def finetuned(self, images: LabelledImages) -> FloatArray | None:
        """The run's class probabilities, float32 [N, C]; None without a trained run.

        For images that it was fitted on after cross-validation, these are cross-validation's.
        """
        if self.run is None:
            return None
        kept = self.run.folder / "answers" / f"{self._key(self.run, images)}.npy"
        known_NC = self._known(kept, images)
        if all(distributed.gather_objects(known_NC is not None)):  # all processes take the same way
            return known_NC
        answers_NC: npt.NDArray[np.float32] = self.classifier.probabilities(images, progress=self._progress).numpy()
        self._replace_answers_for_its_own(self.run, images, answers_NC)
        if self._keep and self.classifier.reads == "image" and distributed.is_main():
            content = io.BytesIO()
            np.save(content, answers_NC)
            with contextlib.suppress(OSError):  # a run may lie where nothing can be written
                write_sealed(kept, content.getvalue())
        return answers_NC

    def judged(self) -> tuple[FloatArray, IntArray]:
        """Class probabilities of images that nothing was fitted on, and their classes: what a run is calibrated by.

        Those of cross-validation where the run was fitted on all of its images, else those of the validation split.
        """
        if self.run is not None and (found := self.run.out_of_fold()) is not None:
            return found.probabilities_NC.numpy(), found.labels_N.numpy()
        val = self._experiment.images("val")
        answers_NC = self.finetuned(val)
        return self.baseline(val) if answers_NC is None else answers_NC, val.labels_N.numpy()

    def accuracies(self, images: LabelledImages) -> tuple[float, float | None]:
        """Of zero-shot, and of the run if there is one."""
        targets, tuned = images.labels_N.numpy(), self.finetuned(images)
        return (
            float(is_correct(self.baseline(images), targets).mean()),
            None if tuned is None else float(is_correct(tuned, targets).mean()),
        )

    @cached_property
    def classifier(self) -> Classifier:
        """The run's own, on the backbone's device."""
        assert self.run is not None
        device = self._experiment.model.backbone.device
        return self.run.classifier(model=self._experiment.model.backbone.info.name, device=str(device)).to(device)

    @staticmethod
    def _replace_answers_for_its_own(run: checkpoint.Run, images: LabelledImages, answers_NC: FloatArray) -> None:
        """Where the run was fitted on an image after cross-validation, give it cross-validation's answer."""
        found = run.out_of_fold()
        if found is None or (images.files is not None and images.files.corruption is not None):
            return
        row_of = {sha256: row for row, sha256 in enumerate(found.hashes)}
        pairs = [(index, row_of[sha256]) for index, sha256 in enumerate(images.table.hashes) if sha256 in row_of]
        if pairs:
            indices, rows = zip(*pairs, strict=True)
            answers_NC[list(indices)] = found.probabilities_NC[list(rows)].numpy()

    def _known(self, path: Path, images: LabelledImages) -> FloatArray | None:
        """The predictions saved earlier, if they are whole."""
        try:
            known_NC: FloatArray = np.load(io.BytesIO(read_sealed(path)), allow_pickle=False)
        except FileNotFoundError:
            return None
        except (DamagedError, ValueError):
            self._progress.warn(f"The saved predictions in {path} are damaged and are computed again")
            return None
        return known_NC if known_NC.shape == (len(images), len(self._experiment.dataset.classes)) else None

    def _key(self, run: checkpoint.Run, images: LabelledImages) -> str:
        """A hash of all that decides the answers."""
        digest = hashlib.sha256("".join(images.table.hashes).encode())
        digest.update(run.weights_sha256().encode())
        digest.update(str(PIXELS_VERSION).encode())
        if images.files is not None and images.files.corruption is not None:
            digest.update(json.dumps(images.files.corruption.key(), sort_keys=True).encode())
        return digest.hexdigest()[:32]


def is_correct(probabilities_NC: FloatArray, targets_N: IntArray) -> BoolArray:
    """Whether each image's most likely class is its own."""
    right: BoolArray = probabilities_NC.argmax(axis=1) == targets_N
    return right


def stratified(labels_N: torch.Tensor, count: int, seed: int) -> list[int]:
    """Indices of `count` images, each class by its share, in their order; all of them where `count` is 0 or too many.

    Shares are rounded to whole images by largest remainder; the images are drawn with the seed.
    """
    total = len(labels_N)
    if count <= 0 or count >= total:
        return list(range(total))
    classes, sizes = np.unique(labels_N.numpy(), return_counts=True)
    exact = sizes * count / total
    wanted = np.floor(exact).astype(np.int64)
    wanted[np.argsort(wanted - exact, kind="stable")[: count - wanted.sum()]] += 1
    order_N = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    taken = [
        order_N[labels_N[order_N] == int(label)][: int(number)] for label, number in zip(classes, wanted, strict=True)
    ]
    return sorted(torch.cat(taken).tolist())
