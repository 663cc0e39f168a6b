"""The architecture as a test: a module of clip_har imports only modules that come before it in LAYERS.

Imports are read from the source with ast, so those inside functions and those for type checkers count too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import clip_har

LAYERS = (
    "shown_text",
    "wording",
    "errors",
    "failures",
    "files",
    "tensor_files",
    "interrupts",
    "csv_cells",
    "integrity",
    "progress",
    "distributed",
    "locking",
    "memory",
    "config",
    "cluster",
    "prompts",
    "images",
    "dataset",
    "audit",
    "download",
    "light_imports",
    "pretrained",
    "projection",
    "backbone",
    "fusion",
    "encoder_speed",
    "model_listing",
    "known_models",
    "text_tower",
    "feature_index",
    "feature_shards",
    "feature_rows",
    "features",
    "layer_cache",
    "losses",
    "hard_pairs",
    "methods",
    "unread_settings",
    "trainer",
    "tracking",
    "legacy_checkpoint",
    "protocol",
    "run_card",
    "out_of_fold",
    "training_states",
    "checkpoint",
    "run_folders",
    "tuned_models",
    "seen_images",
    "embedding",
    "evaluation",
    "explain",
    "report",
    "photo_page",
    "run_backbone",
    "run_model",
    "video",
    "predict",
    "abstention",
    "serving",
    "exporting",
    "demo",
    "console",
    "experiment",
    "sweeping",
    "commands",
    "cli",
    "__main__",
    "historic",
)
"""Each module, or package with all its modules, may import what is named before it."""

PACKAGE = Path(clip_har.__file__).parent


def modules() -> list[Path]:
    """Return every source file but `clip_har/__init__.py`, which may import anything."""
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def layer_of(name: str) -> str:
    """Return the layer of a dotted module name: "methods" of "clip_har.methods.base"."""
    return name.split(".")[1]


def dotted_name(path: Path) -> str:
    """Return "clip_har.methods.base" of methods/base.py, and "clip_har.methods" of methods/__init__.py."""
    parts = ("clip_har", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source: str, package: str) -> Iterator[str]:
    """Yield the dotted names under clip_har that a source imports anywhere.

    Args:
        source: Python source.
        package: the dotted name of the package it lies in, which relative imports start from.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*start, node.module] if node.module else start)
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("clip_har."))


def violations(source: str, name: str, package: str) -> list[str]:
    """Return one line for each import that LAYERS does not allow, or for a module that it does not name."""
    own = layer_of(name)
    if own not in LAYERS:
        return [f"{name} is not in LAYERS"]
    found = []
    for imported in imported_names(source, package):
        layer = layer_of(imported)
        if layer.startswith("__"):  # the package's own attributes, such as __version__
            continue
        if layer not in LAYERS:
            found.append(f"{name} imports {imported}, which is not in LAYERS")
        elif layer != own and LAYERS.index(layer) > LAYERS.index(own):
            found.append(f"{name} imports {imported}, which comes after it")
    return found


@pytest.mark.parametrize("path", modules(), ids=dotted_name)
def test_modules_import_only_earlier_layers(path: Path) -> None:
    name = dotted_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    assert violations(path.read_text(encoding="utf-8"), name, package) == []


def test_every_source_file_is_checked() -> None:
    names = [dotted_name(path) for path in modules()]
    assert {"clip_har.errors", "clip_har.methods", "clip_har.methods.base"} <= set(names)
    assert "clip_har" not in names


@pytest.mark.parametrize(
    "statement",
    [
        "from clip_har.commands import train",
        "from clip_har import commands",
        "import clip_har.experiment.training as training",
        "from ..workflows import train",
        "from .. import workflows",
        "def late() -> None:\n    from clip_har.commands import train",
        "if TYPE_CHECKING:\n    from clip_har.commands import train",
        "try:\n    pass\nfinally:\n    import clip_har.trainer",
        "from clip_har import utils",
    ],
)
def test_an_import_of_a_later_layer_is_found(statement: str) -> None:
    assert len(violations(statement, "clip_har.methods.embedding_lora", "clip_har.methods")) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "from clip_har.methods.base import Method",
        "from .base import Method",
        "from . import base",
        "from clip_har.errors import UserError",
        "from clip_har import __version__, losses",
        "import torch, clip_hardware",
    ],
)
def test_siblings_and_earlier_layers_are_free(statement: str) -> None:
    assert violations(statement, "clip_har.methods.embedding_lora", "clip_har.methods") == []


def test_a_module_without_a_layer_is_found() -> None:
    assert violations("", "clip_har.utils", "clip_har") == ["clip_har.utils is not in LAYERS"]


MOST_LINES = 400


@pytest.mark.parametrize("path", modules(), ids=dotted_name)
def test_no_file_is_too_long_to_be_read_at_once(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_layers_name_what_exists_and_nothing_else() -> None:
    assert set(LAYERS) == {layer_of(dotted_name(path)) for path in modules()}
    assert len(set(LAYERS)) == len(LAYERS)


def sibling_imports(package: Path) -> dict[str, set[str]]:
    """Module of a package -> the modules of the same package that it imports, wherever in the source."""
    names = {dotted_name(path): path for path in sorted(package.glob("*.py"))}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        own = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imported = set(imported_names(path.read_text(encoding="utf-8"), own))
        modules_of_it = {next((known for known in (i, i.rpartition(".")[0]) if known in names), None) for i in imported}
        graph[name] = {found for found in modules_of_it if found is not None and found != name}
    return graph


@pytest.mark.parametrize("package", sorted({path.parent for path in modules()} - {PACKAGE}), ids=dotted_name)
def test_modules_of_a_package_do_not_import_in_circles(package: Path) -> None:
    list(TopologicalSorter(sibling_imports(package)).static_order())  # raises CycleError, which shows the circle
