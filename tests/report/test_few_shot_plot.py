"""The plot of accuracy by number of images: lines, bands, a logarithmic axis with a tick for each number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from clip_har.evaluation import ComparisonRow
from clip_har.evaluation.few_shot import FewShotTable, few_shot_table
from clip_har.report import few_shot_plots


def table_of(rows: list[ComparisonRow]) -> FewShotTable:
    by_shots = {
        shots: [replace(row, accuracy=row.accuracy - 0.05 / shots) for row in rows if (shots, row.name) != (1, "coop")]
        for shots in (16, 1, 4)
    }
    return few_shot_table(by_shots, zero_shot=None, split="test", images=500)


def test_a_line_with_a_band_for_each_method_and_one_for_zero_shot(twelve_rows: list[ComparisonRow]) -> None:
    table = table_of(twelve_rows)
    axes = few_shot_plots._draw(table).axes[0]
    lines = {str(line.get_label()): line for line in axes.lines}
    assert len(lines) == 12 and "zero-shot 58.0\u202f%" in lines
    assert axes.get_xscale() == "log" and [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "4", "16"]
    assert list(np.asarray(lines["CoOp"].get_xdata())) == [4, 16]
    lora = np.asarray(lines["LoRA"].get_ydata(), dtype=float)
    assert lora == pytest.approx([0.585, 0.6225, 0.635 - 0.05 / 16])
    bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
    assert len(bands) == 11
    heights = bands[1].get_paths()[0].vertices
    assert np.ptp(np.asarray(heights)[np.asarray(heights)[:, 0] == 4][:, 1]) == pytest.approx(0.02)
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == 12


def test_the_plot_is_rendered_for_page_and_file(twelve_rows: list[ComparisonRow]) -> None:
    plot = few_shot_plots.few_shot_plot(table_of(twelve_rows))
    assert plot.png.startswith(b"\x89PNG") and "training images per class" in plot.svg
    assert "11 methods at 1, 4, 16 training images per class" in plot.description
