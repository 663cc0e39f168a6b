"""Predictor on videos and cameras: the same probabilities as for the frames as images, and an annotated copy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from clips import BLUE, RED, colours, is_near, plain, write_clip
from PIL import Image
from torch import Tensor

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, TrainConfig
from clip_har.errors import DataError
from clip_har.predict import AbstentionPolicy, Predictor
from clip_har.run_model import Scores
from clip_har.video import LivePrediction, UnreadableVideoError
from clip_har.video.annotating import write_annotated
from clip_har.video.camera import latest_images, open_camera
from clip_har.video.sampling import Sample
from samples import CLASSES, HUES


@pytest.fixture(scope="module")
def predictor(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(
            model=tiny_model, workers=0, precision="float32", cache=tmp_path_factory.mktemp("module-cache")
        ),
        method="linear-probe",
        out=tmp_path_factory.mktemp("runs") / "run",
    )
    return Predictor(commands.train(config).folder, precision="float32", device="cpu")


def noisy(label: str, seed: int) -> Image.Image:
    """A frame like the training images of a class."""
    noise = np.random.default_rng(seed).normal(0, 25, (40, 40, 3))
    return Image.fromarray(np.clip(np.array(HUES[label]) + noise, 0, 255).astype(np.uint8))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six seconds of each class, at ten frames per second."""
    frames = [noisy(label, seed) for label in CLASSES for seed in range(60)]
    return write_clip(tmp_path / "clip.mp4", frames)


def test_spans_follow_the_video(predictor: Predictor, clip: Path) -> None:
    found = predictor.predict_video(clip)
    assert [span.label for span in found.spans] == list(CLASSES)
    assert [span.start for span in found.spans] == pytest.approx([0, 5.75, 11.75], abs=0.51)
    assert found.spans[-1].end == found.seconds == pytest.approx(18.0)
    assert len(found.times_T) == len(found.smoothed_TC) == 36 and found.warning is None
    assert found.classes == predictor.classes and found.video == str(clip)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_probabilities_are_those_of_the_frames_as_images(predictor: Predictor, clip: Path, batch_size: int) -> None:
    found = predictor.predict_video(str(clip), rate=1, batch_size=batch_size)
    with av.open(str(clip)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)][::10]
    judge = predictor.judge()
    alone = np.array([[dict(item.top)[name] for name in found.classes] for item in predictor.predict(frames)])
    assert found.probabilities_TC == pytest.approx(judge.calibrated(alone), abs=1e-4)


