"""How progress looks: bars in a terminal, a line now and then elsewhere. All of it goes to standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import ProgressColumn, Task, TaskID
from rich.text import Text

from clip_har.progress import Bar
from clip_har.shown_text import shown

LINE_EVERY = 30.0
"""Seconds between two lines on a running job where there is no terminal to draw a bar in."""
MIN_BAR, MAX_BAR = 6, 30
_KEPT_LONGEST = ("count", "left", "val", "epoch", "loss", "candidate", "elapsed", "zero_shot", "rate")
"""What is left out last where a terminal is narrow."""


class ConsoleProgress:
    """`progress.Progress` on standard error: bars in a terminal; elsewhere, as in a log file, a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self._console.print(Text(shown(text)))

    def warn(self, text: str) -> None:
        self._console.print(Text("warning: ", style="bold yellow") + Text(shown(text)))

    @contextmanager
    def bar(self, description: str, *, total: int | None, unit: str) -> Iterator[Bar]:
        if not self._console.is_terminal:
            lines = _LinesBar(self.note, description, total=total, unit=unit)
            yield lines
            lines.close()
            return
        drawn = RichProgress(_Line(unit, self._console), console=self._console, expand=True)
        with drawn:
            yield _ConsoleBar(drawn, drawn.add_task(shown(description), total=total, fields={}))


class _ConsoleBar:
    def __init__(self, drawn: RichProgress, task: TaskID) -> None:
        self._drawn = drawn
        self._task = task
        self._fields: dict[str, str] = {}

    def advance(self, count: int = 1, **fields: str) -> None:
        self._fields.update(fields)
        self._drawn.update(self._task, advance=count, fields=dict(self._fields))


class _Line(ProgressColumn):
    """A task as one line that fits the terminal."""

    def __init__(self, unit: str, console: Console) -> None:
        super().__init__()
        self._unit = unit
        self._console = console

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return bar_line(
            task.description,
            done=int(task.completed),
            total=None if task.total is None else int(task.total),
            unit=self._unit,
            seconds=task.finished_time if task.finished_time is not None else task.elapsed or 0.0,
            left=None if task.finished else task.time_remaining,
            rate=speed,
            fields=task.fields["fields"],
            width=self._console.width,
        )


def bar_line(
    description: str,
    *,
    done: int,
    total: int | None,
    unit: str,
    seconds: float,
    left: float | None,
    rate: float | None,
    fields: Mapping[str, str],
    width: int,
) -> Text:
    """One job's progress in at most `width` columns; what matters less is left out first, whole.

    Args:
        total: None where it is not known; there is no bar then.
        seconds: since it began.
        left: seconds to go, None where not known.
        rate: units per second, None where not known.
        fields: what is said beside it, such as the loss.
    """
    parts = {
        "count": f"{done:,}" if total is None else f"{done:,}/{total:,}",
        "left": "" if left is None else f"{_clock_text(left)} left",
        **{name: _said({name: value}) for name, value in fields.items()},
        "rate": f"{rate:,.0f} {unit}/s" if rate else unit,
        "elapsed": f"{_clock_text(seconds)} elapsed",
    }
    order = [name for name in dict.fromkeys((*_KEPT_LONGEST, *parts)) if parts.get(name)]
    room = width - cell_len(description) - MIN_BAR - 1
    chosen: set[str] = set()
    for name in order:
        needed = cell_len(parts[name]) + 2
        if needed > room and chosen:
            break
        chosen.add(name)
        room -= needed
    kept = [text for name, text in parts.items() if name in chosen]
    line = Text(description, no_wrap=True, overflow="ellipsis")
    if total is not None:
        bar = max(0, min(MAX_BAR, MIN_BAR + room))
        filled = bar if total <= 0 else round(bar * min(1.0, done / total))
        line.append(" " + "━" * filled, style="green" if done >= total else "magenta")
        line.append("━" * (bar - filled), style="bright_black")
    line.append("".join(f"  {text}" for text in kept))
    return line


class _LinesBar:
    """A job's progress as lines: one every `LINE_EVERY` seconds and, if there was one, a last one."""

    def __init__(
        self,
        write: Callable[[str], None],
        description: str,
        *,
        total: int | None,
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
        left = 0.0 if self._total is None else seconds / max(done, 1) * (self._total - self._done)
        of = "" if self._total is None else f"/{self._total:,}"
        times = f"{_clock_text(seconds)}, about {_clock_text(left)} left" if left >= 1 else _clock_text(seconds)
        parts = (f"{self._done:,}{of} {self._unit}", f"({times})", _said(self._fields))
        self._write(f"{self._description} " + "  ".join(part for part in parts if part))


def _said(fields: Mapping[str, str]) -> str:
    return "  ".join(f"{name.replace('_', '-')} {value}" for name, value in fields.items())


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
