"""How well a video of drawn scenes is segmented: each frame alone, and with several ways of smoothing over time.

    python benchmarks/video_segmentation.py [--run RUN] [--seconds 600] [--seed 7]

Without a run, LoRA is trained on the demonstration set with the bundled model. Each video shows actions of 10 to 40
seconds; within an action another picture is drawn every `shot` seconds ("never": one picture for the whole action), and
pictures shake and change their brightness in every frame. Printed are the fractions of samples with the right action
(two per second), and the peak memory after a video of a tenth of the length and after the others.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np
import numpy.typing as npt
from PIL import ImageChops, ImageEnhance

from clip_har import Predictor
from clip_har.demo.scenes import ACTIONS, draw_action
from clip_har.video import smoothing

FPS = 10
Array = npt.NDArray[np.floating]
Truth = list[tuple[float, str]]
"""End in seconds, and action."""


def write_video(path: Path, seconds: float, shot: float | None, seed: int) -> Truth:
    """Encode a video of drawn actions and return what it shows."""
    rng, truth, frame = Random(seed), Truth(), 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = 160
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        while not truth or truth[-1][0] < seconds:
            start = truth[-1][0] if truth else 0.0
            action = rng.choice([name for name in ACTIONS if not truth or name != truth[-1][1]])
            truth.append((min(seconds, start + rng.uniform(10, 40)), action))
            until = -1.0
            while frame / FPS < truth[-1][0]:
                if frame / FPS >= until:
                    picture = draw_action(action, rng)
                    until = np.inf if shot is None else frame / FPS + rng.uniform(0.5, 1.5) * shot
                shaken = ImageChops.offset(picture, rng.randint(-4, 4), rng.randint(-4, 4))
                image = ImageEnhance.Brightness(shaken).enhance(rng.uniform(0.85, 1.15))
                encoded = av.VideoFrame.from_image(image)
                encoded.pts, encoded.time_base = frame, Fraction(1, FPS)
                container.mux(stream.encode(encoded))
                frame += 1
        container.mux(stream.encode())
    return truth


def gaussian(scores_TC: Array, times_T: Array, width: float) -> Array:
    """Log-probabilities averaged with weights that fall off over `width` seconds."""
    weights_TT = np.exp(-0.5 * ((times_T[:, None] - times_T) / width) ** 2)
    averaged: Array = weights_TT @ np.log(np.maximum(scores_TC, 1e-6)) / weights_TT.sum(axis=1, keepdims=True)
    return averaged


def exponential(scores_TC: Array, times_T: Array, width: float) -> Array:
    """The same with the past only, and exponential weights."""
    logs_TC = np.log(np.maximum(scores_TC, 1e-6))
    for place, step in enumerate(np.diff(times_T), start=1):
        kept = np.exp(-step / width)
        logs_TC[place] = kept * logs_TC[place - 1] + (1 - kept) * logs_TC[place]
    return logs_TC


def hidden_markov(scores_TC: Array, times_T: Array, evidence_seconds: float) -> Array:
    """clip-har's smoothing, with another weight of neighbouring frames."""
    before, smoothing.EVIDENCE_SECONDS = smoothing.EVIDENCE_SECONDS, evidence_seconds
    try:
        return smoothing.smooth(scores_TC, times_T, mean_span=10)
    finally:
        smoothing.EVIDENCE_SECONDS = before


def forward(scores_TC: Array, times_T: Array) -> Array:
    past = smoothing.ForwardFilter(10)
    return np.stack([past.update(row_C, when) for row_C, when in zip(scores_TC, times_T, strict=True)])


def _with(way: Callable[[Array, Array, float], Array], seconds: float) -> Callable[[Array, Array], Array]:
    return lambda scores, times: way(scores, times, seconds)


WAYS: dict[str, Callable[[Array, Array], Array]] = {
    "each frame alone": lambda scores, _times: scores,
    **{f"Gaussian, {w} s": _with(gaussian, w) for w in (1, 2, 3, 4, 6)},
    **{f"hidden Markov, {e} s": _with(hidden_markov, e) for e in (0.5, 1, 2, 4)},
    **{f"exponential, past only, {w} s": _with(exponential, w) for w in (1, 2, 4)},
    "hidden Markov, past only": forward,
}


def accuracies(predictor: Predictor, path: Path, truth: Truth) -> tuple[dict[str, float], float]:
    """Way of smoothing -> fraction of samples that are right; and the seconds that the prediction took."""
    started = time.perf_counter()
    found = predictor.predict_video(path)
    seconds = time.perf_counter() - started
    ends = [end for end, _ in truth]
    places = np.minimum(np.searchsorted(ends, found.times_T, side="right"), len(truth) - 1)
    truth_T, names_C = np.array([truth[place][1] for place in places]), np.array(found.classes)
    smoothed = {name: way(found.probabilities_TC, found.times_T) for name, way in WAYS.items()}
    return {name: float((names_C[s.argmax(axis=1)] == truth_T).mean()) for name, s in smoothed.items()}, seconds


def train(folder: Path) -> Path:
    from clip_har import BackboneConfig, DataConfig, TrainConfig, commands
    from clip_har.demo import write_dataset

    data = DataConfig(data=write_dataset(folder / "photos"))
    backbone = BackboneConfig(model="demo", precision="float32")
    return commands.train(TrainConfig(data=data, backbone=backbone, method="lora", out=folder / "run")).folder


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        predictor = Predictor(given.run or train(folder), device="cpu", precision="float32")
        videos = {shot: folder / f"{shot}.mp4" for shot in (2.0, 4.0, None)}
        truths = {shot: write_video(path, given.seconds, shot, given.seed) for shot, path in videos.items()}
        write_video(folder / "short.mp4", given.seconds / 10, 2.0, given.seed)
        predictor.predict_video(folder / "short.mp4")
        print(f"peak memory after {given.seconds / 10:g} s of video: {peak_megabytes():.0f} MB")
        results = {shot: accuracies(predictor, path, truths[shot]) for shot, path in videos.items()}
        print(f"peak memory after {given.seconds:g} s of video: {peak_megabytes():.0f} MB")
        print(f"{'new picture every':32}" + "".join(f"{f'{s:g} s' if s else 'never':>8}" for s in videos))
        for name in WAYS:
            print(f"{name:32}" + "".join(f"{found[name]:>8.1%}" for found, _ in results.values()))
        print(f"{'seconds of prediction':32}" + "".join(f"{seconds:>8.1f}" for _, seconds in results.values()))


if __name__ == "__main__":
    main()
