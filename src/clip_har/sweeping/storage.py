"""The file of a study: Optuna's journal or an SQLite database, safe for several workers and for one that is killed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from clip_har.config import SweepConfig
from clip_har.errors import RunError
from clip_har.locking import WaitingLock

FILES = {"journal": "study.journal", "sqlite": "study.sqlite3"}
_WAIT_SECONDS = 60
"""How long SQLite waits for another writer."""


def study_file(config: SweepConfig) -> Path:
    """Where the study is."""
    return config.out / FILES[config.storage]


def check_folder(config: SweepConfig) -> None:
    """Refuse a folder with something else in it, before anything slow happens.

    Raises:
        RunError: --out is a file, has a study in the other kind of file, or trials without a study.
    """
    out, path = config.out, study_file(config)
    if out.exists() and not out.is_dir():
        raise RunError(f"--out {out} is a file", remedy="Pass a folder with --out.")
    for kind, name in FILES.items():
        if kind != config.storage and (out / name).is_file():
            raise RunError(f"{out} has a study in {name}", remedy=f"Pass --storage {kind}, or choose another --out.")
    if path.is_file():
        return
    if (out / "card.json").is_file() or (out / "config.json").is_file():
        raise RunError(f"{out} already contains a run", remedy="Choose another --out.")
    if (out / "trials").is_dir() and any((out / "trials").iterdir()):
        raise RunError(f"{out} has trials, but {path.name} is missing", remedy="Restore it, or choose another --out.")


def open_storage(config: SweepConfig) -> Any:
    """Optuna's storage on the study's file, made if it is missing.

    Raises:
        ValueError, SQLAlchemyError: it is damaged.
    """
    import optuna

    path = study_file(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    if config.storage == "sqlite":
        url = f"sqlite:///{path.resolve()}"
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _WAIT_SECONDS}})
    from optuna.storages.journal import JournalFileBackend

    lock = WaitingLock(config.out / ".journal.lock")  # Optuna's own waits for half a minute after a killed worker
    with lock:
        _end_last_line(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]


def _end_last_line(path: Path) -> None:
    """Cut off the half line that a killed worker leaves: what follows would be appended to it."""
    if not path.is_file():
        return
    with path.open("rb+") as stream:
        content = stream.read()
        if content and not content.endswith(b"\n"):
            stream.truncate(content.rfind(b"\n") + 1)
