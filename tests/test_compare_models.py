"""`compare --models A,B`: a comparison for each model, what is missing, the paired tests, and what is reused."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest

from clip_har import cli, commands
from clip_har.commands import compare_models
from clip_har.commands.compare import Comparison
from clip_har.config import BackboneConfig, CompareConfig, DataConfig
from clip_har.errors import ConfigError, DataError, ModelError, RunError, TrainingError
from clip_har.evaluation import ComparisonRow
from clip_har.evaluation.model_comparison import ComparedModel, ModelFigures, cost_points
from clip_har.experiment import model_figures
from clip_har.experiment.setup import prepare
from clip_har.locking import exclusive
from clip_har.wording import model_labels
from samples import MODEL_CONFIG, write_model
from test_workflows import Heard

METHODS = ("zero-shot", "ridge")
MISSING = "local-dir:nowhere"


@pytest.fixture(name="models", scope="module")
def fixture_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two tiny models of different weights, in folders of the same name."""
    names = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"seed-{seed}") / "clip"
        folder.mkdir()
        names.append(write_model(folder, MODEL_CONFIG, seed=seed))
    return names[0], names[1]


@pytest.fixture(autouse=True)
def timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_figures, "MEASURED_SECONDS", 0.0)


def config(photos: Path, models: tuple[str, ...], out: Path, **changes: Any) -> CompareConfig:
    given = CompareConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(workers=0, precision="float32"),
        models=models,
        methods=METHODS,
        out=out,
    )
    return replace(given, **changes)


