"""`compare --models A,B`: a comparison of the same methods for each pretrained model, and what they say together.

One comparison is compare.py's; each model has a folder of its own with its runs, tables and report.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_har import distributed, report
from clip_har.commands.few_shot import Compared
from clip_har.config import CompareConfig, names_method
from clip_har.errors import ConfigError, DataError, ModelError, TrainingError, UserError
from clip_har.evaluation.model_comparison import ComparedModel, Evaluations, ModelTable, model_table
from clip_har.experiment.evaluation import shared_facts
from clip_har.experiment.model_figures import known_figures, measured_figures
from clip_har.experiment.setup import Experiment, prepare
from clip_har.failures import is_out_of_memory, machine_failure
from clip_har.files import remove_stray_temporaries
from clip_har.locking import exclusive
from clip_har.pretrained import absolute, at_size, split_image_size
from clip_har.progress import Progress

FACTS_OF_ONE_MODEL = ("backbone", "weights_hash", "activation")
"""Facts of a comparison that several models do not share."""
LONGEST_FOLDER_NAME = 80
TOLERATED = (ModelError, TrainingError, ConfigError)
"""What may be wrong with one model, or one method on it, while others can be compared."""


@dataclass(frozen=True, kw_only=True)
class _OfModel:
    """One model's comparison, with what all models must have in common."""

    model: ComparedModel
    compared: Compared
    images: str
    """SHA-256 of the split manifest."""
    facts: Mapping[str, Any]


def compare_models(
    config: CompareConfig,
    compare_one: Callable[[CompareConfig, Experiment], Compared],
    progress: Progress,
    command: str,
) -> tuple[ModelTable, Compared]:
    """Run the comparison for each model, and write models.json, .csv, .png and report.html.

    A model that cannot be loaded or trained is a row with the reason.

    Args:
        config: with several models.
        compare_one: runs the comparison of a config with one model, whose images are encoded.

    Returns:
        The table, and the comparison of the model with the most accurate method.

    Raises:
        UserError: no model can be compared, or something is wrong that is not about a model.
    """
    assert config.models
    folders = folder_names(config)
    failures: list[UserError] = []
    models: list[ComparedModel] = []
    found: dict[str, _OfModel] = {}
    for number, name in enumerate(config.models, start=1):
        progress.note(f"Model {number}/{len(config.models)}: {name}")
        one = _config_of(config, name, folders[name])
        try:
            with exclusive(one.out):
                of_model = _compare_model(name, one, compare_one, progress)
        except Exception as error:
            failures.append(_tolerated(error))
            progress.warn(f"{name} is skipped: {failures[-1]}")
            models.append(
                ComparedModel(name=name, folder=folders[name], figures=known_figures(name), error=str(failures[-1]))
            )
            continue
        _require_same_images(config, found, of_model)
        found[name] = of_model
        models.append(of_model.model)
    if not found:
        raise _nothing_left(config, models, failures)
    table = _write(config, models, found, command)
    return table, found[table.best.name].compared


def refuse_conflicts(config: CompareConfig) -> None:
    """Refuse settings that are about one model, and models that would be compared in the same folder.

    Raises:
        ConfigError: one of them is given with --models.
    """
    folder_names(config)
    if config.backbone.model is not None:
        raise ConfigError("--models and --model cannot be combined", remedy="Add the model to --models.")
    if len(config.shots_compared) > 1:
        raise ConfigError(
            "--models and several numbers of --shots cannot be combined", remedy="Pass one number, such as --shots 16."
        )
    runs = [str(config.start_from)] if config.start_from is not None else []
    runs += [member for member in config.members or () if not names_method(member)]
    if runs:
        raise ConfigError(
            f"{runs[0]} is a run of one model and cannot be combined with --models",
            remedy="Pass methods to --members, remove --start-from, or compare one model with --model.",
        )


