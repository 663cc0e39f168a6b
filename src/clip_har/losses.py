"""Losses between image and text embeddings: class-aware ones, and the naive one for the record.

Shapes: B images of a batch, C classes, D embedding width. Embeddings are unit-length, `scale` is the logit scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_cross_entropy(image_BD: Tensor, class_CD: Tensor, labels_B: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of softmax over all classes' prompt embeddings; no image is another's negative.

    The zero-shot classifier's own objective (Radford et al. 2021, arXiv 2103.00020, section 3.1.2).
    """
    return F.cross_entropy(scale * image_BD @ class_CD.T, labels_B)


def supcon(image_BD: Tensor, caption_BD: Tensor, labels_B: Tensor, scale: Tensor) -> Tensor:
    """Symmetric contrastive loss within the batch, in which all captions of an image's class are its positives.

    L_out of Khosla et al. 2020 (arXiv 2004.11362, eq. 2) between images and captions, in both directions, as UniCL
    (Yang et al. 2022, arXiv 2204.03610, eq. 3): the mean over the positives of -log softmax.
    """
    logits_BB = scale * image_BD @ caption_BD.T
    positive_BB = (labels_B[:, None] == labels_B[None, :]).to(logits_BB.dtype)
    share_BB = positive_BB / positive_BB.sum(dim=1, keepdim=True)
    image_to_text = -(share_BB * F.log_softmax(logits_BB, dim=1)).sum(dim=1).mean()
    text_to_image = -(share_BB * F.log_softmax(logits_BB.T, dim=1)).sum(dim=1).mean()
    return (image_to_text + text_to_image) / 2


def infonce(image_BD: Tensor, caption_BD: Tensor, labels_B: Tensor, scale: Tensor) -> Tensor:
    """CLIP's own batch loss (arXiv 2103.00020, figure 3): the image's caption against all others of the batch.

    Kept for the record. Captions of the image's own class count as negatives: with 15 classes and batches of 64, about
    four in every row. Where all captions of a class are the same sentence this equals `supcon`; where they are worded
    differently it trains images to prefer one wording over another.
    """
    del labels_B  # that it cannot see them is the point
    logits_BB = scale * image_BD @ caption_BD.T
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, own_B) + F.cross_entropy(logits_BB.T, own_B)) / 2


CAPTION_LOSSES = {"supcon": supcon, "infonce": infonce}
"""Losses between the images of a batch and a caption of each."""
