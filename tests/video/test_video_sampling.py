"""Which frames of a video are classified, when, and why a file is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clips import BLUE, GREEN, RED, WHITE, colours, is_near, plain, write_clip, write_sound
from PIL import Image

from clip_har.errors import ConfigError
from clip_har.video import opening, sampling
from clip_har.video.opening import UnreadableVideoError, is_video, open_video
from clip_har.video.sampling import Decoding, Sample, TimedFrame, samples, timed_frames


def sampled(path: Path, rate: float) -> tuple[list[Sample], Decoding, str | None]:
    decoding = Decoding()
    with open_video(path) as video:
        found = list(samples(timed_frames(video, decoding), rate=rate))
        return found, decoding, decoding.warning(video)


def test_frames_are_sampled_by_their_times(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", colours((RED, 20), (GREEN, 10), (BLUE, 15)))
    found, decoding, warning = sampled(path, rate=2)
    assert [sample.time for sample in found] == pytest.approx([place / 2 for place in range(9)])
    expected = [RED] * 4 + [GREEN] * 2 + [BLUE] * 3
    assert all(is_near(sample.image, colour) for sample, colour in zip(found, expected, strict=True) if sample.image)
    assert all(sample.image for sample in found)
    assert decoding.end == pytest.approx(4.5) and decoding.frames == 45 and warning is None


def test_a_frame_that_is_shown_for_longer_gives_several_samples_and_one_image(tmp_path: Path) -> None:
    images = [plain(colour) for colour in (RED, GREEN, BLUE, WHITE)]
    path = write_clip(tmp_path / "a.mp4", images, times=[0, 100, 5000, 6600])
    found, _, _ = sampled(path, rate=1)
    assert [sample.time for sample in found[:7]] == [0, 1, 2, 3, 4, 5, 6]
    seen = [sample.image and next(c for c in (RED, GREEN, BLUE, WHITE) if is_near(sample.image, c)) for sample in found]
    assert seen[:7] == [RED, GREEN, None, None, None, BLUE, None]
    fast, _, _ = sampled(path, rate=20)
    assert [sample.time for sample in fast[:4]] == pytest.approx([0, 0.05, 0.1, 0.15])
    assert [sample.image is not None for sample in fast[:4]] == [True, False, True, False]


def test_times_count_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ts", colours((RED, 20)))  # MPEG-TS starts at 1.4 s or later
    found, decoding, _ = sampled(path, rate=1)
    assert [sample.time for sample in found] == pytest.approx([0, 1], abs=0.05)
    assert decoding.end == pytest.approx(2, abs=0.05)


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> Image.Image:
    image = plain(left)
    image.paste(right, (32, 0, 64, 48))
    return image


@pytest.mark.parametrize(("rotation", "top", "bottom"), [(90, BLUE, RED), (-90, RED, BLUE)])
def test_a_turned_video_is_made_upright(
    tmp_path: Path, rotation: int, top: tuple[int, int, int], bottom: tuple[int, int, int]
) -> None:
    path = write_clip(tmp_path / "a.mp4", [halves(RED, BLUE)] * 5, rotation=rotation)
    image = sampled(path, rate=1)[0][0].image
    assert image is not None and image.size == (48, 64)
    assert is_near(image.crop((0, 0, 48, 30)), top) and is_near(image.crop((0, 34, 48, 64)), bottom)


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    frame = SimpleNamespace(width=40, height=20, rotation=0)
    frame.to_image = lambda width, height: Image.new("RGB", (width, height))
    assert sampling.upright_image(frame, 1.5).size == (60, 20)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_of_a_video_that_ends_early_what_there_is_is_read_with_a_warning(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    whole = write_clip(tmp_path / f"whole{suffix}", map(Image.fromarray, noise), options=options)
    content = whole.read_bytes()
    short = tmp_path / f"short{suffix}"
    short.write_bytes(content[: len(content) // 2])
    found, decoding, warning = sampled(short, rate=2)
    assert 1.5 < decoding.end < 4.5 and len(found) == pytest.approx(decoding.end * 2, abs=1)
    assert warning == f"ends early: {decoding.end:.1f} s of 6.0 s could be decoded"
    assert sampled(whole, rate=2)[2] is None


def test_sound_that_lasts_longer_is_no_missing_video(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", colours((RED, 2)), sound=True)
    assert sampled(path, rate=2)[2] is None


def test_damaged_packets_are_skipped_and_counted() -> None:
    video: Any = SimpleNamespace(stream=SimpleNamespace(average_rate=10), seconds=None, start=0.0)
    decoding = Decoding(end=3.0, damaged=2)
    assert decoding.warning(video) == "2 damaged packets were skipped"


def fake_frames(times: list[float | None], read: list[int] | None = None) -> Any:
    """A video whose frames have these times and last a tenth of a second."""
    frames = [SimpleNamespace(time=time, duration=1, time_base=0.1) for time in times]

    def packets(_stream: object) -> Iterator[Any]:
        for place, frame in enumerate(frames):
            if read is not None:
                read.append(place)
            yield SimpleNamespace(decode=lambda frame=frame: [frame])

    stream = SimpleNamespace(average_rate=10)
    return SimpleNamespace(container=SimpleNamespace(demux=packets), stream=stream, start=0.0, seconds=None)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 0.1, None, None, 0.4], [0.0, 0.1, 0.2, 0.3, 0.4]),
        ([0.0, 0.1, 95_000.0, 95_000.1], [0.0, 0.1, 0.2, 0.3]),
        ([50.0, 50.1, 0.0, 0.1], [50.0, 50.1, 50.2, 50.3]),
        ([0.0, 0.2, 0.1, 0.3], [0.0, 0.2, 0.2, 0.3]),
        ([0.0, 900.0], [0.0, 900.0]),
    ],
    ids=["missing", "far ahead", "back to 0", "out of order", "a still"],
)
def test_damaged_times_are_repaired(times: list[float | None], expected: list[float]) -> None:
    found = [frame.time for frame in timed_frames(fake_frames(times), Decoding())]
    assert found == pytest.approx(expected)


def test_frames_are_read_one_at_a_time_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "upright_image", lambda frame, _aspect: frame)
    read: list[int] = []
    reading = samples(timed_frames(fake_frames([place / 10 for place in range(10_000)], read), Decoding()), rate=1)
    for number in range(1, 6):
        next(reading)
        assert len(read) <= 10 * number + 2


def test_the_last_frame_is_sampled_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "upright_image", lambda frame, _aspect: frame)
    frames = [TimedFrame(time=0.25, frame="a", seconds=0.1), TimedFrame(time=1.0, frame="b", seconds=1.3)]
    found = [(sample.time, sample.image) for sample in samples(frames, rate=2)]
    assert found == [(0.25, "a"), (0.75, None), (1.25, "b"), (1.75, None), (2.25, None)]


# --- what is refused ------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(UnreadableVideoError) as caught, open_video(path):
        pass
    return (
        str(caught.value)
        .removeprefix(f"Cannot read {path}: ")
        .removesuffix(" Pass a video file, such as an .mp4 or .mov.")
    )


def test_what_is_no_video_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    assert refused(path) == "no such file."
    path.write_bytes(b"")
    assert refused(path) == "it is an empty file."
    path.write_text("shopping list\n" * 50)
    assert refused(path) == "it is not a video but text."
    plain(RED).save(path, format="PNG")
    assert refused(path) == "it is not a video but an image (PNG)."
    write_sound(path)
    assert refused(path) == "it contains only sound."
    path.write_bytes(b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41" + bytes(500))
    assert refused(path) == "the video is damaged, was cut off before its index, or is still being written."
    path.write_bytes(bytes(range(256)) * 8)
    assert refused(path) == "it is not a video that is known."


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "secret.ts", colours((RED, 10)))
    path = tmp_path / "a.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.ts\n#EXT-X-ENDLIST\n")
    assert refused(path) == "it is not a video but text."


def test_large_frames_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", colours((RED, 5)))
    monkeypatch.setattr(opening, "MAX_FRAME_PIXELS", 64 * 48 - 1)
    assert refused(path) == "no frame can be decoded, or frames have more than 3,071 pixels."


def test_a_cut_off_index_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", colours((RED, 50)))
    path.write_bytes(path.read_bytes()[:500])
    assert "cut off before its index" in refused(path)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", colours((RED, 5)))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match="requires PyAV") as caught, open_video(path):
        pass
    assert caught.value.remedy == "Run: pip install 'clip-har[video]'"


def test_a_video_is_known_by_its_content_or_by_its_name(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mkv", colours((RED, 5)))
    unnamed = tmp_path / "unnamed"
    unnamed.write_bytes(clip.read_bytes())
    photo = tmp_path / "photo.mp4"
    plain(RED).save(photo, format="JPEG")
    notes = tmp_path / "notes.txt"
    notes.write_text("notes")
    broken = tmp_path / "broken.MOV"
    broken.write_text("notes")
    assert [is_video(path) for path in (clip, unnamed, broken, tmp_path / "missing.mp4")] == [True] * 4
    assert [is_video(path) for path in (photo, notes, tmp_path / "missing.jpg")] == [False] * 3
    for suffix in (".mp4", ".avi", ".ts", ".mov", ".webm"):
        codec = "libvpx" if suffix == ".webm" else "mpeg4"
        other = write_clip(tmp_path / f"b{suffix}", colours((RED, 5)), codec=codec)
        assert is_video(other.rename(tmp_path / f"b{suffix[1:]}"))
