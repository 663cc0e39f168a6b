"""The contrastive training of the tiny CLIP on the wide set.

The loss knows which captions are true of which pictures, so equal captions are no negatives of each other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import PatchDropout
from tokenizers import Tokenizer
from torch import Tensor, nn

from tiny_clip.captions import detailed_caption, generic_caption
from tiny_clip.model import CONTEXT_LENGTH, IMAGE_SIZE
from tiny_clip.rendering import WideSet


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train."""

    steps: int
    """Optimizer steps; with `minutes`, only an upper limit."""
    minutes: float | None = None
    """Time after which the training ends; the schedule then follows the clock, so weights vary."""
    batch_size: int = 128
    lr: float = 1.5e-3
    warmup: int = 100
    """Optimizer steps."""
    action_weight: float = 0.5
    """Weight of telling the actions apart with a linear head; it speeds up the start and is thrown away."""
    weight_decay: float = 0.1
    generic_share: float = 0.6
    """Fraction of captions that tell the action only."""
    patch_dropout: float = 0.0
    """Fraction of patches left out to save time; none are in the last 15 % of the training."""
    seed: int = 0


def masked_targets(actions_B: Tensor, generic_B: Tensor) -> tuple[Tensor, Tensor]:
    """Which picture-caption pairs of a batch belong together, and which are left out of the loss.

    A caption that tells only the action belongs to every picture of the action. A detailed one belongs to its
    own picture; whether it is true of others of the same action is not known, so those pairs are left out.

    Returns:
        Two B x B masks, rows pictures and columns captions: pairs that belong together, pairs left out.
    """
    own_BB = torch.eye(len(actions_B), dtype=torch.bool)
    same_BB = actions_B[:, None] == actions_B[None, :]
    positive_BB = own_BB | (same_BB & generic_B[None, :])
    return positive_BB, same_BB & ~positive_BB


def contrastive_loss(logits_BB: Tensor, positive_BB: Tensor, ignored_BB: Tensor) -> Tensor:
    """Symmetric InfoNCE with several positives.

    Each row's (column's) target is uniform over its positives: SupCon's "L_out" (arXiv 2004.11362, eq. 2).
    """
    logits_BB = logits_BB.masked_fill(ignored_BB, -1e4)
    loss = logits_BB.new_zeros(())
    for scores, targets in ((logits_BB, positive_BB.float()), (logits_BB.T, positive_BB.T.float())):
        shares = targets / targets.sum(dim=1, keepdim=True)
        loss = loss - (shares * F.log_softmax(scores, dim=1)).sum(dim=1).mean() / 2
    return loss


