"""Losses between image and text embeddings: class-aware ones, and the original InfoNCE loss.

Shapes: B images of a batch, A images of all processes' batches, C classes, D embedding width. Embeddings are
unit-length, `scale` is the logit scale. Where several processes train together, every image is contrasted with the
captions of all of them, and the gradients flow back to where each came from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har import distributed


def cosine_logits(image_BD: Tensor, text_CD: Tensor, scale: Tensor) -> Tensor:
    """scale * cosine [B, C], in float32 also under autocast: near 25, bfloat16 numbers lie 0.125 apart."""
    with torch.autocast(image_BD.device.type, enabled=False):
        return scale.float() * image_BD.float() @ text_CD.float().T


def supcon(
    image_BD: Tensor, caption_BD: Tensor, labels_B: Tensor, scale: Tensor, weights_B: Tensor | None = None
) -> Tensor:
    """Symmetric contrastive loss within the batch, in which all captions of an image's class are its positives.

    L_out of Khosla et al. 2020 (arXiv 2004.11362, eq. 2) between images and captions, in both directions, as UniCL
    (Yang et al. 2022, arXiv 2204.03610, eq. 3): the mean over the positives of -log softmax.

    Args:
        weights_B: each image's share in the loss; equal shares by default. An image whose share is 0 takes no part.
    """
    labels_A = distributed.gather_rows(labels_B)
    positive_BA = (labels_B[:, None] == labels_A[None, :]).to(image_BD.dtype)
    return _symmetric(image_BD, caption_BD, positive_BA, scale, weights_B)


def infonce(
    image_BD: Tensor, caption_BD: Tensor, labels_B: Tensor, scale: Tensor, weights_B: Tensor | None = None
) -> Tensor:
    """CLIP's own batch loss (arXiv 2103.00020, figure 3): the image's caption against all others of the batch.

    Kept to reproduce the original results. Captions of the image's own class count as negatives: with 15 classes and
    batches of 64, about four in every row. Where all captions of a class are the same sentence this equals `supcon`;
    where they are worded differently it trains images to prefer one wording over another.
    """
    del labels_B  # that it cannot see them is the point
    count = len(image_BD)
    own_BA = torch.zeros(count, count * distributed.world_size(), dtype=image_BD.dtype, device=image_BD.device)
    start = distributed.rank() * count
    own_BA[:, start : start + count].fill_diagonal_(1.0)
    return _symmetric(image_BD, caption_BD, own_BA, scale, weights_B)


CAPTION_LOSSES = {"supcon": supcon, "infonce": infonce}
"""Losses between the images of a batch and a caption of each."""


def _symmetric(
    image_BD: Tensor, caption_BD: Tensor, positive_BA: Tensor, scale: Tensor, weights_B: Tensor | None
) -> Tensor:
    """The mean of -log softmax over each row's positives, from images to captions and back, weighted."""
    if weights_B is None:
        weights_B = torch.full((len(image_BD),), 1 / len(image_BD), dtype=image_BD.dtype, device=image_BD.device)
    taking_part_A = distributed.gather_rows(weights_B.detach()) > 0
    positive_BA = positive_BA * taking_part_A
    share_BA = positive_BA / positive_BA.sum(dim=1, keepdim=True).clamp(min=1)
    loss_B = torch.zeros_like(weights_B)
    for own_BD, others_BD in ((image_BD, caption_BD), (caption_BD, image_BD)):
        logits_BA = cosine_logits(own_BD, distributed.gather_rows(others_BD), scale)
        log_softmax_BA = F.log_softmax(logits_BA.masked_fill(~taking_part_A, float("-inf")), dim=1)
        loss_B = loss_B - (share_BA * log_softmax_BA.masked_fill(~taking_part_A, 0.0)).sum(dim=1) / 2
    return (loss_B * weights_B).sum()
