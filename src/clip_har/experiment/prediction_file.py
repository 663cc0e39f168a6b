"""A file of predictions that is written as they come and continued after a kill: CSV, JSON lines or Parquet.

Until it is finished a folder beside it holds a note of how much of it is valid and what made it, and the lock of the
process that writes. Parquet cannot be continued, so its rows wait there as CSV.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from clip_har.checkpoint import Run
from clip_har.config import PredictConfig
from clip_har.csv_cells import csv_text, true_cell
from clip_har.errors import ConfigError, RunError
from clip_har.files import write_atomically
from clip_har.images.parquet import load_pyarrow
from clip_har.integrity import DamagedError, read_sealed_json, write_sealed_json
from clip_har.locking import exclusive
from clip_har.predict import Prediction, PredictionCounts

SUFFIXES = (".csv", ".jsonl", ".parquet")
SAVE_EVERY = 1.0
"""Seconds between two notes: what a kill costs at most."""
CHUNK = 65536
_TEXTS = ("image", "label", "possible", "warning", "error")


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
        self._classes = min(config.top, len(run.classes))
        self._state = path.with_name(f".{path.name}.unfinished")
        self._note = self._state / "note.json"
        self._rows = self._state / "rows.csv" if self._kind == ".parquet" else path
        self._made_by = _made_by(run, config)
        self._judges_unknown = config.reject_unknown is not None
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
                    remedy="Wait for it, or name another file.",
                ) from error
            self._valid, self._saved = self._start(), time.monotonic()
            self._written = self._valid
            self._done = set(self._count_rows())
            self.counts.before = self.counts.answered + self.counts.unreadable
            self._stream: BinaryIO = opening.enter_context(self._rows.open("r+b"))
            self._stream.truncate(self._valid)
            self._stream.seek(self._valid)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._open:
            if not self._stream.closed:
                self._save()

    def images(self) -> set[str]:
        """The names of the images that an earlier call answered."""
        return self._done

    def add(self, prediction: Prediction) -> None:
        """Write one prediction. Only whole batches count as written: continued ones round as others do."""
        self._count(prediction.error is not None, prediction.unsure, prediction.unknown)
        if self._kind == ".jsonl":
            line = json.dumps(prediction.to_json(), ensure_ascii=not _encodable(prediction.image)) + "\n"
        else:
            line = csv_text(self._cells(prediction), ())
        self._written += self._stream.write(line.encode(errors="surrogateescape"))
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
            self._convert()
        self._note.unlink(missing_ok=True)

    def _remove_state(self) -> None:
        with suppress(OSError):  # not empty: the file is to be continued
            self._state.rmdir()

    def _start(self) -> int:
        """Begin the file, or find how much of it is valid: bytes."""
        if not self._note.is_file():
            if self._path.exists():
                raise ConfigError(f"--out {self._path} exists", remedy="Name a new file, or remove that one.")
            header = b"" if self._kind == ".jsonl" else csv_text(self._columns(), ()).encode()
            write_atomically(self._rows, header)
            self._write_note(len(header))
            return len(header)
        try:
            note = read_sealed_json(self._note)
        except DamagedError as error:
            raise ConfigError(
                f"{self._note} is damaged, so {self._path} cannot be continued",
                remedy="Remove the file and that folder, and start again.",
            ) from error
        if note["made_by"] != self._made_by or not self._rows.is_file() or self._rows.stat().st_size < note["bytes"]:
            raise ConfigError(
                f"{self._path} was begun with another run or other options, or changed since",
                remedy=f"Name a new file, or remove it and {self._state}.",
            )
        return int(note["bytes"])

    def _write_note(self, valid: int) -> None:
        write_sealed_json(self._note, {"made_by": self._made_by, "bytes": valid})

    def _save(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._write_note(self._valid)
        self._saved = time.monotonic()

    def _count(self, unreadable: bool, unsure: bool, unknown: bool) -> None:
        self.counts.unreadable += unreadable
        self.counts.answered += not unreadable
        self.counts.unsure += unsure
        self.counts.unknown += unknown

    def _count_rows(self) -> Iterator[str]:
        for image, *marks in self._earlier():
            self._count(*marks)
            yield image

    def _earlier(self) -> Iterator[tuple[str, bool, bool, bool]]:
        """Image, whether it is unreadable, unsure, and unknown, of each valid row."""
        with self._rows.open("rb") as stream:
            text = stream.read(self._valid).decode(errors="surrogateescape")
        if self._kind == ".jsonl":
            for line in text.split("\n")[:-1]:
                row = json.loads(line)
                yield row["image"], "error" in row, row.get("unsure", False), row.get("unknown", False)
        else:
            for row in csv.DictReader(io.StringIO(text, newline="")):
                marks = (bool(row["error"]), row["unsure"] == "true", row.get("unknown") == "true")
                yield true_cell(row["image"]), *marks

    def _columns(self) -> tuple[str, ...]:
        ranked = [name for rank in range(1, self._classes + 1) for name in (f"label_{rank}", f"probability_{rank}")]
        asked = ("unknown",) if self._judges_unknown else ()
        known = ("image", "label", "probability", "confidence", "unsure", *asked, "possible", "warning", "error")
        return (*known, *ranked)

    def _cells(self, answer: Prediction) -> tuple[str, ...]:
        ranked = [cell for label, probability in answer.top for cell in (label, _number(probability))]
        cells = (
            answer.image,
            answer.label or "",
            _number(answer.probability),
            _number(answer.confidence),
            "true" if answer.unsure else "false",
            *(("true" if answer.unknown else "false",) if self._judges_unknown else ()),
            "|".join(answer.possible or ()),
            answer.warning or "",
            answer.error or "",
            *ranked,
        )
        return cells + ("",) * (len(self._columns()) - len(cells))

    def _convert(self) -> None:
        """Make the Parquet file of the rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {name: _kind_of(name) for name in self._columns()}
        schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in kinds.items()])
        temporary = self._path.with_name(f".{self._path.name}.unfinished.parquet")
        with (
            self._rows.open(encoding="utf-8", errors="surrogateescape", newline="") as stream,
            pq.ParquetWriter(temporary, schema) as writer,
        ):
            rows = csv.DictReader(stream)
            while chunk := [row for row, _ in zip(rows, range(CHUNK), strict=False)]:
                columns = {name: [_typed(row[name], kind) for row in chunk] for name, kind in kinds.items()}
                writer.write_table(pa.table(columns, schema=schema))
        temporary.replace(self._path)
        self._rows.unlink()


def _made_by(run: Run, config: PredictConfig) -> dict[str, Any]:
    """What decides the predictions."""
    return {
        "method": run.card.method,
        "weights": run.weights_sha256(),
        "model": run.card.backbone.weights_hash,
        "classes": list(run.classes),
        "top": config.top,
        "coverage": config.coverage,
        "accuracy": config.accuracy,
        "abstain_below": config.abstain_below,
        **({} if config.reject_unknown is None else {"reject_unknown": config.reject_unknown}),
        "precision": config.model.precision,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _kind_of(column: str) -> str:
    if column in ("unsure", "unknown"):
        return "bool_"
    return "string" if column in _TEXTS or column.startswith("label_") else "float64"


def _typed(cell: str, kind: str) -> str | float | bool | None:
    if not cell:
        return None
    if kind == "bool_":
        return cell == "true"
    return (
        float(cell) if kind == "float64" else true_cell(cell).encode(errors="surrogateescape").decode(errors="replace")
    )


def _encodable(text: str) -> bool:
    with suppress(UnicodeEncodeError):
        text.encode()
        return True
    return False