class Batches:
    """Endless batches of augmented pictures with freshly worded captions."""

    def __init__(self, wide: WideSet, tokenizer: Tokenizer, recipe: Recipe) -> None:
        self._wide = wide
        self._recipe = recipe
        self._rng = Random(recipe.seed)
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._images = torch.from_numpy(wide.images)
        names = sorted({facts.action for facts in wide.facts})
        self.actions = len(names)
        self._actions = torch.tensor([names.index(facts.action) for facts in wide.facts])
        self._tokenizer = tokenizer
        tokenizer.enable_truncation(CONTEXT_LENGTH)
        tokenizer.enable_padding(length=CONTEXT_LENGTH, pad_id=0, pad_token="<pad>")
        self._order = torch.empty(0, dtype=torch.long)

    def next(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures (B x 3 x 72 x 72, normalised), token ids, action numbers, whether captions are generic."""
        size = self._recipe.batch_size
        if len(self._order) < size:
            self._order = torch.randperm(len(self._images), generator=self._generator)
        indices, self._order = self._order[:size], self._order[size:]
        generic = [self._rng.random() < self._recipe.generic_share for _ in indices]
        captions = [
            self._caption(index, plain) for index, plain in zip(indices.tolist(), generic, strict=True)
        ]
        ids = torch.tensor([encoding.ids for encoding in self._tokenizer.encode_batch(captions)])
        return self._augmented(indices), ids, self._actions[indices], torch.tensor(generic)

    def _caption(self, index: int, plain: bool) -> str:
        facts = self._wide.facts[index]
        if plain:
            return generic_caption(facts.action, self._rng)
        return detailed_caption(facts.action, list(facts.people), facts.place, self._rng)

    def _augmented(self, indices: Tensor) -> Tensor:
        pixels = self._images[indices].permute(0, 3, 1, 2).float() / 127.5 - 1.0
        parts = []
        for part in pixels.split(16):
            full = part.shape[-1]
            side = self._rng.randint(round(full * 0.85), full)
            left, top = self._rng.randint(0, full - side), self._rng.randint(0, full - side)
            part = part[:, :, top : top + side, left : left + side]
            if self._rng.random() < 0.5:
                part = part.flip(-1)
            parts.append(
                F.interpolate(part, size=IMAGE_SIZE, mode="bilinear", antialias=True, align_corners=False)
            )
        return torch.cat(parts)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))


def learning_rate(step: int, share: float, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to a hundredth when `share`, the part that is done, reaches 1."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    return recipe.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class Learner(nn.Module):
    """The model with the linear head that training alone needs."""

    def __init__(self, model: nn.Module, actions: int) -> None:
        super().__init__()
        self.model = model
        self.visual = model.get_submodule("visual")
        self.head = nn.LazyLinear(actions)

    def forward(self, images_BCHW: Tensor, ids_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Image-caption similarities times the logit scale (B x B), and the scores of the actions (B x A)."""
        image_BD = F.normalize(self.visual(images_BCHW), dim=-1)
        text_BD = F.normalize(self._encode_text(ids_BL), dim=-1)
        scale = self.model.get_parameter("logit_scale").exp()
        return scale * image_BD @ text_BD.T, self.head(image_BD * 11.3)  # 128 ** 0.5: components of size 1

    def _encode_text(self, ids_BL: Tensor) -> Tensor:
        """What open_clip's encode_text computes, without positions that are padding in the whole batch."""
        model: Any = self.model
        ends_B = ids_BL.argmax(dim=1)
        length = int(ends_B.max()) + 1
        hidden_BLW = model.token_embedding(ids_BL[:, :length]) + model.positional_embedding[:length]
        hidden_BLW = model.transformer(hidden_BLW, attn_mask=model.attn_mask[:length, :length])
        ended_BW = model.ln_final(hidden_BLW)[torch.arange(len(ids_BL)), ends_B]
        text_BD: Tensor = ended_BW @ model.text_projection
        return text_BD

    def keep_patches(self, dropped: float) -> None:
        """Set the fraction of patches that are left out."""
        self.visual.patch_dropout = PatchDropout(dropped) if dropped else nn.Identity()


def train(
    model: nn.Module,
    wide: WideSet,
    tokenizer: Tokenizer,
    recipe: Recipe,
    on_step: Callable[[int, float, float], None],
) -> int:
    """Train in place and return the number of steps; `on_step` gets step, loss and elapsed seconds."""
    batches = Batches(wide, tokenizer, recipe)
    learner = Learner(model, batches.actions)
    images_BCHW, ids_BL, actions_B, generic_B = batches.next()
    learner(images_BCHW[:2], ids_BL[:2])  # gives the lazy head its shape
    optimizer = _optimizer(learner, recipe)
    learner.train()
    learner.keep_patches(recipe.patch_dropout)
    start, step, share = time.perf_counter(), 0, 0.0
    while share < 1.0:
        if share >= 0.85:
            learner.keep_patches(0.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, share, recipe)
        logits_BB, scores_BA = learner(images_BCHW, ids_BL)
        loss = contrastive_loss(logits_BB, *masked_targets(actions_B, generic_B))
        total = loss + recipe.action_weight * F.cross_entropy(scores_BA, actions_B)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.get_parameter("logit_scale").clamp_(0.0, math.log(50.0))
        seconds = time.perf_counter() - start
        step += 1
        share = max(step / recipe.steps, seconds / (60 * recipe.minutes) if recipe.minutes else 0.0)
        on_step(step, loss.item(), seconds)
        images_BCHW, ids_BL, actions_B, generic_B = batches.next()
    learner.keep_patches(0.0)
    learner.eval()
    return step
