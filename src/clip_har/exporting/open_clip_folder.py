"""An ordinary open_clip folder of the model that a run has adapted, and the class embeddings to classify with.

Merging an adapter into the weights is for the run's method (`Method.model_state`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run
from clip_har.errors import ConfigError
from clip_har.exporting.certificate import Answers
from clip_har.exporting.description import public_name
from clip_har.images import Preprocessing
from clip_har.light_imports import complete, import_open_clip
from clip_har.methods import Classifier, Method
from clip_har.methods.towers import Towers
from clip_har.pretrained import split_image_size
from clip_har.pretrained.architecture import Architecture, architecture_of
from clip_har.prompts import filled

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
CLASSES = "class_weights.safetensors"
"""class_weights_CD, unit-length, and the factor logit_scale: logits = logit_scale * embedding @ class_weights_CD.T."""
TOLERANCE = 1e-4
"""Largest difference of a unit-length embedding, in any component."""


def require_model(run: Run) -> None:
    """Refuse runs that have not changed the model, or not to one that ends in embeddings.

    Raises:
        ConfigError: naming the method.
    """
    if type(run.method).model_state is Method.model_state and run.method.has_weights:
        raise _no_model(run)


def write(run: Run, backbone: Backbone, model: str | None, temperature: float, folder: Path) -> Answers:
    """Write the folder; what plain open_clip answers with it.

    Raises:
        ConfigError: the run or its backbone has no such form.
    """
    classifier, state = adapted(run, backbone, model)
    architecture = architecture_of(backbone.info.name, backbone.info.files_sha256)
    content = _config(architecture, backbone, run.preprocessing)
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _write_tokenizer(architecture, backbone, folder)
    save_file({key: value.contiguous().clone() for key, value in state.items()}, folder / WEIGHTS, {"format": "pt"})
    write_classes(run, classifier, folder)
    answers = OpenClipAnswers(folder, temperature)

    def embed_text(sentences: list[str]) -> Tensor:
        return F.normalize(cast(Any, answers.model).encode_text(backbone.tokenizer(sentences)).float(), dim=-1)

    require_same_encoders(run, classifier, backbone, answers.embed, embed_text, "open_clip")
    return answers


def adapted(run: Run, backbone: Backbone, model: str | None) -> tuple[Classifier, dict[str, Tensor]]:
    """A run's classifier, and the state dict of the whole model as fine-tuned.

    Raises:
        ConfigError: the run has no such model.
    """
    classifier = run.classifier(model=model)
    state = run.method.model_state(classifier) if run.method.has_weights else backbone.model.state_dict()
    if state is None:
        raise _no_model(run)
    return classifier, state


def write_classes(run: Run, classifier: Classifier, folder: Path) -> None:
    """Write the class embeddings and their factor."""
    class_CD, scale = run.prompts(), torch.tensor(run.card.backbone.logit_scale)
    if isinstance(classifier, Towers):
        with torch.no_grad():
            class_CD, scale = classifier.class_embeddings().float(), classifier.scale().float()
    tensors = {"class_weights_CD": class_CD.contiguous().clone(), "logit_scale": scale.reshape(1).clone()}
    save_file(tensors, folder / CLASSES, {"classes": json.dumps(run.classes)})


@torch.no_grad()
def require_same_encoders(
    run: Run,
    classifier: Classifier,
    backbone: Backbone,
    embed_image: Callable[[Tensor], Tensor],
    embed_text: Callable[[list[str]], Tensor],
    library: str,
) -> None:
    """Refuse what a library's configuration cannot express, such as two activations: labels may agree all the same.

    Args:
        embed_image: the written model's unit-length embeddings of images [B, 3, H, W].
        embed_text: and of sentences.
        library: whose configuration it is.

    Raises:
        ConfigError: the written model embeds an image or a sentence differently.
    """
    image_1CHW = torch.randn(1, 3, *run.preprocessing.image_size, generator=torch.Generator().manual_seed(0))
    (sentence, *_) = filled(run.phrasing[run.classes[0]], run.card.templates)
    if isinstance(classifier, Towers):
        first = torch.zeros(1, dtype=torch.int64)
        own = (classifier.encode_images(image_1CHW), classifier.encode_captions(first, first))
    else:
        own = (backbone.encode_images(image_1CHW).embedding_BD, backbone.encode_text([sentence]))
    pairs = zip(("an image", "a text"), own, (embed_image(image_1CHW), embed_text([sentence])), strict=True)
    for kind, own_1D, written_1D in pairs:
        if not torch.allclose(own_1D, written_1D, atol=TOLERANCE):
            raise ConfigError(
                f"{public_name(backbone.info.name)} has {kind} encoder that {library}'s configuration cannot express "
                f"(activations: {backbone.info.activation})",
                remedy="Use --format onnx.",
            )


class OpenClipAnswers:
    """An exported folder as plain open_clip loads it: images [B, 3, H, W] -> calibrated probabilities [B, C]."""

    def __init__(self, folder: Path, temperature: float) -> None:
        complete()
        opened = import_open_clip().create_model_and_transforms(f"local-dir:{folder.resolve()}")
        self.model: nn.Module = opened[0].eval()
        tensors = load_file(folder / CLASSES)
        self._class_CD, self._scale = tensors["class_weights_CD"], float(tensors["logit_scale"])
        self._temperature = temperature

    @torch.inference_mode()
    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Unit-length embeddings [B, D]."""
        embedding_BD: Tensor = cast(Any, self.model).encode_image(images_BCHW)
        return F.normalize(embedding_BD.float(), dim=-1)

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self._scale * self.embed(images_BCHW) @ self._class_CD.T
        return (logits_BC / self._temperature).softmax(dim=-1)