def folder_names(config: CompareConfig) -> dict[str, str]:
    """Model -> name of its folder in --out, which follows from the model's name alone.

    Raises:
        ConfigError: two names mean the same folder.
    """
    names: dict[str, str] = {}
    for model in config.models or ():
        folder = folder_name(model)
        if folder.casefold() in {other.casefold() for other in names.values()}:
            other = next(known for known, name in names.items() if name.casefold() == folder.casefold())
            raise ConfigError(
                f"--models lists {other} and {model}, whose directory in --out would be the same",
                remedy="Remove one of them, or compare it with another --out.",
            )
        names[model] = folder
    return names


def folder_name(model: str) -> str:
    """A name that any file system takes: "ViT-B/32" -> "ViT-B-32", "local-dir:models/a" -> "models-a-1f0c59e2".

    The digits follow from where the path leads, and tell it from others that end alike.
    """
    whole, side = split_image_size(absolute(model))
    kind, _, place = whole.partition(":")
    path = whole if Path(whole).is_file() else place if kind == "local-dir" or Path(place).is_file() else ""
    if not path:
        return _safe(at_size(whole, side)) or "model"
    digest = hashlib.sha256(at_size(whole, side).encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{_safe(at_size('-'.join(Path(path).parts[-2:]), side)) or 'model'}-{digest}"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:LONGEST_FOLDER_NAME].rstrip("-.")


def _config_of(config: CompareConfig, name: str, folder: str) -> CompareConfig:
    backbone = dataclasses.replace(config.backbone, model=name)
    return dataclasses.replace(config, models=None, backbone=backbone, out=config.out / folder)


def _compare_model(
    name: str, config: CompareConfig, compare_one: Callable[[CompareConfig, Experiment], Compared], progress: Progress
) -> _OfModel:
    experiment = prepare(config.data, config.backbone, out=config.out, progress=progress, hold_out=config.hold_out)
    compared = compare_one(config, experiment)
    figures = measured_figures(name, experiment.model.backbone)
    progress.note(f"Image encoder: {figures.images_per_second:.1f} images/s without reading files")
    return _OfModel(
        model=ComparedModel(
            name=name,
            folder=config.out.name,
            figures=figures,
            rows=tuple(compared.rows),
            skipped=compared.skipped,
        ),
        compared=compared,
        images=experiment.whole.manifest_hash(),
        facts=shared_facts(experiment, config.seeds[0]),
    )


def _tolerated(error: Exception) -> UserError:
    """The error without its traceback, which would keep the model in memory; raised if it is not about the model."""
    if isinstance(error, TOLERATED):
        return type(error)(error.what, remedy=error.remedy)
    failure = machine_failure(error) if is_out_of_memory(error) and distributed.world_size() == 1 else None
    if failure is None:
        raise error
    return failure


def _require_same_images(config: CompareConfig, found: Mapping[str, _OfModel], other: _OfModel) -> None:
    if any(of_model.images != other.images for of_model in found.values()):
        raise DataError(
            f"The images in {config.data.data} changed while the models were compared",
            remedy="Run the same command again; finished runs on the same images are reused.",
        )


def _nothing_left(config: CompareConfig, models: list[ComparedModel], failures: list[UserError]) -> UserError:
    """The reason that all models share, or all reasons."""
    if len({str(failure) for failure in failures}) == 1:
        return failures[0]
    reasons = "; ".join(
        f"{model.name}: {failure.what.rstrip('.')}" for model, failure in zip(models, failures, strict=True)
    )
    return ModelError(f"None of the {len(models)} models can be compared ({reasons})", remedy=failures[0].remedy)


def _write(
    config: CompareConfig, models: list[ComparedModel], found: Mapping[str, _OfModel], command: str
) -> ModelTable:
    evaluations: dict[str, Evaluations] = {name: of_model.compared.evaluations for name, of_model in found.items()}
    first = next(iter(found.values()))
    result = next(iter(first.compared.results.values()))
    table = model_table(models, evaluations, methods=config.methods, split=result.split, images=result.n)
    if distributed.is_main():
        remove_stray_temporaries(config.out)
        report.write_models(
            table,
            config.out,
            facts={key: value for key, value in first.facts.items() if key not in FACTS_OF_ONE_MODEL},
            command=command,
        )
    return table
