"""`compare`: several methods on the same splits, prompts and seed. `quickstart`: the same on synthetic images.

Several numbers of --shots are in few_shot.py, several models in compare_models.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clip_har import checkpoint, distributed, report
from clip_har.commands.compare_models import TOLERATED, compare_models, refuse_conflicts
from clip_har.commands.few_shot import Compared, compare_shots
from clip_har.config import (
    CompareConfig,
    TrainConfig,
    apply_preset,
    names_method,
    validate,
)
from clip_har.dataset import write_manifest
from clip_har.errors import TrainingError, UserError
from clip_har.evaluation import ComparisonRow, EvalResult, PairedTest, comparison_row, pairwise_tests
from clip_har.evaluation.few_shot import FewShotTable
from clip_har.evaluation.findings import Findings
from clip_har.evaluation.model_comparison import Evaluations, ModelTable
from clip_har.experiment.confidence import too_few_images
from clip_har.experiment.evaluation import evaluate_prepared, shared_facts, thumbnails
from clip_har.experiment.members import member_names
from clip_har.experiment.novel_classes import mean_of, measure_novel
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment, prepare, scored_split
from clip_har.experiment.training import check_sources, finished_or_trained
from clip_har.experiment.unknown import measure_unknown
from clip_har.files import remove_stray_temporaries
from clip_har.fusion import require_single_model
from clip_har.locking import exclusive
from clip_har.methods import method_class
from clip_har.methods.towers import small_views
from clip_har.progress import SILENT, Progress

UNSEEN_NOTE = "cannot predict the unseen classes: their accuracy is that of the zero-shot model"
SMALL_EPOCHS = 8
"""Epochs of training the encoders with --budget small."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found: one row and one evaluation per method, in the order asked.

    With several numbers of --shots, these are of the largest number that could be trained; with --models, of the model
    with the most accurate method.
    """

    rows: tuple[ComparisonRow, ...]
    results: Mapping[str, EvalResult]
    out: Path
    pairwise: tuple[PairedTest, ...] = ()
    """Tests between any two methods."""
    few_shot: FewShotTable | None = None
    """With several numbers of --shots, the accuracy by number of images."""
    models: ModelTable | None = None
    """With --models, what the comparisons of all models say together."""
    evaluations: Evaluations = field(default_factory=dict)
    """Method -> training seed -> its evaluation, of the rows."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Method that could not be trained -> the reason."""


def compare(config: CompareConfig, *, progress: Progress = SILENT, command: str = "") -> Comparison:
    """Train and score several methods on the same splits, prompts and seeds; runs that are finished are reused.

    Raises:
        UserError: as for `train`.
    """
    validate(config)
    if config.models is not None:
        refuse_conflicts(config)
    distributed.initialise(config.backbone.device)
    with exclusive(config.out):
        return compare_locked(config, progress, command)


def compare_locked(config: CompareConfig, progress: Progress, command: str) -> Comparison:
    if config.models is not None:
        return _compare_models(config, progress, command)
    _check_methods(config)
    experiment = prepare(config.data, config.backbone, out=config.out, progress=progress, hold_out=config.hold_out)
    if len(config.shots_compared) < 2:
        return _compare_prepared(config, experiment, progress, command)
    found: list[Comparison] = []

    def compare_one(one: CompareConfig) -> Compared:
        found.append(_compare_prepared(one, experiment, progress, command))
        return Compared(rows=found[-1].rows, results=found[-1].results)

    table = compare_shots(config, experiment, compare_one, progress, command)
    return dataclasses.replace(found[-1], out=config.out, few_shot=table)


def _check_methods(config: CompareConfig) -> None:
    """Refuse methods with wrong settings, or that cannot use the model, before it is loaded."""
    if config.budget == "small":  # which depends on the model
        config = dataclasses.replace(config, budget="full")
    for name in config.methods:
        method_config = _train_config(config, name, config.seeds[0])
        validate(method_config)
        method = method_class(method_config.method, method_config)
        if method.works_inside(method_config):
            require_single_model(config.backbone.model)
        if method.starts_from is None or method_config.start_from is not None:  # else it starts from a compared run
            check_sources(method_config)


def _compare_models(config: CompareConfig, progress: Progress, command: str) -> Comparison:
    _check_methods(config)

    def compare_one(one: CompareConfig, experiment: Experiment) -> Compared:
        found = _compare_prepared(one, experiment, progress, command, tolerated=TOLERATED)
        return Compared(rows=found.rows, results=found.results, evaluations=found.evaluations, skipped=found.skipped)

    table, best = compare_models(config, compare_one, progress, command)
    return Comparison(
        rows=tuple(best.rows),
        results=best.results,
        out=config.out,
        models=table,
        evaluations=best.evaluations,
        skipped=best.skipped,
    )


