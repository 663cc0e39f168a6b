"""A file of predictions that is written as they come and continued after a kill: CSV, JSON lines or Parquet.

Until it is finished a folder beside it holds a note of how much of it is valid and what made it, and the lock of the
process that writes. Parquet cannot be continued, so its rows wait there as JSON lines.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from clip_har.checkpoint import Run
from clip_har.config import PredictConfig
from clip_har.errors import ConfigError, RunError
from clip_har.experiment.prediction_rows import JsonRows, KnownRow, RowFormat, csv_rows, whole_rows
from clip_har.experiment.prediction_table import write_parquet
from clip_har.images.parquet import load_pyarrow
from clip_har.images.remote import RemoteImage
from clip_har.integrity import DamagedError, read_sealed_json, write_sealed_json
from clip_har.locking import exclusive
from clip_har.predict import Prediction, PredictionCounts

SUFFIXES = (".csv", ".jsonl", ".parquet")
SAVE_EVERY = 1.0
"""Seconds between two notes: what a kill costs at most."""
_ROWS_VERSION = 2
_START_AGAIN = "Pass --overwrite to start it again, or another --out."


def kind_of(path: Path) -> str:
    """The suffix that says in which format a file is written.

    Raises:
        ConfigError: it is not known.
        DataError: the format needs a package that is not installed.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ConfigError(
            f"--out {path} is none of {', '.join(SUFFIXES)}", remedy="Pass a name with one of these endings."
        )
    if kind == ".parquet":
        load_pyarrow(path, writing=True)
    return kind


def state_of(path: Path) -> Path:
    """The folder next to a file that exists while it is unfinished."""
    return path.with_name(f".{path.name}.unfinished")


