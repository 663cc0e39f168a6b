"""`evaluate`: a run and the zero-shot baseline on the test images, each read once."""

from __future__ import annotations

from pathlib import Path

from clip_har import checkpoint, distributed
from clip_har.audit.records import Check
from clip_har.config import EvaluateConfig, validate
from clip_har.dataset import SPLITS, SplitName
from clip_har.errors import ConfigError
from clip_har.evaluation import EvalResult
from clip_har.evaluation.findings import Findings, Robustness
from clip_har.experiment.confidence import too_few_images
from clip_har.experiment.evaluation import evaluate_prepared
from clip_har.experiment.explanations import explain_dataset
from clip_har.experiment.novel_classes import measure_novel
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.report_inputs import read_checks
from clip_har.experiment.robustness import measure_robustness, measure_shift
from clip_har.experiment.setup import Experiment, prepare, scored_split
from clip_har.experiment.unknown import measure_unknown
from clip_har.experiment.wise_ft_curve import Outside, measure_wise_curve
from clip_har.locking import exclusive
from clip_har.progress import SILENT, Progress


def evaluate(config: EvaluateConfig, *, progress: Progress = SILENT, command: str = "") -> tuple[EvalResult, Path]:
    """Evaluate a run and the zero-shot baseline, or the baseline alone, and write tables, plots and the report.

    Returns:
        What was measured, and the folder the files are in.

    Raises:
        UserError: data, model or run folder cannot be used.
    """
    validate(config)
    distributed.initialise(config.backbone.device)
    run = checkpoint.load_run(config.checkpoint) if config.checkpoint else None
    out = config.out or (run.folder / "eval" if run else Path("eval"))
    if config.explain and run is None:
        raise ConfigError("--explain requires a run", remedy="Pass one with --checkpoint.")
    checks = read_checks(config.audit) if config.audit else ()
    with exclusive(out):
        return _evaluate(config, run, out, checks, progress, command), out


def _evaluate(
    config: EvaluateConfig,
    run: checkpoint.Run | None,
    out: Path,
    checks: tuple[Check, ...],
    progress: Progress,
    command: str,
) -> EvalResult:
    experiment = prepare(
        config.data,
        config.backbone,
        out=out,
        progress=progress,
        run=run,
        for_training=False,
        encoded=SPLITS if config.explain else None,  # the nearest training images are shown
    )
    answering = Predictions(run, experiment, progress)  # one for all: it loads the run's weights
    findings = _findings(config, answering, experiment, scored_split(experiment.dataset)[0], out, progress)
    explained = None
    if config.explain and run is not None:
        explained = explain_dataset(
            run, answering, experiment, out, limit=config.explain, seed=config.seed, progress=progress
        )
    result = evaluate_prepared(
        run,
        answering,
        experiment,
        out,
        seed=config.seed,
        progress=progress,
        command=command,
        findings=findings,
        explained=explained,
        checks=checks,
    )
    confidence = result.confidence_finetuned or result.confidence_baseline
    if confidence is not None and (few := too_few_images(confidence.images)):
        progress.warn(few)
    return result


def _findings(
    config: EvaluateConfig,
    answering: Predictions,
    experiment: Experiment,
    split: SplitName,
    out: Path,
    progress: Progress,
) -> Findings:
    """Measure what the configuration asks for; robustness is also written to robustness.json in `out`.

    Raises:
        DataError: the other dataset cannot be used.
    """
    robustness = _robustness(config, answering, experiment, split, out, progress) if config.robustness else None
    shift = None
    if config.shift is not None:
        shift = measure_shift(answering, experiment, config.shift, seed=config.seed, progress=progress)
    outside = Outside(
        kinds=config.corruptions if config.robustness else (),
        severities=config.severities,
        limit=config.robustness_images,
        shift=config.shift,
        seed=config.seed,
    )
    return Findings(
        robustness=robustness,
        shift=shift,
        unseen=measure_novel(answering, experiment, split, progress),
        unknown=measure_unknown(answering, experiment, split, progress),
        wise_curve=measure_wise_curve(answering.run, experiment, split, outside, progress),
    )


def _robustness(
    config: EvaluateConfig,
    answering: Predictions,
    experiment: Experiment,
    split: SplitName,
    out: Path,
    progress: Progress,
) -> Robustness:
    found = measure_robustness(
        answering,
        experiment,
        split,
        kinds=config.corruptions,
        severities=config.severities,
        limit=config.robustness_images,
        seed=config.seed,
        progress=progress,
    )
    if distributed.is_main():
        checkpoint.write_json(out / "robustness.json", Findings(robustness=found).to_json()["robustness"])
    return found
