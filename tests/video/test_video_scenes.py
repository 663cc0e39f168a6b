"""A generated video of drawn scenes is segmented by a run on the demonstration set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import scenes, write_clip

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, TrainConfig
from clip_har.demo import write_dataset
from clip_har.predict import Predictor

PARTS = (("cycling", 14.0), ("eating", 11.0), ("running", 16.0), ("sleeping", 12.0))


@pytest.mark.slow  # draws and encodes a few hundred pictures, and trains on them
def test_a_video_of_scenes_is_segmented(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "photos", train_per_class=24, test_per_class=0)
    config = TrainConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model="demo", workers=0, precision="float32"),
        method="lora",
        out=tmp_path / "run",
    )
    clip = write_clip(tmp_path / "clip.mp4", scenes(PARTS, fps=4, shot=2, seed=4), fps=4)
    predictor = Predictor(commands.train(config).folder, precision="float32", device="cpu")
    found = predictor.predict_video(clip)
    ends = np.cumsum([seconds for _, seconds in PARTS])
    truth_T = np.array([PARTS[int(np.searchsorted(ends, time, side="right"))][0] for time in found.times_T])
    names_C = np.array(found.classes)
    alone = (names_C[found.probabilities_TC.argmax(axis=1)] == truth_T).mean()
    smoothed = (names_C[found.smoothed_TC.argmax(axis=1)] == truth_T).mean()
    assert smoothed >= 0.9 and smoothed > alone + 0.05
    assert [span.label for span in found.spans] == [label for label, _ in PARTS]
    assert [span.start for span in found.spans[1:]] == pytest.approx(ends[:-1], abs=2.0)
