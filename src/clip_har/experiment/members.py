"""The runs that an ensemble combines: trained where they are named as methods, with answers that can judge them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from clip_har import checkpoint
from clip_har.config import SourceSettings, TrainConfig, apply_preset, names_method
from clip_har.errors import ConfigError, RunError
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment
from clip_har.methods import LabelledImages, Method, OutOfFold, Source, method_class
from clip_har.progress import Progress
from clip_har.protocol import require_same

MEMBERS_FOLDER = "members"

TrainMember = Callable[[TrainConfig, Path], checkpoint.Run]


def member_runs(
    config: TrainConfig,
    folder: Path,
    combining: type[Method],
    experiment: Experiment,
    train: TrainMember,
    *,
    refit: bool,
) -> list[checkpoint.Run]:
    """The members' runs: those given as folders, and those given as methods, trained in the ensemble's own folder.

    Args:
        combining: the method that combines them.
        train: trains a method into a folder.
        refit: whether the combination can be judged by answers of cross-validation, not by validation images alone.

    Raises:
        ConfigError: as for `member_names`; or a run that cannot be a member.
        RunError: a folder holds no finished run, or one on other images, prompts or weights.
    """
    names = member_names(config, combining)
    runs = {name: _finished_member(name, combining, experiment) for name in names if not names_method(name)}
    if not refit:
        for run in runs.values():
            require_unseen_validation(run, config.method)
    for name in filter(names_method, names):  # only now: training takes time, and a wrong folder is known at once
        given = dataclasses.replace(config, method=name, preset=None, members=None)
        if config.refit and not refit:
            given = dataclasses.replace(given, refit=False)
        runs[name] = train(given, folder / MEMBERS_FOLDER / name)
    return [runs[name] for name in names]


def member_names(config: TrainConfig, combining: type[Method]) -> tuple[str, ...]:
    """The members that a config names, else the combining method's own: folders of runs, methods and presets.

    Raises:
        ConfigError: fewer than two, one twice, or a method that cannot be a member.
    """
    names = config.members or combining.combines
    if len({_identity(name) for name in names}) < max(2, len(names)):
        raise ConfigError(
            f"{config.method} needs two or more different members", remedy="Pass them with --members RUN_OR_METHOD,..."
        )
    for name in filter(names_method, names):
        given = apply_preset(dataclasses.replace(config, method=name, preset=None))
        _require_member(name, given.method, method_class(given.method, given), combining)
    return names


def _identity(name: str) -> str:
    """The same for all paths of a run: its folder, through links, and files in it."""
    if names_method(name):
        return name
    path = Path(name).resolve()
    return str(path.parent if path.is_file() else path)


def check_members(config: TrainConfig, combining: type[Method]) -> None:
    """Refuse members that cannot be combined, before the images are encoded.

    Raises:
        ConfigError: as for `member_names`; or a run that cannot be a member.
        RunError: a folder holds no finished run.
    """
    methods = []
    for name in member_names(config, combining):
        if names_method(name):
            methods.append(apply_preset(dataclasses.replace(config, method=name, preset=None)).method)
            continue
        run = _loaded_member(name, combining)
        if not combining.refits:
            require_unseen_validation(run, config.method)
        methods.append(run.card.method)
    combining.check_together(methods)


def _finished_member(name: str, combining: type[Method], experiment: Experiment) -> checkpoint.Run:
    run = _loaded_member(name, combining)
    require_same(run.folder, run.protocol, experiment.protocol)
    return run


def _loaded_member(name: str, combining: type[Method]) -> checkpoint.Run:
    if not Path(name).exists():
        raise RunError(
            f"--members names {name}: a run folder of this name was not found, nor is there such a method",
            remedy="Pass folders of finished runs, or methods such as gda,ridge.",
        )
    run = checkpoint.load_run(Path(name))
    _require_member(name, run.card.method, type(run.method), combining)
    return run


def _require_member(name: str, method: str, kind: type[Method], combining: type[Method]) -> None:
    if not combining.takes_member(kind):
        raise ConfigError(
            f"--members names {name}, a run of {method}, which cannot be a member of {combining.name}",
            remedy="Remove it from --members.",
        )


def require_unseen_validation(run: checkpoint.Run, method: str) -> None:
    """Refuse a run that the validation images cannot judge any more.

    Args:
        method: which makes new weights of the run's, and is judged by these images.

    Raises:
        ConfigError: it was fitted on them.
    """
    if run.settings.refit:
        raise ConfigError(
            f"{run.folder} was also fitted on the validation images (--refit), by which {method} is judged",
            remedy="Pass a run that was trained with --no-refit.",
        )


def train_seconds(runs: Sequence[checkpoint.Run]) -> float:
    """What training them took."""
    return sum(run.card.train_seconds or 0.0 for run in runs)


def member_settings(runs: Sequence[checkpoint.Run]) -> tuple[SourceSettings, ...]:
    """What the ensemble's card says of its members."""
    return tuple(
        SourceSettings(
            method=run.card.method,
            settings=run.settings,
            trainable_params=run.card.trainable_params,
            weights_sha256=run.weights_sha256(),
        )
        for run in runs
    )


def as_members(
    runs: Sequence[checkpoint.Run],
    train: LabelledImages,
    val: LabelledImages,
    experiment: Experiment,
    progress: Progress,
) -> tuple[Source, ...]:
    """The members' weights, and their answers for the same images, none of which they were fitted on.

    Raises:
        ConfigError: there are no such images.
    """
    kept = [run.out_of_fold() for run in runs]
    judging = val
    if all(found is not None for found in kept):
        common = set.intersection(*(set(found.hashes) for found in kept if found is not None))
        if not common:
            raise ConfigError(
                "The members have no images in common that cross-validation judged, such as after --shots with --refit "
                "and other seeds",
                remedy="Pass runs that were trained on the same images, or with --no-refit.",
            )
        pool = train.joined(val)
        chosen = [index for index, sha256 in enumerate(pool.table.hashes) if sha256 in common]
        judging = pool.subset(chosen)
    sources = []
    for run in runs:
        answers_NC = Predictions(run, experiment, progress).finetuned(judging)
        assert answers_NC is not None
        answers = OutOfFold(
            hashes=judging.table.hashes, labels_N=judging.labels_N, probabilities_NC=torch.from_numpy(answers_NC)
        )
        sources.append(dataclasses.replace(run.as_source(), answers=answers))
    return tuple(sources)
