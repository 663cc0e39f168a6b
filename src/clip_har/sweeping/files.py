"""The files of a sweep: trials.csv, sweep.json, and best.toml, which clip-har train reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_har.config import DataConfig, TrainConfig, deciding_settings, to_flat_json
from clip_har.csv_cells import csv_text
from clip_har.evaluation.sweep import SweepTable
from clip_har.files import write_atomically

BEST_FILE, TABLE_FILE, JSON_FILE = "best.toml", "trials.csv", "sweep.json"
_OWN = ("accuracy", "macro_f1", "loss", "epochs", "seconds", "note")


def write_table(table: SweepTable, out: Path) -> None:
    """Write trials.csv and sweep.json."""
    names = list(dict.fromkeys(name for trial in table.trials for name in trial.params))
    header = ["trial", "state", "score", *_OWN, *names]
    rows = [
        [trial.number, trial.state, trial.score, *(getattr(trial, key) for key in _OWN)]
        + [_cell(trial.params.get(name)) for name in names]
        for trial in table.trials
    ]
    write_atomically(out / TABLE_FILE, csv_text(header, rows))
    write_atomically(out / JSON_FILE, json.dumps(table.to_json(), indent=2, ensure_ascii=False) + "\n")


def write_best(config: TrainConfig, out: Path, *, about: str) -> None:
    """Write a config as best.toml: what differs from train's defaults.

    Args:
        about: a line on where it is from.
    """
    write_atomically(out / BEST_FILE, "\n".join([f"# {about}", *_toml_lines(config)]) + "\n")


def _toml_lines(config: TrainConfig) -> Iterator[str]:
    empty = to_flat_json(TrainConfig(data=DataConfig(data=Path())))
    flat = {"data": str(config.data.data), **deciding_settings(config)}
    for key, value in flat.items():
        if value is not None and (value != empty[key] or key in ("data", "method", "seed")):
            yield f"{key} = {_toml(value)}"


def _toml(value: Any) -> str:
    """A value as TOML writes it: JSON's form of texts, numbers, booleans and lists, but for two characters."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value
