"""What validation images tell of a run's confidence: fitted once, kept on its card, checked on test images.

The mathematics is in `evaluation.certainty`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io

import numpy as np
import numpy.typing as npt

from clip_har import checkpoint, distributed, predict
from clip_har.evaluation import Calibration, EvalResult, calibrate, check_confidence
from clip_har.files import write_atomically
from clip_har.methods import LabelledImages
from clip_har.progress import Progress
from clip_har.workflows.prepare import Prepared


def with_confidence(
    result: EvalResult, run: checkpoint.Run | None, prepared: Prepared, progress: Progress
) -> EvalResult:
    """The result with both models' confidence checked on its images.

    As it is where these are themselves validation images, or there are none: nothing could be fitted on others.
    """
    if result.split == "val" or not prepared.dataset.counts()["val"]:
        return result
    val = prepared.images("val")
    zero_shot = calibrate(prepared.zero_shot().probabilities(val).numpy(), val.labels_N.numpy())
    calibration = None if run is None else run_calibration(run, prepared, progress)
    finetuned = None
    if result.finetuned is not None and calibration is not None:
        finetuned = check_confidence(calibration, result.finetuned.probabilities_NC, result.targets_N)
    return dataclasses.replace(
        result,
        confidence_baseline=check_confidence(zero_shot, result.baseline.probabilities_NC, result.targets_N),
        confidence_finetuned=finetuned,
    )


def run_calibration(run: checkpoint.Run, prepared: Prepared, progress: Progress) -> Calibration:
    """What the run's card holds; else fitted on the validation images, and kept if they are the run's own."""
    kept = predict.run_calibration(run)
    if kept is not None:
        return kept
    val = prepared.images("val")
    calibration = calibrate(run_probabilities(run, prepared, val, progress), val.labels_N.numpy())
    own = run.card.get("manifest_sha256") == prepared.dataset.manifest_hash()
    if own and distributed.is_main():
        with contextlib.suppress(OSError):  # a run may lie where nothing can be written
            checkpoint.add_to_card(run.folder, "confidence", calibration.to_json())
    return calibration


def run_probabilities(
    run: checkpoint.Run, prepared: Prepared, images: LabelledImages, progress: Progress
) -> npt.NDArray[np.float32]:
    """What the run answers; what its own tower has once answered for the same images is kept in the run folder."""
    digest = hashlib.sha256("".join(images.table.hashes).encode())
    weights = run.folder / run.method.weights_file
    digest.update(weights.read_bytes() if weights.is_file() else b"")  # zero-shot has none
    kept = run.folder / "answers" / f"{digest.hexdigest()[:32]}.npy"
    if distributed.gather_objects(kept.is_file())[0]:
        with contextlib.suppress(OSError, ValueError):
            return np.load(kept, allow_pickle=False)  # type: ignore[no-any-return]
    classifier = run.classifier(model=prepared.backbone.card.name, device=str(prepared.backbone.device))
    classifier.to(prepared.backbone.device)
    answers_NC: npt.NDArray[np.float32] = classifier.probabilities(images, progress=progress).numpy()
    if classifier.reads == "image" and distributed.is_main():
        content = io.BytesIO()
        np.save(content, answers_NC)
        write_atomically(kept, content.getvalue())
    return answers_NC
