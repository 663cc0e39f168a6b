"""A prediction as a row of CSV or JSON lines, and what a row says when it is read again.

Which file rows are written to, and how it is continued, is in prediction_file.py.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from clip_har.checkpoint import Run
from clip_har.config import PredictConfig
from clip_har.csv_cells import csv_text, true_cell
from clip_har.predict import Prediction


@dataclass(frozen=True, kw_only=True)
class KnownRow:
    """What was written of an image."""

    image: str
    label: str | None
    unsure: bool
    unknown: bool
    unreadable: bool

    @classmethod
    def of(cls, prediction: Prediction) -> KnownRow:
        """What will be written of it."""
        return cls(
            image=prediction.image,
            label=prediction.label,
            unsure=prediction.unsure,
            unknown=prediction.unknown,
            unreadable=prediction.error is not None,
        )


class RowFormat(Protocol):
    """How predictions are written one after another."""

    header: bytes

    def row(self, prediction: Prediction) -> bytes:
        """The row with the end of its line."""

    def known(self, row: bytes) -> KnownRow:
        """What a row says.

        Raises:
            ValueError, KeyError, TypeError: it is not a row.
        """

    def is_whole(self, row: bytes) -> bool:
        """Whether a row has its end."""


def whole_rows(stream: BinaryIO, rows: RowFormat) -> Iterator[bytes]:
    """The rows of a file, without a last one that is half-written; the header is one of them."""
    row = b""
    for line in stream:
        row += line
        if rows.is_whole(row):
            yield row
            row = b""


class JsonRows:
    """A JSON object a line."""

    header = b""

    def row(self, prediction: Prediction) -> bytes:
        line = json.dumps(prediction.to_json(), ensure_ascii=not _encodable(prediction.image))
        return f"{line}\n".encode(errors="surrogateescape")

    def known(self, row: bytes) -> KnownRow:
        said = json.loads(row)
        return KnownRow(
            image=said["image"],
            label=said.get("label"),
            unsure=said.get("unsure", False),
            unknown=said.get("unknown", False),
            unreadable="error" in said,
        )

    def is_whole(self, row: bytes) -> bool:
        return row.endswith(b"\n")


class CsvRows:
    """A table with a column for each of the most likely classes.

    Args:
        ranked: how many these are.
        judges_unknown: whether there is a column for images of none of the classes.
    """

    def __init__(self, *, ranked: int, judges_unknown: bool) -> None:
        self.columns = columns(ranked=ranked, judges_unknown=judges_unknown)
        self.header = csv_text(self.columns, ()).encode()
        self._judges_unknown = judges_unknown

    def row(self, prediction: Prediction) -> bytes:
        return csv_text(self._cells(prediction), ()).encode(errors="surrogateescape")

    def known(self, row: bytes) -> KnownRow:
        (cells,) = csv.reader(io.StringIO(row.decode(errors="surrogateescape"), newline=""))
        said = dict(zip(self.columns, cells, strict=True))
        return KnownRow(
            image=true_cell(said["image"]),
            label=true_cell(said["label"]) or None,
            unsure=said["unsure"] == "true",
            unknown=said.get("unknown") == "true",
            unreadable=bool(said["error"]),
        )

    def is_whole(self, row: bytes) -> bool:
        return row.endswith(b"\n") and row.count(b'"') % 2 == 0

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
        return cells + ("",) * (len(self.columns) - len(cells))


def columns(*, ranked: int, judges_unknown: bool) -> tuple[str, ...]:
    """The columns of a table of predictions; see `CsvRows`."""
    places = [name for rank in range(1, ranked + 1) for name in (f"label_{rank}", f"probability_{rank}")]
    asked = ("unknown",) if judges_unknown else ()
    known = ("image", "label", "probability", "confidence", "unsure", *asked, "possible", "warning", "error")
    return (*known, *places)


def csv_rows(run: Run, config: PredictConfig) -> CsvRows:
    """The table that a run and the options fill."""
    return CsvRows(ranked=min(config.top, len(run.classes)), judges_unknown=config.reject_unknown is not None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _encodable(text: str) -> bool:
    with suppress(UnicodeEncodeError):
        text.encode()
        return True
    return False
