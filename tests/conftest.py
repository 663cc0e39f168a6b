"""Shared fixtures: a cache of its own for each test, a tiny random CLIP, and a folder of easily told images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from open_clip import SimpleTokenizer

from samples import MODEL_CONFIG, write_dataset, write_model

pytest_plugins = ("machine",)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's cache, or another test's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CLIP_HAR_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module", autouse=True)
def plots_without_pixels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are built everywhere, but rendered in tests/report only: that is most of an evaluation's time here."""
    if "report" in request.path.parts:
        yield
        return
    from clip_har.report import comparison_plots, finding_plots, plots
    from clip_har.report.style import Plot

    def built(draw: Callable[[], Any], *, name: str, title: str, description: str, for_page: bool = True) -> Plot:
        draw()
        svg = f'<svg id="{name}"><title>{title}</title></svg>' if for_page else ""
        return Plot(png=b"\x89PNG", svg=svg, width=100, description=description)

    with pytest.MonkeyPatch.context() as patch:
        for module in (comparison_plots, finding_plots, plots):
            patch.setattr(module, "render", built)
        yield


@pytest.fixture(scope="session", autouse=True)
def vocabulary_read_once() -> Iterator[None]:
    """Every model opened has a tokenizer of its own, whose vocabulary of 49408 words takes longer than all the rest."""
    read = SimpleTokenizer.__init__

    @functools.cache
    def first(*arguments: object, **options: object) -> SimpleTokenizer:
        tokenizer = object.__new__(SimpleTokenizer)
        read(tokenizer, *arguments, **options)
        return tokenizer

    def shared(self: SimpleTokenizer, *arguments: Any, **options: Any) -> None:
        vars(self).update(vars(first(*arguments, **options)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimpleTokenizer, "__init__", shared)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a ViT CLIP of 0.1 M parameters (and a vocabulary), with seeded random weights."""
    folder = tmp_path_factory.mktemp("tiny-clip")
    return write_model(folder, MODEL_CONFIG, seed=0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that is only read."""
    return write_dataset(tmp_path_factory.mktemp("photos"))
