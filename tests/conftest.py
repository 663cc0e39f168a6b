"""Shared fixtures: a cache of its own for each test, a tiny random CLIP, and a folder of easily told images."""

from __future__ import annotations

from pathlib import Path

import pytest

from samples import MODEL_CONFIG, write_dataset, write_model

pytest_plugins = ("machine",)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's cache, or another test's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CLIP_HAR_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a ViT CLIP of 0.1 M parameters (and a vocabulary), with seeded random weights."""
    folder = tmp_path_factory.mktemp("tiny-clip")
    return write_model(folder, MODEL_CONFIG, seed=0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that is only read."""
    return write_dataset(tmp_path_factory.mktemp("photos"))
