"""The notebooks run, on a few of the synthetic images that `clip-har quickstart` draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clip_har.demo import write_dataset
from docs_commands import Session

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def test_notebooks_have_no_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    assert [path.name for path in NOTEBOOKS] == ["har_gpu.ipynb", "own_images.ipynb"]
    for path in NOTEBOOKS:
        notebook: Any = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images in data/."""
    folder = tmp_path_factory.mktemp("drawn")
    write_dataset(folder / "data", train_per_class=10, test_per_class=4)
    return folder


@pytest.mark.slow  # starts a Jupyter kernel, which imports torch
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_on_the_synthetic_images(path: Path, drawn: Path, own_cache: Path, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook: Any = nbformat.read(path, as_version=4)
    demo = {"NOTEBOOK_DATA": str(drawn / "data"), "NOTEBOOK_MODEL": "demo", "NOTEBOOK_METHOD": "ridge"}
    with Session(tmp_path, drawn, own_cache), pytest.MonkeyPatch.context() as patch:
        for name, value in demo.items():
            patch.setenv(name, value)
        nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert "60 test images" in printed
    assert (tmp_path / "out" / "report.html").is_file()
