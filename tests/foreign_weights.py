"""Tiny models of other libraries with random weights, saved in those libraries' own formats. Nothing is downloaded."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from clip_har.backbone import Backbone

SIZE, PATCH, CONTEXT = 32, 8, 16
SENTENCES = ["a person running", "someone drinking", "a", "Cycling!"]
SIGLIP_TOWER = "vit_tiny_patch8_siglip_32"


def randomise(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Weights large enough that a wrong activation, order or bias shows in the fifth digit."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.ndim > 1 else 0.2
            noise = torch.randn(parameter.shape, generator=generator) * spread
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + noise if is_gain else noise)
        for name, parameter in model.named_parameters():
            if name.endswith("logit_scale"):
                parameter.fill_(3.0)
            if name.endswith("logit_bias"):
                parameter.fill_(-7.5)
    return model.eval()


def images_BCHW() -> Tensor:
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


def assert_embeddings(loaded: Backbone, image: Tensor, text: Tensor, tokens: Tensor) -> None:
    """Both encoders' unit embeddings against the source library's, for `images_BCHW` and these tokens."""
    with torch.inference_mode():
        got_image = F.normalize(loaded.model.encode_image(images_BCHW()), dim=-1)  # type: ignore[operator]
        got_text = F.normalize(loaded.model.encode_text(tokens), dim=-1)  # type: ignore[operator]
    torch.testing.assert_close(got_image, F.normalize(image, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(got_text, F.normalize(text, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded.encode_images(images_BCHW()).embedding_BD, got_image, atol=1e-5, rtol=0)


# --- transformers ----------------------------------------------------------------------------------------


def clip_model(*, image: str = "quick_gelu", text: str = "quick_gelu", **text_values: Any) -> CLIPModel:
    """A CLIPModel; the vocabulary is that of `clip_tokenizer`, whose end token is the last."""
    values = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 2}
    vocabulary = len(clip_vocabulary())
    config = CLIPConfig(
        text_config={
            **values,
            "vocab_size": vocabulary,
            "max_position_embeddings": CONTEXT,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "hidden_act": text,
            **text_values,
        },
        vision_config={
            **values,
            "hidden_size": 48,
            "num_attention_heads": 4,
            "image_size": SIZE,
            "patch_size": PATCH,
            "hidden_act": image,
        },
        projection_dim=24,
    )
    return randomise(CLIPModel(config))


def clip_vocabulary() -> dict[str, int]:
    letters = list(string.ascii_lowercase + "!")
    words = [*letters, *(f"{letter}</w>" for letter in letters), "pe", "<|startoftext|>", "<|endoftext|>"]
    return {word: index for index, word in enumerate(words)}


def write_clip(folder: Path, model: CLIPModel, **saving: Any) -> str:
    """Save a CLIPModel with its tokenizer and image processor; returns the name that loads it."""
    model.save_pretrained(folder, **saving)
    CLIPTokenizer(vocab=clip_vocabulary(), merges=[("p", "e")], model_max_length=CONTEXT).save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square).save_pretrained(folder)
    return f"local-dir:{folder}"


def register_siglip_tower(patch: pytest.MonkeyPatch) -> None:
    """Give timm a SigLIP image encoder small enough for tests, and open_clip's check that it is one of timm's."""

    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        known = {key: options[key] for key in ("num_classes", "global_pool") if key in options}
        return timm.models.vision_transformer.VisionTransformer(
            img_size=SIZE, patch_size=PATCH, embed_dim=48, depth=2, num_heads=4, class_token=False, **known
        )

    registry = timm.models._registry
    patch.setitem(registry._model_entrypoints, SIGLIP_TOWER, build)
    patch.setitem(registry._model_to_module, SIGLIP_TOWER, "vision_transformer")
    patch.setattr(
        registry, "_module_to_models", {"vision_transformer": {SIGLIP_TOWER}, **dict(registry._module_to_models)}
    )


def siglip_model(**vision: Any) -> SiglipModel:
    values = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = SiglipConfig(
        text_config={
            **values,
            "intermediate_size": 100,
            "vocab_size": 40,
            "max_position_embeddings": CONTEXT,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        vision_config={**values, "image_size": SIZE, "patch_size": PATCH, **vision},
    )
    return randomise(SiglipModel(config))


def siglip_tokenizer() -> PreTrainedTokenizerFast:
    """Letters, with an end token behind the sentence and padding with the same, as SigLIP's."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{c: i for i, c in enumerate(string.ascii_lowercase + "!", 3)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=CONTEXT
    )


def write_siglip(folder: Path, model: SiglipModel) -> str:
    model.save_pretrained(folder)
    siglip_tokenizer().save_pretrained(folder)
    SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return f"local-dir:{folder}"


def transformers_embeddings(model: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        output = model(pixel_values=images_BCHW(), input_ids=tokens)
    return output.image_embeds, output.text_embeds


# --- SLIP ------------------------------------------------------------------------------------------------


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Slip(nn.Module):
    """What SLIP's models.py describes: a timm ViT without classes, and OpenAI's text encoder."""

    def __init__(self, *, width: int = 128, heads: int = 2, vocabulary: int = 50) -> None:
        super().__init__()
        self.visual = timm.models.vision_transformer.VisionTransformer(
            img_size=SIZE, patch_size=PATCH, embed_dim=width, depth=2, num_heads=heads, num_classes=0
        )
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(Block(64, 1), Block(64, 1))
        self.token_embedding = nn.Embedding(vocabulary, 64)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT, 64))
        self.ln_final = nn.LayerNorm(64)
        self.image_projection = nn.Parameter(torch.empty(width, 24))
        self.text_projection = nn.Parameter(torch.empty(64, 24))
        self.logit_scale = nn.Parameter(torch.empty([]))
        self.image_mlp = nn.Sequential()
        self.image_mlp.add_module("layer1", nn.Linear(width, 8))
        self.image_mlp.add_module("bn1", nn.BatchNorm1d(8))

    def encode_image(self, images: Tensor) -> Tensor:
        return self.visual(images) @ self.image_projection  # type: ignore[no-any-return]

    def encode_text(self, tokens: Tensor) -> Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding
        x = self.ln_final(self.transformer.resblocks(x))  # type: ignore[operator]
        return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ self.text_projection  # type: ignore[no-any-return]


def distributed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as DistributedDataParallel saves it."""
    return {f"module.{name}": tensor for name, tensor in state.items()}
