"""Work that the tests are spared: waiting for the disk, rendering plots, starting workers, reading the vocabulary.

Run as a program it is the command line of clip-har without that work.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from open_clip import SimpleTokenizer

BUILT = 2
"""Figures of each kind that a test builds: a comparison of all methods would build a hundred that differ in little."""


def spare_disk(patch: pytest.MonkeyPatch) -> None:
    """Leave it to the system when it writes files to the disk: no test cuts the power."""
    patch.setattr(os, "fsync", lambda _descriptor: None)


def spare_pixels(patch: pytest.MonkeyPatch) -> None:
    """Build the first figures of each kind in a test but render none, which is most of an evaluation's time here."""
    from clip_har.report import comparison_plots, few_shot_plots, finding_plots, plots, unknown_plot
    from clip_har.report.style import Plot

    asked: Counter[tuple[str, str]] = Counter()

    def built(draw: Callable[[], Any], *, name: str, title: str, description: str, for_page: bool = True) -> Plot:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        asked[test, name] += 1
        if asked[test, name] <= BUILT:
            draw()
        svg = f'<svg id="{name}"><title>{title}</title></svg>' if for_page else ""
        return Plot(png=b"\x89PNG", svg=svg, width=100, description=description)

    for module in (comparison_plots, few_shot_plots, finding_plots, plots, unknown_plot):
        patch.setattr(module, "render", built)


def spare_workers(patch: pytest.MonkeyPatch) -> None:
    """Decode in the process itself unless a test asks for workers: to start and end them takes longer than its images.

    They are forks of a process that has imported everything.
    """
    from clip_har.images import workers

    patch.setattr(workers, "_cores", lambda: 0)


def read_vocabulary_once(patch: pytest.MonkeyPatch) -> None:
    """Let tokenizers share their 49408 words, which take longer to read than all else of a tiny model."""
    read = SimpleTokenizer.__init__

    @functools.cache
    def first(*arguments: object, **options: object) -> dict[str, Any]:
        tokenizer = object.__new__(SimpleTokenizer)
        read(tokenizer, *arguments, **options)
        attributes: dict[str, Any] = vars(tokenizer)
        return attributes

    def shared(self: SimpleTokenizer, *arguments: Any, **options: Any) -> None:
        vars(self).update(first(*arguments, **options))

    patch.setattr(SimpleTokenizer, "__init__", shared)


def main() -> int:
    from clip_har import cli

    patch = pytest.MonkeyPatch()
    spare_disk(patch)
    spare_pixels(patch)
    spare_workers(patch)
    read_vocabulary_once(patch)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