def _compare_prepared(
    config: CompareConfig,
    experiment: Experiment,
    progress: Progress,
    command: str,
    *,
    tolerated: tuple[type[UserError], ...] = (TrainingError,),
) -> Comparison:
    """Compare methods on one prepared model.

    Args:
        tolerated: errors of one method after which the others are still compared.
    """
    seeds = {name: _seeds(config, name, experiment) for name in config.methods}
    entries = [(name, seed) for name in config.methods for seed in seeds[name]]
    results: dict[str, dict[int, EvalResult]] = {}
    runs: dict[str, list[checkpoint.Run]] = {}
    failure: UserError | None = None
    skipped: dict[str, str] = {}
    for number, (name, seed) in enumerate(entries, start=1):
        progress.note(f"{number}/{len(entries)} {name}" + (f", seed {seed}" if len(seeds[name]) > 1 else ""))
        try:
            run = run_of_comparison(config, name, seed, experiment, progress, command)
        except tolerated as error:  # the others are still worth comparing
            progress.warn(f"{name} is skipped: {error}")
            failure = error
            skipped.setdefault(name, str(error))
            continue
        runs.setdefault(name, []).append(run)
        shared = config.seeds[0]  # all evaluations resample the same images, so that seeds and methods compare
        answering = Predictions(run, experiment, progress)
        split = scored_split(experiment.dataset)[0]
        unseen = measure_novel(answering, experiment, split, progress)
        unknown = measure_unknown(answering, experiment, split, progress)
        with exclusive(run.folder / "eval"):
            result = evaluate_prepared(
                run,
                answering,
                experiment,
                run.folder / "eval",
                seed=shared,
                progress=progress,
                command=command,
                findings=Findings(unseen=unseen, unknown=unknown),
            )
        results.setdefault(name, {})[seed] = result
    results = {name: found for name, found in results.items() if len(found) == len(seeds[name])}
    if failure is not None and not results:
        raise failure
    rows = tuple(_comparison_row(name, runs[name], results[name]) for name in results)
    pairwise = pairwise_tests(results)
    first = {name: by_seed[seeds[name][0]] for name, by_seed in results.items()}
    if distributed.is_main():
        remove_stray_temporaries(config.out)
        write_manifest(experiment.whole, config.out / "manifest.csv")
        report.write_comparison(
            rows,
            first,
            config.out,
            facts=shared_facts(experiment, config.seeds[0]),
            command=command,
            load_thumbnail=thumbnails(experiment.dataset),
            pairwise=pairwise,
            reports={
                name: {run.card.seed: run.folder / "eval" / "report.html" for run in runs[name]} for name in results
            },
        )
    if few := too_few_images(experiment.dataset.counts()["val"]):
        progress.warn(few)
    return Comparison(rows=rows, results=first, out=config.out, pairwise=pairwise, evaluations=results, skipped=skipped)


def _seeds(config: CompareConfig, name: str, experiment: Experiment) -> tuple[int, ...]:
    """Seeds of a method's runs; one run where nothing is trained, since all would be the same."""
    train_config = _train_config(config, name, config.seeds[0], experiment)
    return config.seeds if method_class(train_config.method, train_config).has_weights else (0,)


def run_of_comparison(
    config: CompareConfig, name: str, seed: int, experiment: Experiment, progress: Progress, command: str
) -> checkpoint.Run:
    """The run of one compared method and seed: reused where it is finished, continued where it was begun, else trained.

    A method that starts from a run gets the comparison's own with the same seed, which is trained first if need be;
    without --refit where it is judged by the validation images itself.
    """
    train_config = _train_config(config, name, seed, experiment)
    combining = method_class(train_config.method, train_config)
    judged_by_val = config.refit is True and not combining.refits
    of_source = dataclasses.replace(config, refit=False, out=config.out / "no-refit") if judged_by_val else config
    if combining.starts_from is not None and train_config.start_from is None:
        source = run_of_comparison(of_source, combining.starts_from, seed, experiment, progress, command)
        train_config = dataclasses.replace(train_config, start_from=source.folder)
    if combining.combines and not combining.chooses_members:
        members = [
            str(run_of_comparison(of_source, member, seed, experiment, progress, command).folder)
            if names_method(member)
            else member
            for member in member_names(train_config, combining)
        ]
        train_config = dataclasses.replace(train_config, members=tuple(members))
    folder = config.out / "runs" / (name if seed == 0 else f"{name}-seed-{seed}")
    with exclusive(folder):
        return finished_or_trained(train_config, folder, experiment, progress, command)


def _train_config(config: CompareConfig, name: str, seed: int, experiment: Experiment | None = None) -> TrainConfig:
    """One method's config: what the comparison gives, then the preset, then the budget.

    Args:
        experiment: needed by the budget "small" alone.
    """
    train_config = apply_preset(
        TrainConfig(
            data=config.data,
            backbone=config.backbone,
            method=name,
            lora=config.lora,
            optimizer=config.optimizer,
            augmentation=config.augmentation,
            engine=config.engine,
            start_from=config.start_from,
            shots=next(iter(config.shots_compared), None),
            members=config.members,
            budget=config.budget if config.budget in ("seconds", "minutes", "hours") else None,
            features=config.features,
            refit=config.refit,
            hold_out=config.hold_out,
            seed=seed,
        )
    )
    method = method_class(train_config.method, train_config)
    if config.budget != "small" or method.starts_from is not None or method.reads(train_config) != "image":
        return train_config
    assert experiment is not None
    optimizer, augmentation = train_config.optimizer, train_config.augmentation
    if config.optimizer.epochs is None:
        optimizer = dataclasses.replace(optimizer, epochs=SMALL_EPOCHS)
    if config.augmentation.train_image_size is None and (side := small_views(experiment.model.backbone)) is not None:
        augmentation = dataclasses.replace(augmentation, train_image_size=side)
    return dataclasses.replace(train_config, optimizer=optimizer, augmentation=augmentation)


def _comparison_row(name: str, runs: Sequence[checkpoint.Run], results: Mapping[int, EvalResult]) -> ComparisonRow:
    card = runs[0].card
    unseen = [result.findings.unseen for result in results.values()]
    row = comparison_row(
        name,
        card.method,
        results,
        trainable_params=card.trainable_params,
        trainable_fraction=card.trainable_fraction,
        peak_memory_bytes=[run.card.peak_memory_bytes for run in runs],
        train_seconds=[run.card.train_seconds for run in runs],
        note=UNSEEN_NOTE if any(found is not None and found.falls_back for found in unseen) else "",
    )
    measured = [found.finetuned for found in unseen if found is not None]
    return dataclasses.replace(row, unseen=mean_of(measured) if measured else None)
