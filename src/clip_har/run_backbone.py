"""The backbone that a run was trained on, loaded from where its card or the user says."""

from __future__ import annotations

from collections.abc import Sequence

from clip_har.backbone import Backbone, BackboneInfo
from clip_har.checkpoint import Run
from clip_har.config import Precision
from clip_har.errors import RunError
from clip_har.fusion import at_sizes_of
from clip_har.images import FusedPreprocessing, Preprocessing
from clip_har.known_models import load_for_run
from clip_har.protocol import Protocol, known_activation, new_features, require_same
from clip_har.run_card import CARD_NAME, RESTORE, ModelOfRun
from clip_har.tuned_models import load_given


def _is_of(trained: ModelOfRun, loaded: BackboneInfo) -> bool:
    """Whether a loaded model has the weights and the activation that a run was trained on."""
    return (loaded.weights_hash, loaded.activation) == (trained.weights_hash, trained.activation)


def load_run_backbone(
    run: Run,
    *,
    model: str | None,
    device: str,
    precision: Precision,
    local_only: bool = False,
    loaded: Sequence[Backbone] = (),
) -> Backbone:
    """The backbone that a run was trained on, from where the card or `model` says; one of `loaded`, if it is that.

    Raises:
        RunError: other weights are there now, or the card has another image size than the model.
    """
    trained = run.card.backbone
    _ = run.preprocessing  # refused before anything slow if it cannot be used
    same = [each for each in loaded if _is_of(trained, each.info)]
    if same:
        backbone = same[0]
    elif model is not None:
        own = at_sizes_of(model, trained.name)
        backbone = load_given(own, device=device, precision=precision, local_only=local_only)
    else:
        backbone = load_for_run(trained.name, trained.files_sha256, run.folder, device=device, precision=precision)
    here = Protocol(
        model=backbone.info.weights_hash,
        model_name=backbone.info.name,
        activation=known_activation(backbone.info.activation),
        features=new_features(backbone.info.projection),
    )
    require_same(run.folder, run.protocol, here)
    _require_same_size(run, backbone)
    return backbone


def _require_same_size(run: Run, backbone: Backbone) -> None:
    """Refuse a card whose images do not have the size that the model reads, which no training writes."""
    said, read = _sizes(run.preprocessing), _sizes(backbone.info.preprocessing)
    if said != read:
        raise RunError(
            f'"preprocessing" in {run.folder / CARD_NAME} has images of {said} pixels, the model {read}',
            remedy=RESTORE,
        )


def _sizes(preprocessing: Preprocessing) -> str:
    parts = preprocessing.parts if isinstance(preprocessing, FusedPreprocessing) else [preprocessing]
    return ", ".join(f"{part.image_size[1]} x {part.image_size[0]}" for part in parts)
