"""Does averaging over flips and crops help at test time, and as extra training rows? A plain loop, without selection.

    python benchmarks/views.py --data FOLDER --model MODEL [--run RUN]

FOLDER has train/ and test/ with class folders. ridge (penalty 0.3) and gda (shrinkage 0.3) are fitted on the features
before the projection, under the signed square root, of all training images; float32. "features" averages the features
over the views, in training and test; "rows" takes each view as a training row, and averages the answers of a test
image's views. With --run, the answers of an image encoder that was fine-tuned are averaged too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har import checkpoint
from clip_har.backbone import Backbone, load_backbone
from clip_har.dataset import load_dataset
from clip_har.images import decode_batches
from clip_har.images.addresses import ImageAddress

# Shapes: N images, C classes, H width of the features.

Fit = Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]
COMBINATIONS = (("plain",), ("plain", "flip"), ("plain", "crop 0.85"), ("plain", "flip", "crop 0.85", "crop 0.7"))


def flipped(images_BCHW: Tensor) -> Tensor:
    return images_BCHW.flip(-1)


def cropped(images_BCHW: Tensor, share: float) -> Tensor:
    """The centre, `share` of either side, enlarged."""
    side = images_BCHW.shape[-1]
    kept = round(side * share)
    start = (side - kept) // 2
    centre_BCHW = images_BCHW[..., start : start + kept, start : start + kept]
    return F.interpolate(centre_BCHW, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda images_BCHW: images_BCHW,
    "flip": flipped,
    "crop 0.85": lambda images_BCHW: cropped(images_BCHW, 0.85),
    "crop 0.7": lambda images_BCHW: cropped(images_BCHW, 0.7),
}


def ridge(features_NH: Tensor, labels_N: Tensor) -> Callable[[Tensor], Tensor]:
    targets_NC = F.one_hot(labels_N).double()
    targets_NC = targets_NC - 1 / targets_NC.shape[1]
    inputs_NX = F.pad(features_NH, (0, 1), value=1.0)
    gram_XX = inputs_NX.T @ inputs_NX
    penalty = 0.3 * (gram_XX.trace() - gram_XX[-1, -1]) / features_NH.shape[1]
    weight_XC = torch.linalg.solve(gram_XX + penalty * torch.eye(len(gram_XX)), inputs_NX.T @ targets_NC)
    return lambda other_NH: F.pad(other_NH, (0, 1), value=1.0) @ weight_XC


def gda(features_NH: Tensor, labels_N: Tensor) -> Callable[[Tensor], Tensor]:
    mean_CH = torch.stack([features_NH[labels_N == label].mean(dim=0) for label in labels_N.unique()])
    centred_NH = features_NH - mean_CH[labels_N]
    covariance_HH = centred_NH.T @ centred_NH / len(centred_NH)
    covariance_HH = 0.7 * covariance_HH + 0.3 * covariance_HH.diagonal().mean() * torch.eye(len(covariance_HH))
    weight_HC = torch.linalg.solve(covariance_HH, mean_CH.T)
    bias_C = -0.5 * (mean_CH.T * weight_HC).sum(dim=0)
    return lambda other_NH: other_NH @ weight_HC + bias_C


def encoded(paths: Sequence[ImageAddress], backbone: Backbone, view: Callable[[Tensor], Tensor]) -> Tensor:
    """Features under the signed square root, unit length, float64 [N, H]."""
    preprocessing = backbone.info.preprocessing
    parts = []
    for batch in decode_batches(paths, preprocessing.pixel_transform(), batch_size=64, workers=0):
        hidden_BH = backbone.encode_images(view(preprocessing.normalise(batch.images_BCHW))).of_kind("hidden")
        parts.append(F.normalize(hidden_BH.sign() * hidden_BH.abs().sqrt(), dim=-1))
    return torch.cat(parts).double()


@torch.no_grad()
def answers_of(
    run: checkpoint.Run, paths: Sequence[ImageAddress], view: Callable[[Tensor], Tensor], model: str
) -> Tensor:
    """Probabilities [N, C] of a run that reads images."""
    classifier = run.classifier(model=model).eval()
    parts = []
    for batch in decode_batches(paths, run.preprocessing.pixel_transform(), batch_size=32, workers=0):
        parts.append(classifier(view(run.preprocessing.normalise(batch.images_BCHW))).softmax(dim=1))
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--run", type=Path)
    asked = parser.parse_args()
    dataset = load_dataset(asked.data, val_fraction=0.15, test_fraction=0.2, split_seed=0)
    train = [*dataset.split("train"), *dataset.split("val")]
    test = list(dataset.split("test"))
    labels_N, truth_N = (
        torch.tensor([dataset.classes.index(record.label) for record in records]) for records in (train, test)
    )
    backbone = load_backbone(asked.model, device="cpu", precision="float32")
    paths, test_paths = [record.path for record in train], [record.path for record in test]
    features = {name: encoded([*paths, *test_paths], backbone, view) for name, view in VIEWS.items()}
    run = None if asked.run is None else checkpoint.load_run(asked.run)
    answers = {} if run is None else {n: answers_of(run, test_paths, view, asked.model) for n, view in VIEWS.items()}

    def accuracy(logits_NC: Tensor) -> str:
        return f"{float((logits_NC.argmax(dim=1) == truth_N).float().mean()):.2%}"

    fits: dict[str, Fit] = {"ridge": ridge, "gda": gda}
    print("views".ljust(36), *(f"{name}, {how}".rjust(16) for name in fits for how in ("features", "rows")))
    for views in COMBINATIONS:
        found = []
        for fit in fits.values():
            mean_NH = F.normalize(torch.stack([features[view] for view in views]).mean(dim=0), dim=-1)
            found.append(accuracy(fit(mean_NH[: len(train)], labels_N)(mean_NH[len(train) :])))
            rows_NH = torch.cat([features[view][: len(train)] for view in views])
            answer = fit(rows_NH, labels_N.repeat(len(views)))
            found.append(accuracy(torch.stack([answer(features[view][len(train) :]) for view in views]).mean(dim=0)))
        if answers:
            found.append(f"the run: {accuracy(torch.stack([answers[view] for view in views]).mean(dim=0))}")
        print(", ".join(views).ljust(36), *(text.rjust(16) for text in found))


if __name__ == "__main__":
    main()
