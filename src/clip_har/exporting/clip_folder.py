"""A CLIPModel or SiglipModel of transformers with the encoders that a run has adapted, and the class embeddings.

Its tensors are moved back by the steps that pretrained/hugging_face.py and siglip.py take to load such a folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run
from clip_har.errors import ConfigError, ModelError, first_line
from clip_har.exporting.certificate import Answers
from clip_har.exporting.clip_tokenizer import write_tokenizer
from clip_har.exporting.description import public_name
from clip_har.exporting.open_clip_folder import CLASSES, adapted, require_same_encoders, write_classes
from clip_har.images import Preprocessing
from clip_har.pretrained import siglip
from clip_har.pretrained.architecture import architecture_of
from clip_har.pretrained.conversion import Reversal, activation_of
from clip_har.pretrained.hugging_face import ACTIVATIONS, move_clip_tensors

_RESAMPLING = {"bilinear": 2}
"""Pillow's numbers; everything else is bicubic, 3."""


def write(run: Run, backbone: Backbone, model: str | None, temperature: float, folder: Path) -> Answers:
    """Write the folder; what plain transformers answers with it.

    Raises:
        ConfigError: the run or its backbone has no such form.
    """
    from transformers import AutoTokenizer, CLIPModel, SiglipModel

    classifier, state = adapted(run, backbone, model)
    architecture = architecture_of(backbone.info.name, backbone.info.files_sha256)
    config = _config(architecture.model_config, backbone)
    kind, move = (SiglipModel, siglip.move_tensors) if config.model_type == "siglip" else (CLIPModel, move_clip_tensors)
    with torch.device("meta"):
        empty = kind(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    renaming = Reversal("the model", state, shapes)
    try:
        move(renaming, config)
        tensors = {name: tensor.float().contiguous().clone() for name, tensor in renaming.finish().items()}
        empty.load_state_dict(tensors, assign=True)
    except (ModelError, RuntimeError) as error:
        raise _cannot(backbone, first_line(error)) from error
    empty.save_pretrained(folder)
    write_tokenizer(architecture, backbone, config, folder)
    _write_processor(run.preprocessing, folder)
    write_classes(run, classifier, folder)
    answers, tokenizer = ClipAnswers(folder, temperature), AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def embed_text(sentences: list[str]) -> Tensor:
        tokens = tokenizer(sentences, padding="max_length", truncation=True, return_tensors="pt")
        features = answers.model.get_text_features(**tokens)
        return F.normalize(getattr(features, "pooler_output", features), dim=-1)

    require_same_encoders(run, classifier, backbone, answers.embed, embed_text, "transformers")
    return answers


class ClipAnswers:
    """An exported folder as plain transformers loads it: images [B, 3, H, W] -> calibrated probabilities [B, C]."""

    def __init__(self, folder: Path, temperature: float) -> None:
        from transformers import AutoModel

        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tensors = load_file(folder / CLASSES)
        self._class_CD, self._scale = tensors["class_weights_CD"], float(tensors["logit_scale"])
        self._temperature = temperature

    @torch.inference_mode()
    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Unit-length embeddings [B, D]."""
        features = self.model.get_image_features(pixel_values=images_BCHW)
        return F.normalize(getattr(features, "pooler_output", features), dim=-1)  # a tensor in transformers 4

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self._scale * self.embed(images_BCHW) @ self._class_CD.T
        return (logits_BC / self._temperature).softmax(dim=-1)


def _config(model_config: dict[str, Any], backbone: Backbone) -> Any:
    """The configuration of the transformers model that has these sizes, whether or not it can hold the tensors."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg
    from transformers import CLIPConfig, SiglipConfig

    image, text = CLIPVisionCfg(**model_config["vision_cfg"]), CLIPTextCfg(**model_config["text_cfg"])
    own: Any = backbone.model
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    acts = [
        names.get(activation_of(part) or "") for part in (own.visual, getattr(own, "text", None) or own.transformer)
    ]
    if text.hf_model_name or None in acts or not (isinstance(image.image_size, int) and isinstance(image.layers, int)):
        raise _cannot(backbone, "its encoders are not those of CLIP or SigLIP")
    text_config = {
        "hidden_size": text.width,
        "intermediate_size": int(text.width * text.mlp_ratio),
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "max_position_embeddings": text.context_length,
        "vocab_size": text.vocab_size,
        "layer_norm_eps": (text.norm_kwargs or {}).get("eps", 1e-5),
        "hidden_act": acts[1],
        "bos_token_id": text.vocab_size - 2,
        "eos_token_id": text.eos_id if text.pool_type == "eos" else text.vocab_size - 1,
        "pad_token_id": text.vocab_size - 1,
    }
    if image.timm_model_name:
        vision = siglip.vision_config(image.timm_model_name)
        if vision is None:
            raise _cannot(backbone, f"its image encoder is timm's {image.timm_model_name}")
        text_config["projection_size"] = model_config["embed_dim"]
        vision |= {"image_size": image.image_size, "hidden_act": acts[0]}
        return SiglipConfig(text_config=text_config, vision_config=vision)
    vision = {
        "hidden_size": image.width,
        "intermediate_size": int(image.width * image.mlp_ratio),
        "num_hidden_layers": image.layers,
        "num_attention_heads": image.width // image.head_width,
        "image_size": image.image_size,
        "patch_size": image.patch_size,
        "layer_norm_eps": (image.norm_kwargs or {}).get("eps", 1e-5),
        "hidden_act": acts[0],
    }
    return CLIPConfig(text_config=text_config, vision_config=vision, projection_dim=model_config["embed_dim"])


def _write_processor(preprocessing: Preprocessing, folder: Path) -> None:
    from transformers import CLIPImageProcessor

    height, width = preprocessing.image_size
    frame = {"height": height, "width": width}
    squash = preprocessing.resize_mode == "squash"
    CLIPImageProcessor(
        size=frame if squash else {"shortest_edge": height},
        crop_size=frame,
        do_center_crop=not squash,
        resample=_RESAMPLING.get(preprocessing.interpolation, 3),
        image_mean=list(preprocessing.mean),
        image_std=list(preprocessing.std),
    ).save_pretrained(folder)


def _cannot(backbone: Backbone, why: str) -> ConfigError:
    return ConfigError(
        f"{public_name(backbone.info.name)} cannot be written as a CLIPModel or SiglipModel of transformers: {why}",
        remedy="Use --format openclip or onnx.",
    )