def _config(architecture: Architecture, backbone: Backbone, preprocessing: Preprocessing) -> dict[str, Any]:
    config = json.loads(json.dumps(architecture.model_config))
    text = config["text_cfg"]
    if Path(str(text.get("hf_model_name", ""))).is_absolute():
        raise ConfigError(
            f"{backbone.info.name} has a text encoder of transformers in a folder, to which an open_clip folder can "
            "only point by an absolute path",
            remedy="Use --format onnx.",
        )
    trunk = getattr(backbone.model.visual, "trunk", None)
    if split_image_size(backbone.info.name)[1] is not None and hasattr(trunk, "set_input_size"):
        raise ConfigError(
            f"{public_name(backbone.info.name)} has an image encoder of timm, which open_clip builds from a folder "
            "only for its own image size",
            remedy="Use --format onnx.",
        )
    for part, key in (("vision_cfg", "timm_model_pretrained"), ("text_cfg", "hf_model_pretrained")):
        if key.replace("pretrained", "name") in config[part]:
            config[part][key] = False
    if Path(str(text.get("hf_tokenizer_name", ""))).is_absolute():
        text["hf_tokenizer_name"] = "."  # open_clip reads it from the folder
    if backbone.info.activation == "QuickGELU":
        config["quick_gelu"] = True
    kept = {key: value for key, value in preprocessing.to_json().items() if key != "image_size"}
    return {"model_cfg": config, "preprocess_cfg": kept}


def _write_tokenizer(architecture: Architecture, backbone: Backbone, folder: Path) -> None:
    """The tokenizer's files; open_clip's own tokenizer has none."""
    if architecture.folder is not None:
        for name in architecture.tokenizer_files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(architecture.folder / name, folder / name)
    elif "hf_tokenizer_name" in architecture.model_config["text_cfg"]:
        backbone.tokenizer.tokenizer.save_pretrained(folder)


def _no_model(run: Run) -> ConfigError:
    return ConfigError(
        f"{run.folder} is a run of {run.card.method}, which does not fine-tune the model's embeddings, so open_clip "
        "has nothing to load",
        remedy="Use --format onnx.",
    )
