"""`prompts`: what the wording of the classes changes for zero-shot, on the validation images and never on test.

The sentences themselves are in prompts.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from clip_har import checkpoint
from clip_har.config import PromptsConfig, validate
from clip_har.csv_cells import csv_text
from clip_har.errors import ConfigError
from clip_har.evaluation import compute_metrics, mcnemar_p
from clip_har.evaluation.findings import PromptScore, PromptTrial
from clip_har.experiment.predictions import is_correct
from clip_har.experiment.setup import Experiment, prepare
from clip_har.experiment.zero_shot_model import embed_captions
from clip_har.files import write_atomically
from clip_har.methods.zero_shot import ZeroShotClassifier
from clip_har.progress import SILENT, Progress
from clip_har.prompts import TEMPLATE_SETS, filled, resolve_phrases, resolve_templates
from clip_har.text_tower import mean_prompts

DEFAULT = ("actions", "names")
_FOR_NAMES = ("single", "actions", "ucf101", "bare")
_FOR_PHRASES = ("bare", "whole")


def try_prompts(config: PromptsConfig, *, progress: Progress = SILENT) -> tuple[PromptTrial, Path]:
    """Score template sets and class descriptions on validation; write prompts.json and prompts.csv.

    Returns:
        The scores, and the folder of the files.

    Raises:
        UserError: settings, data or model cannot be used.
    """
    validate(config)
    experiment = prepare(
        config.data,
        dataclasses.replace(config.backbone, templates=(), phrasings=None),
        out=config.out,
        progress=progress,
        for_training=False,
        encoded=("val",),
    )
    classes = experiment.dataset.classes
    phrases = {"names": resolve_phrases("names", classes)}
    for given in dict.fromkeys(["har", config.backbone.phrasings or "names"]):
        try:
            phrases.setdefault(given, resolve_phrases(given, classes))
        except ConfigError:
            if given == config.backbone.phrasings:
                raise
    trial = _trial(experiment, list(_candidates(config, phrases)), phrases, config.seed)
    checkpoint.write_json(config.out / "prompts.json", dataclasses.asdict(trial))
    write_atomically(config.out / "prompts.csv", _csv(trial))
    return trial, config.out


def _candidates(
    config: PromptsConfig, phrases: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, Sequence[str], str]]:
    """Name of a template set, its templates, and the class descriptions to insert."""
    for phrasings in phrases:
        for name in _FOR_NAMES if phrasings == "names" else _FOR_PHRASES:
            yield name, TEMPLATE_SETS[name], phrasings
        if config.backbone.templates:
            yield "given", resolve_templates(config.backbone.templates), phrasings


def _trial(
    experiment: Experiment,
    candidates: Sequence[tuple[str, Sequence[str], str]],
    phrases: Mapping[str, Mapping[str, str]],
    seed: int,
) -> PromptTrial:
    images = experiment.images("val")
    targets, classes = images.labels_N.numpy(), experiment.dataset.classes
    scale = experiment.model.backbone.info.logit_scale

    def answers(templates: Sequence[str], phrasings: str) -> Tensor:
        captions_CTD = embed_captions(experiment.model.store, [phrases[phrasings][name] for name in classes], templates)
        prompts_CD = mean_prompts(captions_CTD)
        return ZeroShotClassifier(prompts_CD, scale).probabilities(images)

    default_N = is_correct(answers(TEMPLATE_SETS[DEFAULT[0]], DEFAULT[1]).numpy(), targets)
    scores = []
    for name, templates, phrasings in candidates:
        probabilities_NC = answers(templates, phrasings).numpy()
        metrics = compute_metrics(probabilities_NC, targets, classes=classes, seed=seed)
        right_N = is_correct(probabilities_NC, targets)
        scores.append(
            PromptScore(
                templates=name,
                phrasings=phrasings,
                sentences=len(templates),
                example=filled(phrases[phrasings][classes[0]], templates)[0],
                accuracy=metrics.accuracy,
                accuracy_ci95=metrics.accuracy_ci95,
                macro_f1=metrics.macro_f1,
                mcnemar_p=None if (name, phrasings) == DEFAULT else mcnemar_p(default_N, right_N),
                recall=tuple(entry.recall for entry in metrics.per_class),
            )
        )
    default = next(score for score in scores if (score.templates, score.phrasings) == DEFAULT)
    return PromptTrial(
        images=len(targets),
        classes=classes,
        default=default,
        scores=tuple(sorted(scores, key=lambda score: -score.accuracy)),
        phrases={name: dict(wording) for name, wording in phrases.items()},
    )


def _csv(trial: PromptTrial) -> str:
    """A row per wording, with the recall of each class."""
    header = ["templates", "phrasings", "sentences", "accuracy", "ci95_low", "ci95_high", "macro_f1", "mcnemar_p"]
    rows = []
    for score in trial.scores:
        p = "" if score.mcnemar_p is None else score.mcnemar_p
        figures = (score.accuracy, *score.accuracy_ci95, score.macro_f1, p, *score.recall)
        rows.append((score.templates, score.phrasings, score.sentences, *figures))
    return csv_text([*header, *(f"recall {name}" for name in trial.classes)], rows)
