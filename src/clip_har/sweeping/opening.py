"""Opening a sweep: its settings are checked, the images are encoded, and the study is created or continued."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import TYPE_CHECKING

from clip_har import distributed, tracking
from clip_har.config import Choices, SweepConfig, deciding_settings, parse_search, validate
from clip_har.errors import ConfigError
from clip_har.progress import Progress
from clip_har.sweeping.space import check_space, trial_config
from clip_har.sweeping.storage import check_folder
from clip_har.sweeping.trial import Experiments

if TYPE_CHECKING:
    from clip_har.sweeping.study import Study


def check_sweep(config: SweepConfig) -> None:
    """Refuse a sweep that cannot work, before anything is loaded.

    Raises:
        UserError: settings, the search space or the folder cannot be used; a package is missing.
    """
    validate(config)
    fixed = config.fixed
    check_space(parse_search(config.search, fixed), fixed)
    tracking.require(fixed.engine)
    _require("optuna", "clip-har[sweep]", "clip-har sweep")
    if config.search_engine == "ray":
        _require("ray", "clip-har[ray]", "--engine ray")
    if config.search_engine == "ray" and config.jobs > 1:
        raise ConfigError("--jobs is for --engine optuna: Ray starts its own workers", remedy="Remove --jobs.")
    if distributed.launched():
        raise ConfigError(
            "A sweep is not started by torchrun or accelerate launch: each trial trains in one process",
            remedy="Run clip-har sweep itself, several times or with --jobs, for several trials at the same time.",
        )
    check_folder(config)


def open_sweep(config: SweepConfig, progress: Progress) -> tuple[Study, Experiments]:
    """The study of a checked sweep, and its dataset with the images encoded.

    Raises:
        UserError: data or model cannot be used; the study is damaged, or was made with other data or settings.
    """
    from clip_har.sweeping.study import Study

    search, fixed = parse_search(config.search, config.fixed), config.fixed
    experiments = Experiments(config, progress)
    models = search.get("model")
    first = fixed
    if isinstance(models, Choices):
        first = trial_config({"model": models.values[0]}, fixed)
    experiment = experiments.of(trial_config({}, first))
    facts = {
        **deciding_settings(fixed),
        **{f"[search] {name}": dataclasses.asdict(searched) for name, searched in search.items()},
        **{key: getattr(config, key) for key in ("metric", "sampler", "pruner")},
        "images": experiment.whole.manifest_hash(),
        "weights": experiment.protocol.model,
    }
    return Study(config, search, facts), experiments


def _require(package: str, extra: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{what} requires the package {package}, which is not installed", remedy=f"Run: pip install '{extra}'"
        )