class PredictionFile:
    """The file at `path`, opened for this run and these options; a context.

    Raises:
        ConfigError, DataError: as for `kind_of`; or the file is finished, another run's, made with other options, or
            being written by another process.
    """

    def __init__(self, path: Path, run: Run, config: PredictConfig) -> None:
        self.counts = PredictionCounts()
        self._path = path
        self._kind = kind_of(path)
        self._csv = csv_rows(run, config)
        self._format: RowFormat = self._csv if self._kind == ".csv" else JsonRows()
        self._state = state_of(path)
        self._note = self._state / "note.json"
        self._rows = self._state / "rows.jsonl" if self._kind == ".parquet" else path
        self._made_by = _made_by(run, config)
        self._overwrite = config.overwrite
        self._batch_size, self._in_batch = config.batch_size, 0
        self._open = ExitStack()

    def __enter__(self) -> PredictionFile:
        with ExitStack() as opening:
            opening.callback(self._remove_state)
            try:
                opening.enter_context(exclusive(self._state, for_weights=False))
            except RunError as error:
                raise ConfigError(
                    f"Another process is writing {self._path}: {error.what}",
                    remedy="Wait for it, or pass another --out.",
                ) from error
            self._valid, self._saved = self._start(), time.monotonic()
            self._stream: BinaryIO = opening.enter_context(self._rows.open("r+b" if self._valid else "wb"))
            self._stream.truncate(self._valid)
            self._stream.seek(self._valid)
            if not self._valid:
                self._valid = self._stream.write(self._format.header)
                self._stream.flush()
            self._written = self._valid
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._open:
            if not self._stream.closed:
                self._save()

    def remaining(
        self,
        images: Iterable[Path | RemoteImage],
        *,
        known: Callable[[KnownRow], None] = lambda _: None,
        changed: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Path | RemoteImage]:
        """The images that have no row yet; each occurrence of an image has one.

        They are compared with the rows one by one. Only if they are others than before, as of a folder that was
        changed, the names in the rows after the first difference are held in memory.

        Args:
            known: gets each row that an earlier call wrote.
            changed: gets the number of rows that are no longer in the order of the images.
        """
        left, ahead = iter(images), list[Path | RemoteImage]()
        others: Counter[str] = Counter()
        for row in self._earlier():
            self._count(row)
            known(row)
            if not others:
                ahead = list(islice(left, 1))
                if ahead and str(ahead[0]) == row.image:
                    ahead = []
                    continue
            others[row.image] += 1
        self.counts.before = self.counts.answered + self.counts.unreadable
        if others:
            changed(others.total())
        return (image for image in chain(ahead, left) if not _taken(str(image), others))

    def add(self, prediction: Prediction) -> None:
        """Write one prediction. Only whole batches count as written: continued ones round as others do."""
        self._count(KnownRow.of(prediction))
        self._written += self._stream.write(self._format.row(prediction))
        self._in_batch = (self._in_batch + 1) % self._batch_size
        if self._in_batch == 0:
            self._valid = self._written
            if time.monotonic() - self._saved >= SAVE_EVERY:
                self._save()

    def finish(self) -> None:
        """Make the file whole; it is not continued after this."""
        self._valid = self._written
        self._save()
        self._stream.close()
        if self._kind == ".parquet":
            whole = self._state / "whole.parquet"
            write_parquet(self._rows, self._csv.columns, whole)
            whole.replace(self._path)
        self._note.unlink()
        self._remove_rows_of_parquet()

    def _remove_rows_of_parquet(self) -> None:
        if self._kind == ".parquet":
            self._rows.unlink(missing_ok=True)
            (self._state / "whole.parquet").unlink(missing_ok=True)

    def _remove_state(self) -> None:
        with suppress(OSError):  # not empty: the file is to be continued
            self._state.rmdir()

    def _start(self) -> int:
        """Begin the file, or find how much of it is valid: bytes. The note is there before anything of the file."""
        try:
            note = read_sealed_json(self._note)
        except FileNotFoundError:
            self._remove_rows_of_parquet()  # it was killed between the end and removing them
            if self._path.exists() and not self._overwrite:
                raise ConfigError(
                    f"--out {self._path} exists", remedy="Pass --overwrite to replace it, or another --out."
                ) from None
            return self._begin()
        except DamagedError as error:
            if self._overwrite:
                return self._begin()
            raise ConfigError(
                f"{self._note} is damaged, so {self._path} cannot be continued", remedy=_START_AGAIN
            ) from error
        if not self._rows.is_file():
            return self._begin()  # the file was removed: there is nothing to continue
        if note["made_by"] == self._made_by:
            return self._valid_bytes(int(note["bytes"]))
        if self._overwrite:
            return self._begin()
        before, now = _differences(note["made_by"], self._made_by)
        raise ConfigError(f"{self._path} was started with {before}, not with {now}", remedy=_START_AGAIN)

    def _begin(self) -> int:
        self._write_note(0)
        return 0

    def _valid_bytes(self, noted: int) -> int:
        """The end of the rows that are whole: what the note says or, of a file that was cut off, of whole batches."""
        if self._rows.stat().st_size >= noted:
            return noted
        with self._rows.open("rb") as stream:
            sizes = (len(row) for row in whole_rows(stream, self._format))
            valid = sum(islice(sizes, 1 if self._format.header else 0))
            while len(batch := list(islice(sizes, self._batch_size))) == self._batch_size:
                valid += sum(batch)
        return valid

    def _write_note(self, valid: int) -> None:
        write_sealed_json(self._note, {"made_by": self._made_by, "bytes": valid})

    def _save(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._write_note(self._valid)
        self._saved = time.monotonic()

    def _count(self, row: KnownRow) -> None:
        self.counts.unreadable += row.unreadable
        self.counts.answered += not row.unreadable
        self.counts.unsure += row.unsure
        self.counts.unknown += row.unknown

    def _earlier(self) -> Iterator[KnownRow]:
        """What the valid rows say."""
        left = self._valid - len(self._format.header)
        with self._rows.open("rb") as stream:
            stream.seek(len(self._format.header))
            for number, row in enumerate(whole_rows(stream, self._format), start=1):
                left -= len(row)
                if left < 0:
                    break
                try:
                    known = self._format.known(row)
                except (ValueError, KeyError, TypeError) as error:
                    raise ConfigError(
                        f"Row {number} of {self._rows} is damaged",
                        remedy="Remove the file to start again, or pass another --out.",
                    ) from error
                yield known


def _taken(image: str, others: Counter[str]) -> bool:
    """Whether a row that was written is this image's; it counts for one occurrence."""
    if others[image] < 1:
        return False
    others[image] -= 1
    return True


def _made_by(run: Run, config: PredictConfig) -> dict[str, Any]:
    """What decides the predictions."""
    return {
        "version": _ROWS_VERSION,
        "method": run.card.method,
        "weights": run.weights_sha256(),
        "model": run.card.backbone.weights_hash,
        "classes": list(run.classes),
        "top": config.top,
        "coverage": config.coverage,
        "accuracy": config.accuracy,
        "abstain_below": config.abstain_below,
        "reject_unknown": config.reject_unknown,
        "precision": config.model.precision,
    }


_OPTIONS = ("top", "coverage", "accuracy", "abstain_below", "reject_unknown", "precision")


def _differences(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, str]:
    """How another command that began a file differs from this one, both as the end of a sentence."""
    if before.get("version") != now["version"]:
        return "another version of clip-har", "this one"
    for name, said in (("model", "another pretrained model"), ("method", f"a run of {before.get('method')}")):
        if before.get(name) != now[name]:
            return said, "a run of " + now["method"] if name == "method" else "that of this run"
    if (before.get("weights"), before.get("classes")) != (now["weights"], now["classes"]):
        return "another run", "this one"
    changed = [name for name in _OPTIONS if before.get(name) != now[name]]
    said_before, said_now = (
        " and ".join(
            f"no --{name.replace('_', '-')}" if made.get(name) is None else f"--{name.replace('_', '-')} {made[name]}"
            for name in changed
        )
        for made in (before, now)
    )
    return said_before, said_now