def test_a_frame_that_stays_is_classified_once(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [noisy(CLASSES[0], 0), noisy(CLASSES[1], 1), noisy(CLASSES[2], 2)]
    path = write_clip(tmp_path / "still.mp4", frames, times=[0, 4000, 4500])
    passes: list[int] = []
    scores = predictor.model.scores

    def counted(images_BCHW: Tensor) -> list[Scores]:
        passes.append(len(images_BCHW))
        return scores(images_BCHW)

    monkeypatch.setattr(predictor.model, "scores", counted)
    found = predictor.predict_video(path, batch_size=2)
    assert passes == [2, 1]
    assert found.times_T[:10] == pytest.approx(np.arange(10) / 2)
    assert np.unique(found.probabilities_TC[:8], axis=0).shape[0] == 1
    assert not np.allclose(found.probabilities_TC[8], found.probabilities_TC[9])


def test_a_policy_makes_parts_unsure(predictor: Predictor, clip: Path) -> None:
    found = predictor.predict_video(clip, caution=AbstentionPolicy(abstain_below=1.0))
    (only,) = found.spans
    assert only.unsure and only.label is None and only.shown_label == "unsure"


def test_a_video_that_ends_early_is_answered_with_a_warning(predictor: Predictor, tmp_path: Path) -> None:
    frames = [noisy(CLASSES[seed % 3], seed) for seed in range(60)]
    path = write_clip(tmp_path / "a.mp4", frames, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = predictor.predict_video(path)
    assert found.warning is not None and found.warning.startswith("ends early: ") and found.spans
    assert found.to_json()["warning"] == found.warning


def test_a_video_without_frames_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", colours((RED, 10)), options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + 4])
    with pytest.raises(UnreadableVideoError, match="no frame can be decoded"):
        predictor.predict_video(path)


# --- annotated copies -----------------------------------------------------------------------------------


def test_the_annotated_copy_has_the_frames_at_their_times_with_a_caption(predictor: Predictor, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", [plain(RED, (66, 98))] * 3, times=[0, 700, 2000])
    out = tmp_path / "folder" / "copy.mp4"
    write_annotated(source, predictor.predict_video(source), out)
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.name in {"h264", "mpeg4"}
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.7, 2.0], abs=0.001)
    image = frames[1].to_image()
    assert image.size == (66, 98) and is_near(image.crop((0, 0, 66, 75)), RED)
    bar = np.asarray(image)[-16:].astype(int)
    assert bar.min() < 60 and bar.max() > 180  # dark ground, light letters
    assert [path.name for path in out.parent.iterdir()] == ["copy.mp4"]


def test_an_annotated_copy_that_fails_leaves_nothing(
    predictor: Predictor, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clip_har.video import annotating

    found, drawn = predictor.predict_video(clip), []

    def interrupted(image: Image.Image, text: str) -> Image.Image:
        drawn.append(text)
        if len(drawn) == 50:
            raise KeyboardInterrupt
        return image

    monkeypatch.setattr(annotating, "_captioned", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_annotated(clip, found, clip.parent / "copies" / "copy.mp4")
    assert list((clip.parent / "copies").iterdir()) == []
    with pytest.raises(DataError, match="is the video itself"):
        write_annotated(clip, found, clip)
    assert drawn[0].startswith(CLASSES[0])


# --- cameras --------------------------------------------------------------------------------------------


class Clock:
    """Seconds that only pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fake_frame(image: Image.Image) -> Any:
    frame = SimpleNamespace(width=image.width, height=image.height, rotation=0, image=image)
    frame.to_image = lambda width, height: image
    return frame


def test_a_slow_model_gets_the_newest_image(tmp_path: Path) -> None:
    clock, more, done = Clock(), threading.Semaphore(0), threading.Semaphore(0)
    pictures = [plain((shade, 0, 0)) for shade in range(6)]

    def frames() -> Iterator[Any]:
        for number, picture in enumerate(pictures):
            more.acquire()
            clock.now = number / 10
            yield fake_frame(picture)
            done.release()

    def let(count: int) -> None:
        for _ in range(count):
            more.release()
            done.acquire()

    images = latest_images(frames(), rate=10, clock=clock)
    opening = threading.Thread(target=let, args=(1,))
    opening.start()
    first = next(images)
    opening.join()
    let(3)  # while the model is busy
    second = next(images)
    assert (first.time, first.image) == (0.0, pictures[0])
    assert (second.time, second.image) == (0.3, pictures[3])
    more.release(10)
    images.close()


def test_images_come_at_most_at_the_rate_and_until_the_time_is_over() -> None:
    clock = Clock()
    taken, gate = [], threading.Semaphore(1)

    def frames() -> Iterator[Any]:
        for number in range(100):
            gate.acquire()
            clock.now = number * 0.125
            yield fake_frame(plain(BLUE))
            gate.release()

    for sample in latest_images(frames(), rate=2, seconds=3, clock=clock):
        taken.append(sample.time)
    gaps = np.diff(taken)
    assert taken[0] == 0 and max(taken) < 3 and (gaps >= 0.5).all()


def test_a_camera_that_fails_says_so() -> None:
    def frames() -> Iterator[Any]:
        yield fake_frame(plain(BLUE))
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(latest_images(frames(), rate=1000))
    with pytest.raises(DataError, match=r"Cannot open the camera /dev/no-such-camera: "):
        open_camera("/dev/no-such-camera")


def test_a_file_can_stand_in_for_a_camera(predictor: Predictor, clip: Path) -> None:
    frames = open_camera(str(clip))
    assert sum(1 for _ in frames) == 180


def test_a_camera_is_answered_at_once_and_in_the_end_as_a_whole(predictor: Predictor) -> None:
    images = [noisy(label, seed) for label in CLASSES for seed in range(20)]
    samples = [Sample(time=place / 2, image=image) for place, image in enumerate(images)]
    read: list[float] = []

    def seen() -> Iterator[Sample]:
        for sample in samples:
            read.append(sample.time)
            yield sample

    answers: list[LivePrediction] = []
    for answer in predictor.predict_camera(seen(), mean_span=5):
        assert len(read) == len(answers) + 1  # nothing is read ahead
        answers.append(answer)
    assert [answers[place].label for place in (10, 30, 50)] == list(CLASSES)
    assert set(answers[0].to_json()) == {"time", "label", "confidence", "top"}
    whole = predictor.live_timeline(
        "camera 0", [answer.time for answer in answers], [answer.raw_C for answer in answers], mean_span=5
    )
    assert [span.label for span in whole.spans] == list(CLASSES) and whole.seconds == 30.0
    (unsure,) = predictor.predict_camera(samples[:1], caution=AbstentionPolicy(abstain_below=1.0))
    assert unsure.unsure and unsure.label is None and unsure.to_json()["unsure"] is True
