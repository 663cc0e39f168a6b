"""Several pretrained models under the same methods, on the same images: what their comparisons say together.

The comparisons' rows come from `comparison`, the tests from `pairwise`; how the table looks is in report and console.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clip_har.evaluation.comparison import ComparisonRow
from clip_har.evaluation.pairwise import PairedTest, pairwise_tests
from clip_har.evaluation.records import EvalResult

BYTES_OF_FLOAT32 = 4

Evaluations = Mapping[str, Mapping[int, EvalResult]]
"""Method -> training seed -> its evaluation."""


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """What is known of a pretrained model besides its accuracy; None or "" where it is not known."""

    parameters: int | None = None
    """Of both encoders."""
    image_parameters: int | None = None
    """Of the image encoder."""
    embed_dim: int | None = None
    """Width of the shared embedding space."""
    image_size: tuple[int, int] | None = None
    """Height and width of its images, in pixels."""
    gflops: float | None = None
    """Billion multiply-adds of the image encoder for one image, as the catalogue of models has them."""
    images_per_second: float | None = None
    """Of the image encoder alone, without reading files, as measured by this command."""
    pretraining_data: str = ""
    licence: str = ""
    research_only: bool | None = None
    """Whether the licence excludes commercial use."""
    weights_hash: str = ""
    """SHA-256 over all parameters and buffers."""

    @property
    def weights_bytes(self) -> int | None:
        """Size of all parameters in float32, whatever precision the file has."""
        return None if self.parameters is None else BYTES_OF_FLOAT32 * self.parameters

    @property
    def seconds_per_image(self) -> float | None:
        """What the image encoder takes for one image of a batch."""
        return None if self.images_per_second is None else 1 / self.images_per_second


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """One pretrained model, with the rows of its comparison or the reason why there are none."""

    name: str
    """As it was asked for."""
    folder: str
    """Name of the folder of its comparison."""
    figures: ModelFigures = ModelFigures()
    rows: tuple[ComparisonRow, ...] = ()
    """In the order of the methods asked."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Method that has no row -> the reason."""
    error: str = ""
    """Why it was not compared; empty if it has rows."""

    @property
    def best(self) -> ComparisonRow | None:
        """The most accurate method."""
        return max(self.rows, key=lambda row: row.accuracy, default=None)

    def row(self, method: str) -> ComparisonRow | None:
        """The row of one method."""
        return next((row for row in self.rows if row.name == method), None)

    def missing(self, method: str) -> str:
        """Why a method has no row; empty if it has one."""
        return "" if self.row(method) else self.error or self.skipped.get(method, "")


@dataclass(frozen=True, kw_only=True)
class CostPoint:
    """One method of one model, by accuracy and by the time of the model's image encoder."""

    model: str
    method: str
    seconds_per_image: float
    accuracy: float
    on_frontier: bool
    """Whether no other point is at least as accurate in at most the time, and better in one of the two."""


