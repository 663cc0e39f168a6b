"""The contrastive training of the tiny CLIP on the wide set: both towers together, then the text tower alone.

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
from tokenizers import Tokenizer
from torch import Tensor, nn

from tiny_clip.captions import EXACT, VAGUE, Wording, detailed_caption, generic_caption
from tiny_clip.model import CONTEXT_LENGTH, EMBEDDING, IMAGE_SIZE, PAD
from tiny_clip.rendering import WideSet

OnStep = Callable[[int, float, float], None]
"""Gets the step, its loss and the seconds since the start."""


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
    action_weight: float = 1.0
    """Weight of telling the actions apart with a linear head; it speeds up the start and is thrown away."""
    weight_decay: float = 0.1
    generic_share: float = 0.6
    """Fraction of captions that tell the action only."""
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
    """Endless batches of pictures, given by their numbers, with freshly worded captions."""

    def __init__(self, wide: WideSet, tokenizer: Tokenizer, recipe: Recipe, wording: Wording) -> None:
        self._wide, self._recipe, self._wording = wide, recipe, wording
        self._rng = Random(recipe.seed)
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._images = torch.from_numpy(wide.images)
        names = sorted({facts.action for facts in wide.facts})
        self.action_count = len(names)
        self._actions = torch.tensor([names.index(facts.action) for facts in wide.facts])
        self._tokenizer = tokenizer
        tokenizer.enable_truncation(CONTEXT_LENGTH)
        tokenizer.enable_padding(length=CONTEXT_LENGTH, pad_id=0, pad_token=PAD)
        self._order = torch.empty(0, dtype=torch.long)

    def next(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Numbers of pictures, token ids of captions, numbers of actions, whether captions are generic."""
        size = self._recipe.batch_size
        if len(self._order) < size:
            self._order = torch.randperm(len(self._images), generator=self._generator)
        indices_B, self._order = self._order[:size], self._order[size:]
        generic = [self._rng.random() < self._recipe.generic_share for _ in indices_B]
        captions = [self._caption(index, plain) for index, plain in zip(indices_B.tolist(), generic, strict=True)]
        ids_BL = torch.tensor([encoding.ids for encoding in self._tokenizer.encode_batch(captions)])
        return indices_B, ids_BL, self._actions[indices_B], torch.tensor(generic)

    def _caption(self, index: int, plain: bool) -> str:
        facts = self._wide.facts[index]
        if plain:
            return generic_caption(facts.action, self._rng, self._wording)
        return detailed_caption(facts.action, facts.people, facts.place, self._rng, self._wording)

    def augmented(self, indices_B: Tensor) -> Tensor:
        """Pictures (B x 3 x 72 x 72, in [-1, 1]), cropped and mirrored by chance."""
        parts = []
        for part_BCHW in self._pixels(indices_B).split(16):
            full = part_BCHW.shape[-1]
            side = self._rng.randint(round(full * 0.85), full)
            left, top = self._rng.randint(0, full - side), self._rng.randint(0, full - side)
            part_BCHW = part_BCHW[:, :, top : top + side, left : left + side]
            parts.append(resized(part_BCHW.flip(-1) if self._rng.random() < 0.5 else part_BCHW))
        return torch.cat(parts)

    def _pixels(self, indices_B: Tensor) -> Tensor:
        return self._images[indices_B].permute(0, 3, 1, 2).float() / 127.5 - 1.0

    @torch.no_grad()
    def embeddings(self, model: nn.Module) -> Tensor:
        """The image embeddings of all pictures, uncropped: N x D."""
        visual = model.get_submodule("visual")
        parts = [visual(resized(self._pixels(part))) for part in torch.arange(len(self._images)).split(256)]
        return F.normalize(torch.cat(parts), dim=-1)


def resized(pixels_BCHW: Tensor) -> Tensor:
    """Pictures brought to the model's size."""
    return F.interpolate(pixels_BCHW, size=IMAGE_SIZE, mode="bilinear", antialias=True, align_corners=False)


def _optimizer(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    decayed = [parameter for parameter in parameters if parameter.ndim >= 2]
    plain = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
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
        self.head = nn.Linear(EMBEDDING, actions)

    def forward(self, images_BCHW: Tensor, ids_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Image-caption similarities times the logit scale (B x B), and the scores of the actions (B x A)."""
        image_BD = F.normalize(self.visual(images_BCHW), dim=-1)
        scores_BA = self.head(image_BD * EMBEDDING**0.5)  # components of about unit size
        return self.similarities(image_BD, ids_BL), scores_BA

    def similarities(self, image_BD: Tensor, ids_BL: Tensor) -> Tensor:
        """Image embeddings times the captions' embeddings times the logit scale: B x B."""
        text_BD = F.normalize(self._encode_text(ids_BL), dim=-1)
        return self.model.get_parameter("logit_scale").exp() * image_BD @ text_BD.T

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


def train_jointly(model: nn.Module, wide: WideSet, tokenizer: Tokenizer, recipe: Recipe, on_step: OnStep) -> int:
    """Train both towers in place and return the number of steps."""
    batches = Batches(wide, tokenizer, recipe, EXACT)
    learner = Learner(model, batches.action_count).train()

    def loss_of_next_batch() -> Tensor:
        indices_B, ids_BL, actions_B, generic_B = batches.next()
        logits_BB, scores_BA = learner(batches.augmented(indices_B), ids_BL)
        loss = contrastive_loss(logits_BB, *masked_targets(actions_B, generic_B))
        return loss + recipe.action_weight * F.cross_entropy(scores_BA, actions_B)

    return _minimise(loss_of_next_batch, list(learner.parameters()), model, recipe, on_step)


def train_text_tower(
    model: nn.Module, fresh: nn.Module, wide: WideSet, tokenizer: Tokenizer, recipe: Recipe, on_step: OnStep
) -> int:
    """Replace the text tower by that of `fresh` and train it alone, on vaguer captions; return the number of steps.

    Locked-image tuning (arXiv 2111.07991): the image tower keeps what it sees, the words are learned anew.
    """
    renewed = {name: tensor for name, tensor in fresh.state_dict().items() if _is_text(name)}
    model.load_state_dict(renewed, strict=False)
    batches = Batches(wide, tokenizer, recipe, VAGUE)
    image_ND = batches.embeddings(model.eval())
    learner = Learner(model, batches.action_count)

    def loss_of_next_batch() -> Tensor:
        indices_B, ids_BL, actions_B, generic_B = batches.next()
        logits_BB = learner.similarities(image_ND[indices_B], ids_BL)
        return contrastive_loss(logits_BB, *masked_targets(actions_B, generic_B))

    parameters = [parameter for name, parameter in model.named_parameters() if _is_text(name)]
    return _minimise(loss_of_next_batch, parameters, model, recipe, on_step)


def _is_text(name: str) -> bool:
    return not name.startswith("visual.") and name != "logit_scale"


def _minimise(
    next_loss: Callable[[], Tensor],
    parameters: list[nn.Parameter],
    model: nn.Module,
    recipe: Recipe,
    on_step: OnStep,
) -> int:
    optimizer = _optimizer(parameters, recipe)
    start, step, share = time.perf_counter(), 0, 0.0
    while share < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, share, recipe)
        loss = next_loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.get_parameter("logit_scale").clamp_(0.0, math.log(50.0))
        seconds = time.perf_counter() - start
        step += 1
        share = max(step / recipe.steps, seconds / (60 * recipe.minutes) if recipe.minutes else 0.0)
        on_step(step, loss.item(), seconds)
    model.eval()
    return step
