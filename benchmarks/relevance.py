"""Whether relevance maps mark what a model needs: how many right answers survive when the marked places are hidden.

    python benchmarks/relevance.py demo FOLDER [--per-class 4]

FOLDER holds class folders, such as quickstart/data/test. A fifth of the map's places is hidden by the image's mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone, load_backbone
from clip_har.explain.relevance import relevance_maps
from clip_har.images import decode
from clip_har.prompts import ACTION_TEMPLATES, sentences

SHARE = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-class", type=int, default=4, help="images of each class")
    given = parser.parse_args()
    measure(given.model, given.folder, given.per_class)


def measure(model: str, folder: Path, per_class: int) -> None:
    """Print how many right answers survive."""
    backbone = load_backbone(model, device="cpu", precision="float32")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    captions = [backbone.encode_text(sentences(name, ACTION_TEMPLATES)).mean(dim=0) for name in classes]
    prompts_CD = F.normalize(torch.stack(captions), dim=-1)
    transform = backbone.info.preprocessing.transform()
    files = [(path, k) for k, name in enumerate(classes) for path in sorted((folder / name).iterdir())[:per_class]]
    images_BCHW = torch.stack([transform(decode(path)) for path, _ in files])
    labels_B = torch.tensor([label for _, label in files])

    def logits_of(images: Tensor) -> Tensor:
        embedding_BD = backbone.model.encode_image(images)  # type: ignore[operator]
        return backbone.info.logit_scale * F.normalize(embedding_BD, dim=-1) @ prompts_CD.T

    with torch.no_grad():
        right_B = logits_of(images_BCHW).argmax(dim=1) == labels_B
    images_BCHW, labels_B = images_BCHW[right_B], labels_B[right_B]
    print(f"{len(labels_B)} right answers; of these survive")
    marks_BN, side = maps(backbone, logits_of, images_BCHW, labels_B)
    anywhere_BN = torch.rand(marks_BN.shape, generator=torch.Generator().manual_seed(0))
    for name, order_BN in (("most marked", marks_BN), ("random", anywhere_BN), ("least marked", -marks_BN)):
        print(f"  {survival(logits_of, images_BCHW, labels_B, order_BN, side):.1%} with the {name} fifth hidden")


def maps(
    backbone: Backbone, logits_of: Callable[[Tensor], Tensor], images_BCHW: Tensor, labels_B: Tensor
) -> tuple[Tensor, int]:
    """One row of marks per image, and the rows and columns of places."""
    visual = cast(nn.Module, backbone.model.visual)
    parts = []
    for images, labels in zip(images_BCHW.split(16), labels_B.split(16), strict=True):
        found = relevance_maps(logits_of, visual, images, labels)
        assert found is not None
        parts.append(found[1])
    marks = torch.cat(parts)
    return marks.flatten(1), marks.shape[1]


def survival(
    logits_of: Callable[[Tensor], Tensor], images_BCHW: Tensor, labels_B: Tensor, order_BN: Tensor, side: int
) -> float:
    """Share of the answers that stay right with the places of highest order hidden."""
    count = max(1, round(SHARE * order_BN.shape[1]))
    hidden_BN = torch.zeros_like(order_BN).scatter(1, order_BN.topk(count, dim=1).indices, 1.0)
    mask = F.interpolate(hidden_BN.reshape(-1, 1, side, side), images_BCHW.shape[-2:])
    mean = images_BCHW.mean(dim=(2, 3), keepdim=True)
    with torch.no_grad():
        answers_B = logits_of(images_BCHW * (1 - mask) + mean * mask).argmax(dim=1)
    return float((answers_B == labels_B).float().mean())


if __name__ == "__main__":
    main()
