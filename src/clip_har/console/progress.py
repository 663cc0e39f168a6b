"""How progress looks: bars in a terminal, a line now and then elsewhere. All of it goes to standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from clip_har.progress import Bar
from clip_har.shown_text import shown

LINE_EVERY = 30.0
"""Seconds between two lines on a running job where there is no terminal to draw a bar in."""


class ConsoleProgress:
    """`progress.Progress` on standard error: bars in a terminal; elsewhere, as in a log file, a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self._console.print(Text(shown(text)))

    def warn(self, text: str) -> None:
        self._console.print(Text("warning: ", style="bold yellow") + Text(shown(text)))

    @contextmanager
    def bar(self, description: str, *, total: int, unit: str) -> Iterator[Bar]:
        if not self._console.is_terminal:
            lines = _LinesBar(self.note, description, total=total, unit=unit)
            yield lines
            lines.close()
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            _Rate(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
        )
        drawn = RichProgress(*columns, console=self._console)
        with drawn:
            yield _ConsoleBar(drawn, drawn.add_task(escape(shown(description)), total=total, said=""))


class _ConsoleBar:
    def __init__(self, drawn: RichProgress, task: object) -> None:
        self._drawn = drawn
        self._task = task
        self._fields: dict[str, str] = {}

    def advance(self, count: int = 1, **fields: str) -> None:
        self._fields.update(fields)
        self._drawn.update(self._task, advance=count, said=escape(shown(_said(self._fields))))  # type: ignore[arg-type]


class _LinesBar:
    """A job's progress as lines: one every `LINE_EVERY` seconds and, if there was one, a last one."""

    def __init__(
        self,
        write: Callable[[str], None],
        description: str,
        *,
        total: int,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._description, self._total, self._unit, self._clock = write, description, total, unit, clock
        self._fields: dict[str, str] = {}
        self._done, self._done_at_first, self._done_at_line = 0, 0, 0
        self._started = self._written = clock()

    def advance(self, count: int = 1, **fields: str) -> None:
        self._fields.update(fields)
        self._done += count
        if self._clock() - self._started < 0.1:  # an earlier run did these, which says nothing of the rate
            self._done_at_first = self._done
        if self._clock() - self._written >= LINE_EVERY:
            self._line()

    def close(self) -> None:
        """Say how it ended, if anything was said of it."""
        if self._written > self._started and self._done > self._done_at_line:
            self._line()

    def _line(self) -> None:
        self._written, self._done_at_line = self._clock(), self._done
        seconds, done = self._written - self._started, self._done - self._done_at_first
        left = seconds / max(done, 1) * (self._total - self._done)
        times = f"{_clock_text(seconds)}, about {_clock_text(left)} left" if left >= 1 else _clock_text(seconds)
        parts = (f"{self._done:,}/{self._total:,} {self._unit}", f"({times})", _said(self._fields))
        self._write(f"{self._description} " + "  ".join(part for part in parts if part))


def _said(fields: Mapping[str, str]) -> str:
    return "  ".join(f"{name.replace('_', '-')} {value}" for name, value in fields.items())


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self._unit}/s" if speed else self._unit, style="cyan")
