"""Which model of transformers a run becomes: an image classifier, a CLIPModel or SiglipModel, or none.

The first is written by timm_folder.py, the second by clip_folder.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run
from clip_har.errors import ConfigError
from clip_har.exporting import clip_folder, timm_folder
from clip_har.exporting.certificate import Answers
from clip_har.exporting.image_model import require_exportable
from clip_har.methods import Method
from clip_har.methods.linear_heads import TRANSFORMS, LinearHeadMethod
from clip_har.methods.lp_ft import LpFt
from clip_har.methods.mixed_weights import MixedWeights

_UNIT = "which classifies features of unit length, and no image classifier of transformers scales its features"


def require_form(run: Run) -> None:
    """Refuse runs that have no such form, before anything slow.

    Raises:
        ConfigError: naming the reason.
    """
    require_exportable(run)
    if run.preprocessing.resize_mode == "longest":
        raise _refusal(run, "whose model pads images, which transformers does in another colour")
    if isinstance(run.method, LinearHeadMethod):
        tensors = run.tensors()
        scaled = TRANSFORMS[int(tensors.get("transform", 0))] != "none" or float(tensors.get("zero_shot_weight", 0))
        if scaled:
            raise _refusal(run, _UNIT)
    elif not _is_linear(run.method) and not _has_model(run.method):
        raise _refusal(run, "whose classifier no model of transformers contains")


def write(run: Run, backbone: Backbone, model: str | None, temperature: float, folder: Path) -> Answers:
    """Write the folder; what plain transformers answers with it.

    Raises:
        ConfigError: the run or its backbone has no such form.
    """
    with _quietly():
        if _has_model(run.method):
            return clip_folder.write(run, backbone, model, temperature, folder)
        found = timm_folder.linear_model(run.classifier(model=model), backbone)
        if found is None:
            raise _refusal(run, _UNIT)
        return timm_folder.write(run, found, backbone, temperature, folder)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """transformers draws a progress bar for every file, and warns of its own defaults."""
    from transformers.utils import logging

    drawn, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if drawn:
            logging.enable_progress_bar()


def _is_linear(method: Method) -> bool:
    return isinstance(_origin(method), LpFt)


def _has_model(method: Method) -> bool:
    """Whether a run of a method has both encoders."""
    return type(_origin(method)).model_state is not Method.model_state or not method.has_weights


def _origin(method: Method) -> Method:
    """The method whose weights a run has, for methods that compute weights from those of other runs."""
    while isinstance(method, MixedWeights):
        method = method.origin()
    return method


def _refusal(run: Run, why: str) -> ConfigError:
    return ConfigError(f"{run.folder} is a run of {run.card.method}, {why}", remedy="Use --format onnx.")
