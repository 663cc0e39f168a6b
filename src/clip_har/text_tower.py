"""Sentences through a text encoder without their trailing padding, with gradients.

Most class sentences fill a tenth of the context. Where the tower cannot see the padding, omitting it changes nothing
and saves most of the work.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

# Shapes: C classes, T prompt templates, M sentences, L tokens, D embedding width.


def mean_prompts(captions_CTD: Tensor) -> Tensor:
    """Each class's unit-length prompt embedding [C, D]: the mean over its T sentences, renormalised.

    Radford et al. 2021, arXiv 2103.00020, section 3.1.4: an ensemble in embedding space.
    """
    return F.normalize(captions_CTD.mean(dim=1), dim=-1)


def trimmed_tokens(model: nn.Module, tokens_ML: Tensor) -> Tensor:
    """Tokens without the columns that are padding in every row, if the model's text encoder does not see those."""
    text = getattr(model, "text", None)
    if _is_hugging_face(text):
        padding = text.config.pad_token_id  # type: ignore[union-attr]  # masked in attention and in pooling
    elif _causal_tower(model) is not None:
        padding = getattr(text, "pad_id", 0)
    else:
        return tokens_ML
    used = int((tokens_ML != padding).any(dim=0).nonzero().max()) + 1
    return tokens_ML[:, :used]


def encode_tokens(model: nn.Module, tokens_ML: Tensor) -> Tensor:
    """What `model.encode_text` gives [M, D], also for tokens that `trimmed_tokens` has shortened."""
    tower = _causal_tower(model)
    if tower is None or tokens_ML.shape[1] == len(tower.positional_embedding):
        return model.encode_text(tokens_ML)  # type: ignore[operator, no-any-return]
    from open_clip.transformer import text_global_pool

    length = tokens_ML.shape[1]
    x_MLW = tower.token_embedding(tokens_ML) + tower.positional_embedding[:length]
    x_MLW = tower.ln_final(tower.transformer(x_MLW, attn_mask=tower.attn_mask[:length, :length]))
    eos = getattr(tower, "text_eos_id", None) or getattr(tower, "eos_id", None)
    pooled_MW = text_global_pool(x_MLW, tokens_ML, _pool_type(tower), eos_token_id=eos)
    projection = tower.text_projection
    if projection is None:
        return pooled_MW  # type: ignore[no-any-return]
    projected: Tensor = projection(pooled_MW) if isinstance(projection, nn.Module) else pooled_MW @ projection
    return projected


def token_embedding(model: nn.Module) -> nn.Module:
    """The module that turns tokens into vectors, of any kind of text encoder."""
    text: Any = getattr(model, "text", None)
    if _is_hugging_face(text):
        return text.transformer.get_input_embeddings()  # type: ignore[no-any-return]
    holder: Any = model if text is None else text
    return holder.token_embedding  # type: ignore[no-any-return]


def _is_hugging_face(text: Any) -> bool:
    return text is not None and hasattr(text, "transformer") and hasattr(text, "pooler")


def _pool_type(tower: Any) -> str | None:
    return getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", None)


def _causal_tower(model: nn.Module) -> Any:
    """What holds the layers of open_clip's own causal text encoder, or None for any other kind.

    Every token sees only those before it and the end token's output is taken, so what comes after does not matter.
    """
    tower: Any = getattr(model, "text", None) or model
    causal = getattr(tower, "attn_mask", None) is not None and _pool_type(tower) in ("argmax", "eos")
    plain = getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
    return tower if causal and plain and hasattr(tower, "positional_embedding") else None
