"""Several backbones as one, for the methods on cached features: --model A+B.

    embedding x = [sqrt(w_1) x_1, sqrt(w_2) x_2, ...],   w_k = s_k / sum(s),   logit scale s = mean(s_k)

of unit-length image or text embeddings x_k and logit scales s_k. Then s cos(x, t) is the mean of the backbones'
zero-shot logits: a product of experts (Hinton 2002, doi 10.1162/089976602760128018). The features before the projection
are scaled to unit length, so that all weigh alike, and concatenated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.backbone import Backbone, BackboneInfo, ImageFeatures
from clip_har.errors import ModelError
from clip_har.images import FusedPreprocessing
from clip_har.pretrained import at_size, split_image_size

SEPARATOR = "+"


class FusedBackbone(Backbone):
    """Two backbones or more that encode every image and sentence, frozen.

    Args:
        parts: backbones on one device.
    """

    def __init__(self, parts: Sequence[Backbone]) -> None:
        self.parts = tuple(parts)
        self.precision = SEPARATOR.join(dict.fromkeys(part.precision for part in parts))
        self.notes = tuple(note for part in parts for note in part.notes)
        self.device = parts[0].device
        scales = torch.tensor([part.info.logit_scale for part in parts])
        self._weights = (scales / scales.sum()).sqrt().tolist()
        self.info = _described(parts, float(scales.mean()))

    @property
    def model(self) -> NoReturn:  # type: ignore[override]
        """Not there: whatever works inside an encoder needs a single one.

        Raises:
            ModelError: always.
        """
        raise _needs_one(self.info.name)

    def fuse_images(self, parts: Sequence[ImageFeatures]) -> ImageFeatures:
        """The features of B images from those that each backbone gave."""
        hidden = [part.embedding_BD if part.hidden_BH is None else part.hidden_BH for part in parts]
        return ImageFeatures(
            embedding_BD=self._fused([part.embedding_BD for part in parts]),
            hidden_BH=torch.cat([F.normalize(own.float(), dim=-1) for own in hidden], dim=-1),
        )

    def encode_images(self, images_BCHW: Tensor) -> ImageFeatures:
        """Embed preprocessed images, float32 [B, P] as `FusedPreprocessing` makes them."""
        preprocessing = cast(FusedPreprocessing, self.info.preprocessing)
        each = zip(self.parts, preprocessing.split(images_BCHW), strict=True)
        return self.fuse_images([part.encode_images(own_BCHW) for part, own_BCHW in each])

    def encode_text(self, sentences: Sequence[str], *, batch_size: int = 256) -> Tensor:
        return self._fused([part.encode_text(sentences, batch_size=batch_size) for part in self.parts])

    def _fused(self, embeddings: Sequence[Tensor]) -> Tensor:
        return torch.cat([weight * own for weight, own in zip(self._weights, embeddings, strict=True)], dim=-1)


def part_names(name: str) -> list[str]:
    """The models that a name combines; the name alone where it means one.

    A plus sign in the path of a file or folder that exists separates nothing.
    """
    pieces, names = name.split(SEPARATOR), []
    while pieces:
        joined = (SEPARATOR.join(pieces[:count]) for count in range(len(pieces), 0, -1))
        names.append(next((part for part in joined if _place(part).exists()), pieces[0]))
        del pieces[: names[-1].count(SEPARATOR) + 1]
    return [part.strip() for part in names] if all(names) else [name]


def at_sizes_of(model: str, trained: str) -> str:
    """The name of the model that a run was trained on, wherever it is now, with the image sizes of the run.

    Args:
        model: as the user names it; sizes that it states hold.
        trained: as the run's card names it.
    """
    names, own = part_names(model), part_names(trained)
    if len(names) != len(own):
        return model
    return SEPARATOR.join(_at_size_of(name, of) for name, of in zip(names, own, strict=True))


def _at_size_of(name: str, trained: str) -> str:
    model, side = split_image_size(name)
    return at_size(model, split_image_size(trained)[1] if side is None else side)


def _place(name: str) -> Path:
    """The file or folder that a name may mean."""
    name, _ = split_image_size(name)
    kind, _, rest = name.partition(":")
    return Path(rest if kind == "local-dir" or (rest and Path(rest).is_file()) else name)


def require_single_model(name: str | None) -> None:
    """Refuse several combined models before anything slow, for what works inside an encoder.

    Raises:
        ModelError: the name combines models.
    """
    if name is not None and len(part_names(name)) > 1:
        raise _needs_one(name)


def _needs_one(name: str) -> ModelError:
    return ModelError(
        f"--model {name} combines several models, which only methods on cached features can use",
        remedy="Pass a single --model, or use a method such as ridge, gda, linear-probe, proker or lora.",
    )


def _described(parts: Sequence[Backbone], logit_scale: float) -> BackboneInfo:
    infos = [part.info for part in parts]
    return BackboneInfo(
        name=SEPARATOR.join(info.name for info in infos),
        weights_hash=hashlib.sha256(SEPARATOR.join(info.weights_hash for info in infos).encode()).hexdigest(),
        activation=SEPARATOR.join(info.activation for info in infos),
        embed_dim=sum(info.embed_dim for info in infos),
        parameters=sum(info.parameters for info in infos),
        preprocessing=FusedPreprocessing.of([info.preprocessing for info in infos]),
        logit_scale=logit_scale,
        projection="fused",
        files_sha256=SEPARATOR.join(info.files_sha256 for info in infos) if any(i.files_sha256 for i in infos) else "",
    )
