"""Shared fixtures: a cache of its own for each test, a tiny random CLIP, and a folder of easily told images.

This module and `machine` import no torch at the top: the process of pytest-xdist that hands out tests needs none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from forked import Server

pytest_plugins = ("machine",)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's cache, or another test's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CLIP_HAR_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module", autouse=True)
def plots_without_pixels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are built everywhere (two of each kind in a test), but rendered in tests/report only."""
    if "report" in request.path.parts:
        yield
        return
    from spared import spare_pixels

    with pytest.MonkeyPatch.context() as patch:
        spare_pixels(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def spared_work() -> Iterator[None]:
    from spared import read_vocabulary_once, spare_disk, spare_workers

    with pytest.MonkeyPatch.context() as patch:
        spare_disk(patch)
        spare_workers(patch)
        read_vocabulary_once(patch)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a ViT CLIP of 0.1 M parameters (and a vocabulary), with seeded random weights."""
    from samples import MODEL_CONFIG, write_model

    folder = tmp_path_factory.mktemp("tiny-clip")
    return write_model(folder, MODEL_CONFIG, seed=0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that is only read."""
    from samples import write_dataset

    return write_dataset(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Starts commands as processes that need not import everything first."""
    from forked import Server

    with Server() as started:
        yield started