@dataclass(frozen=True, kw_only=True)
class ModelTable:
    """Several models at several methods, all on the same images."""

    models: tuple[ComparedModel, ...]
    """In the order asked, at least one of them with rows."""
    methods: tuple[str, ...]
    """In the order asked."""
    split: str
    """The split whose images were evaluated."""
    images: int
    """How many these are."""
    tests_of_best: tuple[PairedTest, ...] = ()
    """Between any two models with their best methods, corrected for the number of these pairs."""
    tests_by_method: Mapping[str, tuple[PairedTest, ...]] = field(default_factory=dict)
    """Method -> tests between any two models with it, corrected for the number of its pairs."""

    @property
    def compared(self) -> tuple[ComparedModel, ...]:
        """The models that have rows."""
        return tuple(model for model in self.models if model.rows)

    @property
    def ranked(self) -> tuple[ComparedModel, ...]:
        """The models with rows, the one with the most accurate method first, and then those without."""
        return tuple(sorted(self.models, key=lambda model: -model.best.accuracy if model.best else 1.0))

    @property
    def best(self) -> ComparedModel:
        """The model with the most accurate method."""
        return self.ranked[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all trainings that were repeated."""
        rows = [row for model in self.compared for row in model.rows if len(row.seeds) > 1]
        return tuple(sorted({seed for row in rows for seed in row.seeds}))

    @property
    def missing(self) -> list[tuple[str, str, str]]:
        """What could not be compared: model, method ("" for all of them), reason."""
        return [
            entry
            for model in self.models
            for entry in (
                [(model.name, "", model.error)]
                if model.error
                else [(model.name, method, reason) for method, reason in model.skipped.items()]
            )
        ]

    @property
    def points(self) -> tuple[CostPoint, ...]:
        """Every method of every model whose encoder was timed."""
        return cost_points(self.models)

    def to_json(self) -> dict[str, Any]:
        """models.json."""
        frontier = {(point.model, point.method) for point in self.points if point.on_frontier}
        return {
            "split": self.split,
            "images": self.images,
            "methods": list(self.methods),
            "models": [_model_json(model, frontier) for model in self.models],
            "tests": {
                "best": [asdict(test) for test in self.tests_of_best],
                "methods": {name: [asdict(test) for test in tests] for name, tests in self.tests_by_method.items()},
            },
        }


def model_table(
    models: Sequence[ComparedModel],
    evaluations: Mapping[str, Evaluations],
    *,
    methods: Sequence[str],
    split: str,
    images: int,
) -> ModelTable:
    """The table of several comparisons.

    Args:
        models: in the order asked.
        evaluations: model -> those of its rows, all on the same images.
        methods: in the order asked.
        split: the split whose images were evaluated.
        images: how many these are.
    """
    chosen = {model.name: evaluations[model.name][model.best.name] for model in models if model.best is not None}
    by_method = {
        method: {model.name: evaluations[model.name][method] for model in models if model.row(method) is not None}
        for method in methods
    }
    return ModelTable(
        models=tuple(models),
        methods=tuple(methods),
        split=split,
        images=images,
        tests_of_best=pairwise_tests(chosen),
        tests_by_method={method: pairwise_tests(found) for method, found in by_method.items() if len(found) > 1},
    )


def cost_points(models: Sequence[ComparedModel]) -> tuple[CostPoint, ...]:
    """Accuracy and encoder time of every method of every timed model, with the Pareto frontier of the two."""
    found = [
        (model.name, row.name, seconds, row.accuracy)
        for model in models
        if (seconds := model.figures.seconds_per_image) is not None
        for row in model.rows
    ]
    return tuple(
        CostPoint(
            model=model,
            method=method,
            seconds_per_image=seconds,
            accuracy=accuracy,
            on_frontier=not any(
                other_seconds <= seconds
                and other_accuracy >= accuracy
                and (other_seconds < seconds or other_accuracy > accuracy)
                for _, _, other_seconds, other_accuracy in found
            ),
        )
        for model, method, seconds, accuracy in found
    )


def _model_json(model: ComparedModel, frontier: set[tuple[str, str]]) -> dict[str, Any]:
    figures = asdict(model.figures)
    size = figures.pop("image_size")
    best = model.best
    return {
        "model": model.name,
        "folder": model.folder if model.rows else None,
        "error": model.error or None,
        **{key: None if value == "" else value for key, value in figures.items()},
        "image_size": None if size is None else list(size),
        "weights_float32_bytes": model.figures.weights_bytes,
        "seconds_per_image": model.figures.seconds_per_image,
        "best": None if best is None else best.name,
        "results": [{**row_figures(row), "pareto": (model.name, row.name) in frontier} for row in model.rows],
        "skipped": dict(model.skipped),
    }


def row_figures(row: ComparisonRow) -> dict[str, Any]:
    """What models.json has of a row; comparison.json in the model's folder has all."""
    keys = ("method", "base_method", "accuracy", "accuracy_ci95", "accuracy_std", "seeds", "accuracies", "macro_f1")
    content = row.to_json()
    return {key: content[key] for key in (*keys, "macro_f1_std", "train_seconds", "trainable_params", "p", "note")}


def results_of(table: ModelTable) -> Iterator[tuple[ComparedModel, str, ComparisonRow | None]]:
    """Model, method and its row for each pair; one without a row has a reason (`ComparedModel.missing`).

    Models are ranked, methods as asked. A model that was not compared has one entry, of the method "".
    """
    for model in table.ranked:
        if model.error:
            yield model, "", None
            continue
        for method in table.methods:
            yield model, method, model.row(method)
