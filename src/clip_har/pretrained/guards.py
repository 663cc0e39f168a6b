"""What surrounds the loading of a pretrained model: no code, no unpickling, no network, no chatter.

Each guard changes settings of the libraries for the length of a with block and restores them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

from clip_har.light_imports import absent

HUB_SECONDS = 10.0
"""How long the model hub may take to answer before it counts as out of reach."""

_FORCE, _UNFORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextlib.contextmanager
def no_code(*, transformers: bool = True) -> Iterator[None]:
    """Nothing that is loaded meanwhile can run Python code of a repository, or unpickle.

    Args:
        transformers: whether that package is needed; otherwise it cannot be imported meanwhile.
    """
    environment = {key: os.environ.pop(key, None) for key in (_FORCE, _UNFORCE)}
    try:
        os.environ[_FORCE] = "1"
        with _no_code_of_repositories() if transformers else absent("transformers"):
            yield
    finally:
        os.environ.pop(_FORCE, None)
        os.environ.update({key: value for key, value in environment.items() if value is not None})


@contextlib.contextmanager
def _no_code_of_repositories() -> Iterator[None]:
    from transformers import dynamic_module_utils as dynamic

    def refuse(*_arguments: Any, **_keywords: Any) -> NoReturn:
        raise ValueError("the model asks to run Python code that comes with it, which clip-har never does")

    names = ("get_class_in_module", "get_cached_module_file", "get_class_from_dynamic_module")
    before = {name: getattr(dynamic, name) for name in (*names, "TIME_OUT_REMOTE_CODE") if hasattr(dynamic, name)}
    try:
        for name in before:
            setattr(dynamic, name, 0 if name == "TIME_OUT_REMOTE_CODE" else refuse)  # 0: never ask at the terminal
        yield
    finally:
        for name, value in before.items():
            setattr(dynamic, name, value)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Neither the hub's client nor open_clip's own downloads ask the network."""
    from huggingface_hub import constants

    def refuse(*_arguments: Any, **_keywords: Any) -> NoReturn:
        raise OSError("download not allowed")

    before, urlopen = constants.HF_HUB_OFFLINE, urllib.request.urlopen
    constants.HF_HUB_OFFLINE, urllib.request.urlopen = True, refuse
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, urllib.request.urlopen = before, urlopen


@contextlib.contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Without a network the hub's client retries for a minute; ask once, then use only what was downloaded before."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    before = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # requests or httpx, by version; whatever it is, the hub cannot be asked
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """open_clip logs to the root logger and warns on load; what matters of it we say ourselves."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
