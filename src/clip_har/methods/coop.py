"""CoOp: the words before the class name are learned as vectors, through the frozen text encoder; images are cached.

The tower's own forward pass is used, of any kind: a hook puts the vectors in the place of a placeholder word's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import Defaults, OptimizerSettings, Settings, TrainConfig
from clip_har.methods.base import Classifier, ClassifierContext, GradientMethod, Task, decayed_groups
from clip_har.prompts import class_phrase
from clip_har.text_tower import encode_tokens, token_embedding, trimmed_tokens

# Shapes: B images, C classes, D embedding width, L tokens, M context vectors, W width of a token's vector.

CONTEXT_VECTORS = 16
"""The paper's M; fewer where the text encoder's context is too short for them and the longest class name."""
PLACEHOLDER = "x"
INITIAL_WORDS = "a photo of a person"
"""What the last context vectors start as; those before are drawn with the same spread."""
RELATIVE_LR = 0.2
"""Learning rate over the standard deviation of the text encoder's word vectors."""


class PromptLearner(Classifier):
    """softmax(logit scale * cos(x, g([v_1] ... [v_M] [class name] .))) (Zhou et al. 2022, section 3.2).

    The context v is shared by all classes and stands before the class name: M * W trainable parameters, 8,192 on
    ViT-B/32 (W = 512).

    Args:
        frame: classes and logit scale; its backbone's text encoder is held frozen, outside parameters and state dict.
        generator: draws the context vectors that no word is there for.
        vectors: how many context vectors at most.
    """

    small = False

    def __init__(self, frame: ClassifierContext, generator: torch.Generator, vectors: int = CONTEXT_VECTORS) -> None:
        super().__init__()
        backbone = frame.load_backbone()
        model = backbone.model.requires_grad_(False).eval()
        model.visual = nn.Identity()  # the image embeddings are cached
        self._held = (model,)  # a tuple hides the module from parameters() and state_dict()
        self.tokens_CL: Tensor
        tokens_CL, self.start, count = context_tokens(backbone.tokenizer, frame.wordings, wanted=vectors)
        self.register_buffer("tokens_CL", trimmed_tokens(model, tokens_CL).to(backbone.device), persistent=False)
        self.logit_scale = frame.logit_scale
        words_MW = word_vectors(model, backbone.tokenizer, INITIAL_WORDS, self.start, backbone.device)[-count:]
        spread = float(words_MW.std())
        random_MW = torch.randn(count - len(words_MW), words_MW.shape[1], generator=generator) * spread
        self.context_MW = nn.Parameter(torch.cat([random_MW.to(words_MW.device), words_MW]))
        self._evaluated_CD: Tensor | None = None

    def class_embeddings(self) -> Tensor:
        """Unit-length embedding per class [C, D], with gradients to the context."""
        columns = slice(self.start, self.start + len(self.context_MW))

        def replace(_module: nn.Module, _inputs: Any, vectors_CLW: Tensor) -> Tensor:
            context_CMW = self.context_MW.to(vectors_CLW.dtype).expand(len(vectors_CLW), -1, -1)
            return torch.cat([vectors_CLW[:, : columns.start], context_CMW, vectors_CLW[:, columns.stop :]], dim=1)

        (model,) = self._held
        hook = token_embedding(model).register_forward_hook(replace)
        with hook:
            return F.normalize(encode_tokens(model, self.tokens_CL).float(), dim=-1)

    def prepare(self) -> None:
        """Embed the prompts once for all the batches of an evaluation."""
        self._evaluated_CD = self.class_embeddings()

    def train(self, mode: bool = True) -> PromptLearner:
        self._evaluated_CD = None
        return super().train(mode)

    def forward(self, embedding_BD: Tensor) -> Tensor:
        class_CD = self.class_embeddings() if self._evaluated_CD is None else self._evaluated_CD
        return self.logit_scale * embedding_BD @ class_CD.T

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PromptLearner:
        self._held[0]._apply(fn)  # the tower follows .to(device)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def context_tokens(tokenizer: Any, phrases: Sequence[str], *, wanted: int = CONTEXT_VECTORS) -> tuple[Tensor, int, int]:
    """Tokens of "x x ... x CLASS NAME." with the same number of placeholders x for all classes.

    One x is tokenised and its column repeated, so that it is one token each with any tokenizer.

    Returns:
        Tokens int64 [C, L], the first placeholder's column, and how many there are.
    """
    once_CL = tokenizer([f"{PLACEHOLDER} {class_phrase(phrase)}." for phrase in phrases])
    probe_2L = tokenizer([PLACEHOLDER, "a"])
    start = int((probe_2L[0] != probe_2L[1]).int().argmax())  # 1 after a start token, else 0
    padding = probe_2L[0, -1]
    used = int((once_CL != padding).any(dim=0).nonzero().max()) + 1
    # One column is left, since some tokenizers pad with the end token, which must stay.
    count = max(1, min(wanted, once_CL.shape[1] - used))
    repeated_CM = once_CL[:, start : start + 1].expand(-1, count)
    tokens_CL = torch.cat([once_CL[:, :start], repeated_CM, once_CL[:, start + 1 :]], dim=1)
    return tokens_CL[:, : once_CL.shape[1]], start, count


def word_vectors(model: nn.Module, tokenizer: Any, words: str, start: int, device: torch.device) -> Tensor:
    """The vectors of some words' tokens, without those that start, end or fill a sentence: [tokens, W]."""
    words_L, single_L = tokenizer([words, PLACEHOLDER])
    ending = int((single_L != single_L[-1]).sum()) - start - 1
    stop = int((words_L != single_L[-1]).nonzero().max()) + 1 - ending
    vectors_LW: Tensor = token_embedding(model)(words_L[None, start:stop].to(device))[0]
    return vectors_LW


class CoOp(GradientMethod):
    """Zhou et al. 2022 with a unified context and the class name at its end."""

    name = "coop"
    cheaper_rival = "linear-probe"
    source = "arXiv 2109.01134"
    fits_any_name = False  # where the text tower is too short for the learned context and the name

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        """Steps as long as the tower's word vectors; large batches, since the text encoder's cost is per step."""
        del given
        vectors_VW = cast(Tensor, token_embedding(backbone.model).weight)
        lr = float(f"{RELATIVE_LR * float(vectors_VW.float().std()):.1g}")
        return Defaults(optimizer=OptimizerSettings(lr=lr, batch_size=128))

    @classmethod
    def works_inside(cls, config: TrainConfig | Settings) -> bool:
        del config
        return True

    def build(self, task: Task) -> PromptLearner:
        return PromptLearner(task, torch.Generator().manual_seed(task.seed))

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> PromptLearner:
        classifier = PromptLearner(frame, torch.Generator(), vectors=len(tensors["context_MW"]))
        classifier.load_state_dict(dict(tensors))
        return classifier

    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        optimizer = self.settings.optimizer
        lr = optimizer.lr * optimizer.text_lr_multiplier
        return decayed_groups(dict(classifier.named_parameters()), lr=lr, weight_decay=optimizer.weight_decay)