@pytest.fixture(name="compared", scope="module")
def fixture_compared(photos: Path, models: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    out = tmp_path_factory.mktemp("models")
    asked = (models[0], MISSING, models[1])
    return commands.compare(config(photos, asked, out), command="clip-har compare --models A,B")


def folder_of(compared: Comparison, model: str) -> Path:
    return compared.out / compare_models.folder_name(model)


def correct(run: Path) -> npt.NDArray[np.bool_]:
    with (run / "eval" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return np.array([(row["finetuned"] or row["baseline"]) == row["true"] for row in rows])


def exact_mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The binomial test on the images that only one of the two has right."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    both = only_first + only_second
    return 1.0 if both == 0 else float(binomtest(only_first, both).pvalue)


def written(compared: Comparison) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((compared.out / "models.json").read_text())
    return content


def test_each_model_has_an_ordinary_comparison_in_its_folder(compared: Comparison, models: tuple[str, str]) -> None:
    folders = {compare_models.folder_name(model) for model in models}
    assert len(folders) == 2
    assert {path.name for path in compared.out.iterdir() if not path.name.startswith(".")} == {
        *("models.csv", "models.json", "models.png", "report.html"),
        *folders,
    }
    for entry in written(compared)["models"]:
        if entry["error"]:
            assert entry["model"] == MISSING and entry["folder"] is None
            continue
        own = json.loads((compared.out / entry["folder"] / "comparison.json").read_text())
        assert [row["method"] for row in own] == list(METHODS)
        assert (compared.out / entry["folder"] / "report.html").is_file()
        for row, result in zip(own, entry["results"], strict=True):
            assert {key: result[key] for key in result if key != "pareto"}.items() <= row.items()


def test_all_models_have_the_same_splits(compared: Comparison, models: tuple[str, str]) -> None:
    first, second = ((folder_of(compared, model) / "manifest.csv").read_text() for model in models)
    assert first == second
    hashes = {
        json.loads((folder_of(compared, model) / "runs" / "ridge" / "card.json").read_text())["manifest_sha256"]
        for model in models
    }
    assert len(hashes) == 1


def test_the_figures_of_a_model_are_counted_and_measured(compared: Comparison, models: tuple[str, str]) -> None:
    entry = next(entry for entry in written(compared)["models"] if entry["model"] == models[0])
    card = json.loads((folder_of(compared, models[0]) / "runs" / "ridge" / "card.json").read_text())
    assert entry["parameters"] == card["backbone"]["parameters"] > entry["image_parameters"] > 0
    assert entry["weights_float32_bytes"] == 4 * entry["parameters"]
    assert entry["image_size"] == [32, 32] and entry["embed_dim"] == 24
    assert entry["images_per_second"] > 0
    assert entry["seconds_per_image"] == pytest.approx(1 / entry["images_per_second"])
    assert entry["weights_hash"] == card["backbone"]["weights_hash"]


def test_models_are_tested_against_each_other_on_the_same_images(compared: Comparison, models: tuple[str, str]) -> None:
    right = {
        model: {method: correct(folder_of(compared, model) / "runs" / method) for method in METHODS} for model in models
    }
    tests = written(compared)["tests"]
    best = {model: max(METHODS, key=lambda method: right[model][method].mean()) for model in models}
    pairs: dict[str, tuple[str, str]] = {method: (method, method) for method in METHODS}
    for name, (of_first, of_second) in {**pairs, "best": (best[models[0]], best[models[1]])}.items():
        (test,) = tests["best"] if name == "best" else tests["methods"][name]
        first, second = right[models[0]][of_first], right[models[1]][of_second]
        assert (test["first"], test["second"], test["test"]) == (*models, "mcnemar")
        assert test["difference"] == pytest.approx(second.mean() - first.mean())
        assert test["p"] == test["p_holm"] == pytest.approx(exact_mcnemar(first, second))


def test_what_is_missing_is_a_row_with_its_reason(compared: Comparison) -> None:
    assert compared.models is not None
    ((model, method, reason),) = compared.models.missing
    assert (model, method) == (MISSING, "") and "contains no open_clip model" in reason
    with (compared.out / "models.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [bool(row["accuracy"]) for row in rows] == [True] * 4 + [False]
    assert rows[-1]["model"] == MISSING and rows[-1]["missing"] == reason
    assert all(row["missing"] == "" for row in rows[:-1])


def test_the_page_links_to_the_pages_of_the_models(compared: Comparison, models: tuple[str, str]) -> None:
    page = (compared.out / "report.html").read_text()
    for model in models:
        assert f'href="{compare_models.folder_name(model)}/report.html"' in page
    assert "contains no open_clip model" in page and "clip-har compare --models A,B" in page


def test_the_result_is_that_of_the_best_model(compared: Comparison) -> None:
    table = compared.models
    assert table is not None and table.best.best is not None
    assert [row.accuracy for row in compared.rows] == [row.accuracy for row in table.best.rows]
    assert table.best.best.accuracy == max(row.accuracy for model in table.compared for row in model.rows)


def test_a_second_command_reuses_the_runs_and_compares_what_is_new(
    photos: Path, models: tuple[str, str], compared: Comparison
) -> None:
    cards = {path: path.stat().st_mtime_ns for path in compared.out.glob("*/runs/*/card.json")}
    assert len(cards) == 4
    heard = Heard()
    again = commands.compare(config(photos, (models[1], "demo"), compared.out), progress=heard)
    assert sum("reused from" in note for note in heard.notes) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in cards.items())
    assert again.models is not None and compared.models is not None
    assert [model.name for model in again.models.models] == [models[1], "demo"]
    before = next(model for model in compared.models.models if model.name == models[1])
    assert [row.accuracy for row in again.models.models[0].rows] == [row.accuracy for row in before.rows]


def test_another_process_is_refused(photos: Path, models: tuple[str, str], tmp_path: Path) -> None:
    with exclusive(tmp_path / "out"), pytest.raises(RunError, match="already being written to"):
        commands.compare(config(photos, models, tmp_path / "out"))


def test_seeds_are_averaged_and_tested_together(photos: Path, models: tuple[str, str], tmp_path: Path) -> None:
    found = commands.compare(
        config(photos, models, tmp_path, methods=("zero-shot", "tip-adapter"), seeds=(0, 3), shots=2)
    )
    assert found.models is not None and found.models.seeds == (0, 3)
    for model in models:
        runs = {path.name for path in (folder_of(found, model) / "runs").iterdir()}
        assert runs == {"zero-shot", "tip-adapter", "tip-adapter-seed-3"}
    row = found.models.models[0].row("tip-adapter")
    assert row is not None and len(row.accuracies) == 2
    assert row.accuracy == pytest.approx(np.mean(row.accuracies))
    assert found.models.tests_by_method["zero-shot"][0].test == "mcnemar"


# What is missing or refused


def test_the_terminal_shows_one_table_and_the_exit_code_tells_of_what_is_missing(
    photos: Path, models: tuple[str, str], compared: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = f"{models[0]},no-such-model,{models[1]}"
    argv = ["compare", "--data", str(photos), "--models", asked, "--methods", ",".join(METHODS)]
    code = cli.main([*argv, "--workers", "0", "--precision", "float32", "--out", str(compared.out)])
    said = capsys.readouterr()
    assert code == cli.EXIT_FINDINGS == 3
    lines = said.out.splitlines()
    header = next(line for line in lines if line.startswith("model"))
    assert header.split() == ["model", "accuracy", "95", "%", "CI", "F1", "training", "images/s", "size"]
    assert sum(line.startswith("  ridge") for line in lines) == 2
    assert any(line.startswith("no-such-model: Unknown model 'no-such-model'") for line in lines)
    assert lines[-1] == "Missing: 1 of 3 models (no-such-model)"
    assert f"Report  {compared.out / 'report.html'}" in lines
    assert "warning: no-such-model is skipped: Unknown model" in said.err


def test_a_method_that_fails_on_one_model_is_missing_there(
    photos: Path, models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = import_module("clip_har.commands.compare")  # the package's attribute of this name is the function
    real = compare.run_of_comparison

    def failing(given: CompareConfig, name: str, *rest: Any) -> Any:
        if name == "ridge" and given.backbone.model == models[1]:
            raise ConfigError("ridge cannot train this model", remedy="Remove it from --methods.")
        return real(given, name, *rest)

    monkeypatch.setattr(compare, "run_of_comparison", failing)
    found = commands.compare(config(photos, models, tmp_path)).models
    assert found is not None
    assert found.missing == [(models[1], "ridge", "ridge cannot train this model. Remove it from --methods.")]
    assert [row.name for row in found.models[1].rows] == ["zero-shot"]
    assert set(found.tests_by_method) == {"zero-shot"} and len(found.tests_of_best) == 1


def test_a_model_on_which_no_method_works_is_missing(
    photos: Path, models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = import_module("clip_har.commands.compare")  # the package's attribute of this name is the function
    real = compare.run_of_comparison

    def failing(given: CompareConfig, name: str, *rest: Any) -> Any:
        if given.backbone.model == models[0]:
            raise TrainingError("The loss is not finite", remedy="Use a smaller --lr.")
        return real(given, name, *rest)

    monkeypatch.setattr(compare, "run_of_comparison", failing)
    found = commands.compare(config(photos, models, tmp_path, methods=("zero-shot",))).models
    assert found is not None
    assert found.missing == [(models[0], "", "The loss is not finite. Use a smaller --lr.")]
    assert found.tests_of_best == () and found.tests_by_method == {}


def test_a_model_that_needs_too_much_memory_is_missing(
    photos: Path, models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(data: Any, backbone: BackboneConfig, **rest: Any) -> Any:
        if backbone.model == models[0]:
            raise MemoryError
        return prepare(data, backbone, **rest)

    monkeypatch.setattr(compare_models, "prepare", full)
    found = commands.compare(config(photos, models, tmp_path, methods=("zero-shot",))).models
    assert found is not None and found.missing[0][2].startswith("Out of memory.")


def test_images_that_change_between_two_models_stop_the_command(
    photos: Path, models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compare_models._compare_model

    def changing(name: str, *rest: Any) -> Any:
        return replace(real(name, *rest), images=name)

    monkeypatch.setattr(compare_models, "_compare_model", changing)
    with pytest.raises(DataError, match="changed while the models were compared"):
        commands.compare(config(photos, models, tmp_path, methods=("zero-shot",)))


def test_without_any_model_it_is_an_error(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        commands.compare(config(photos, (MISSING, "no-such-model"), tmp_path / "out"))
    assert "None of the 2 models can be compared (local-dir:nowhere: " in str(caught.value)
    assert "Unknown model 'no-such-model'" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_read_is_an_error_of_its_own(models: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        commands.compare(config(tmp_path / "nothing", models, tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": BackboneConfig(model="demo")}, "--models and --model cannot be combined"),
        ({"shots": (1, 2)}, "--models and several numbers of --shots cannot be combined"),
        ({"start_from": Path("runs/full")}, "runs/full is a run of one model"),
        ({"members": ("gda", "runs/ridge")}, "runs/ridge is a run of one model"),
        ({"models": ("ViT-B/32", "ViT-B-32")}, "ViT-B/32 and ViT-B-32, whose directory in --out would be the same"),
        ({"models": ("demo", "demo")}, "--models lists a model twice"),
        ({"models": ()}, "--models must"),
    ],
)
def test_settings_of_one_model_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    given = replace(config(tmp_path / "not read", ("demo", "RN50"), tmp_path / "out"), **changes)
    with pytest.raises(ConfigError, match=said):
        commands.compare(given)
    assert not (tmp_path / "out").exists()


# Names and figures


def test_folders_are_safe_and_follow_from_the_name(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").touch()
    names = {
        "ViT-B/32": "ViT-B-32",
        "ViT-B-32:laion2b_s34b_b79k": "ViT-B-32-laion2b_s34b_b79k",
        "hf-hub:org/name": "hf-hub-org-name",
        "demo": "demo",
        "../nowhere/..": "nowhere",
    }
    assert {name: compare_models.folder_name(name) for name in names} == names
    for name in (
        f"local-dir:{tmp_path}",
        str(tmp_path / "weights.pt"),
        f"RN50:{tmp_path / 'weights.pt'}",
        "local-dir:/",
    ):
        folder = compare_models.folder_name(name)
        assert folder == Path(folder).name and len(folder) < 100 and folder.isascii()
    assert compare_models.folder_name("local-dir:/a/clip") != compare_models.folder_name("local-dir:/b/clip")
    assert compare_models.folder_name("local-dir:/models/a/clip").startswith("a-clip-")


def test_labels_are_short_unless_two_would_be_alike() -> None:
    assert model_labels(["local-dir:/x/lite/clip", "ViT-B/32", "hf-hub:org/name", "RN50:/w/a.pt"]) == {
        "local-dir:/x/lite/clip": "lite/clip",
        "ViT-B/32": "ViT-B/32",
        "hf-hub:org/name": "org/name",
        "RN50:/w/a.pt": "RN50:a.pt",
    }
    clip = "local-dir:/x/lite/clip"
    assert model_labels([f"{clip}@288", f"{clip}+{clip}@288", "ViT-B/32+RN50"]) == {
        f"{clip}@288": "lite/clip@288",
        f"{clip}+{clip}@288": "lite/clip+lite/clip@288",
        "ViT-B/32+RN50": "ViT-B/32+RN50",
    }
    alike = ["local-dir:/x/lite/clip", "local-dir:/y/lite/clip"]
    assert model_labels(alike) == dict(zip(alike, alike, strict=True))


def row_with(name: str, accuracy: float) -> ComparisonRow:
    return ComparisonRow(
        name=name,
        method=name,
        seeds=(0,),
        accuracies=(accuracy,),
        accuracy=accuracy,
        accuracy_ci95=(accuracy, accuracy),
        accuracy_std=None,
        macro_f1=accuracy,
        macro_f1_std=None,
        ece=0.0,
        trainable_params=0,
        trainable_fraction=0.0,
        peak_memory_bytes=None,
        train_seconds=None,
        mcnemar_p=None,
        collapsed=False,
    )


def test_the_frontier_is_what_nothing_dominates() -> None:
    generator = np.random.default_rng(0)
    models = [
        ComparedModel(
            name=f"model-{number}",
            folder=f"model-{number}",
            figures=ModelFigures(images_per_second=float(generator.integers(1, 6))),
            rows=tuple(row_with(name, float(generator.integers(3, 9)) / 10) for name in "abc"),
        )
        for number in range(8)
    ]
    untimed = ComparedModel(name="untimed", folder="untimed", rows=(row_with("a", 1.0),))
    points = cost_points([*models, untimed])
    assert len(points) == 24
    for point in points:
        better = [
            other
            for other in points
            if (other.seconds_per_image, -other.accuracy) != (point.seconds_per_image, -point.accuracy)
            and other.seconds_per_image <= point.seconds_per_image
            and other.accuracy >= point.accuracy
        ]
        assert point.on_frontier is (not better)
    frontier = sorted({(p.seconds_per_image, p.accuracy) for p in points if p.on_frontier})
    assert len(frontier) > 1 and all(a[1] < b[1] for a, b in pairwise(frontier))


def catalogue(facts: Mapping[str, Any]) -> Any:
    return SimpleNamespace(describe=lambda name: SimpleNamespace(**facts) if name == "ViT-B/32" else None)


def test_a_missing_model_still_has_the_figures_of_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {
        "image_parameters": 88_000_000,
        "text_parameters": 63_000_000,
        "embed_dim": 512,
        "image_size": 224,
        "gflops": 14.8,
        "data": "WIT",
        "licence": "MIT",
        "research_only": False,
    }
    monkeypatch.setattr(model_figures, "catalogue", catalogue(facts))
    found = model_figures.known_figures("ViT-B/32")
    assert (found.parameters, found.image_size, found.licence) == (151_000_000, (224, 224), "MIT")
    assert found.weights_bytes == 604_000_000 and found.images_per_second is None
    assert model_figures.known_figures("RN50") == ModelFigures()
