"""`clip-har video`, and `clip-har predict` with a video: what is printed, written and refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import RED, colours, plain, write_clip, write_sound
from PIL import Image

from clip_har import cli
from clip_har.console import Output
from clip_har.experiment import predict_video
from clip_har.video import sampling
from samples import CLASSES, HUES


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    argv = ["train", "--data", str(photos), "--model", tiny_model, "--method", "linear-probe", "--out", str(out)]
    assert cli.main([*argv, "--workers", "0", "--precision", "float32"]) == 0
    return out


def noisy(label: str, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 25, (40, 40, 3))
    return Image.fromarray(np.clip(np.array(HUES[label]) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of each class."""
    frames = [noisy(label, seed) for label in CLASSES for seed in range(60)]
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames)


@pytest.fixture
def command(run: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, list[str]]]:
    """Runs `clip-har video RUN ...`; returns the exit code, standard output, and the lines of standard error."""

    def call(*argv: object, name: str = "video") -> tuple[int, str, list[str]]:
        capsys.readouterr()
        code = cli.main([name, str(run), *map(str, argv), "--precision", "float32", "--device", "cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return call


Command = Callable[..., tuple[int, str, list[str]]]


def test_a_pipe_gets_a_line_per_span(command: Command, clip: Path) -> None:
    code, out, err = command(clip)
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and err == []
    assert [(row[0], row[3]) for row in rows] == [(str(clip), label) for label in CLASSES]
    assert rows[0][1] == "0.000" and rows[2][2] == "18.000" and len(rows[0]) == 6


def test_a_terminal_gets_a_table(command: Command, clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Output, "is_terminal", True)
    code, out, _ = command(clip, "--out", tmp_path / "a.srt")
    assert code == 0
    for word in ("start", "end", "action", "confidence", "smoothed", "next", "0:18.0", *CLASSES):
        assert word in out
    assert re.search(rf"Subtitles +{re.escape(str(tmp_path / 'a.srt'))}", out)


def test_every_output_is_written_into_a_folder(command: Command, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    code, _, _ = command(clip, "--out", folder, "--annotated", folder)
    assert code == 0
    names = {f"clip{suffix}" for suffix in (".json", ".csv", ".srt", ".vtt", ".png", "-annotated.mp4")}
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / "clip.json").read_text())["seconds"] == 18.0


def test_the_videos_of_a_folder_are_found(command: Command, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "below" / "b.mp4").write_bytes(clip.read_bytes())
    plain(RED).save(tmp_path / "in" / "photo.png")
    code, out, _ = command(tmp_path / "in")
    assert code == 0 and {line.split("\t")[0] for line in out.splitlines()} == {f"{tmp_path}/in/below/b.mp4"}
    code, _, err = command(tmp_path / "in", name="predict")
    assert code == 0 and err[-1].endswith("b.mp4: not an image but a video")
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / "empty")[2][0].startswith(f"clip-har: There is no video in {tmp_path}/empty. Pass")


def test_several_files_by_their_suffix(command: Command, clip: Path, tmp_path: Path) -> None:
    code, _, _ = command(clip, "--out", tmp_path / "a.vtt", "--out", tmp_path / "b.CSV", "--rate", 1, "--mean-span", 0)
    assert code == 0 and {path.name for path in tmp_path.iterdir()} == {"a.vtt", "b.CSV"}
    assert (tmp_path / "a.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> ")
    folder = tmp_path / "Smith, John"
    code, _, _ = command(clip, "--out", f"{folder}/a.srt", "--out", f"{tmp_path}/c.json,{tmp_path}/d.srt")
    assert code == 0 and [path.name for path in folder.iterdir()] == ["a.srt"]
    assert (tmp_path / "c.json").exists() and (tmp_path / "d.srt").exists()


def test_json_lists_the_videos_that_could_be_read(command: Command, clip: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    code, out, err = command(clip, bad, "--json", "--abstain-below", "1")
    (found,) = json.loads(out)
    assert code == 0 and found["video"] == str(clip) and found["spans"][0]["unsure"] is True
    assert err == [f"Cannot read {bad}: it is an empty file. Pass a video file, such as an .mp4 or .mov."]


def test_a_video_that_ends_early_is_answered_with_a_line_that_says_where(command: Command, tmp_path: Path) -> None:
    frames = [noisy(CLASSES[seed % 3], seed) for seed in range(60)]
    path = write_clip(tmp_path / "a.mp4", frames, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, out, err = command(path)
    assert code == 0 and out
    assert len(err) == 1
    assert re.fullmatch(rf"warning: {re.escape(str(path))}: ends early: \d\.\d s of 6\.0 s could be decoded", err[0])


@pytest.mark.parametrize("kind", ["text", "empty", "sound", "missing"])
def test_what_is_no_video_is_one_line(command: Command, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mp4"
    makes: dict[str, Callable[[], object]] = {
        "text": lambda: path.write_text("notes\n" * 100),
        "empty": lambda: path.write_bytes(b""),
        "sound": lambda: write_sound(path),
        "missing": lambda: None,
    }
    makes[kind]()
    for name in ("video", "predict"):
        code, out, err = command(path, name=name)
        assert code == 2 and out == ""
        assert len(err) == 1 and err[0].startswith(f"clip-har: Cannot read {path}: ")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "No video is named. Example: clip-har video runs/lora clip.mp4, or --camera 0."),
        (("CLIP", "--rate", "0"), "--rate must be in (0, 120], not 0.0"),
        (("CLIP", "--out", "a.txt"), "--out a.txt has an unknown suffix. Use .json, .csv, .srt, .vtt, .png, or pass"),
        (("CLIP", "CLIP", "--out", "a.srt"), "--out a.srt is one file for several videos. Pass a folder."),
        (("CLIP", "CLIP", "--out", "folder"), "Two outputs would be written to folder/clip.json"),
        (("CLIP", "--annotated", "a.avi"), "--annotated a.avi is not an MP4 file"),
        (("CLIP", "--annotated", "CLIP"), "CLIP is one of the videos. Pass another file."),
        (("CLIP", "--seconds", "5"), "--seconds is for --camera"),
        (("CLIP", "--camera", "0"), "--camera and video files cannot be combined"),
        (("--camera", "/dev/no-such-camera"), "Cannot open the camera /dev/no-such-camera: "),
        (("--camera", "0", "--annotated", "a.mp4"), "--annotated is for files, not for --camera"),
        (("CLIP", "--accuracy", "0.9", "--abstain-below", "0.5"), "cannot be combined"),
    ],
)
def test_wrong_options_are_one_line(command: Command, clip: Path, argv: tuple[str, ...], said: str) -> None:
    code, out, err = command(*(str(clip) if word == "CLIP" else word for word in argv))
    assert code == 2 and out == "" and len(err) == 1
    assert said.replace("CLIP", str(clip)) in err[0]


def test_without_pyav_the_extra_is_named(command: Command, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = command(clip)
    assert code == 2
    assert err == ["clip-har: Reading videos requires PyAV, which is not installed. Run: pip install 'clip-har[video]'"]


def test_an_interruption_leaves_nothing_half_written(
    command: Command, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clip_har.video import annotating

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(annotating, "_captioned", interrupt)
    code, out, err = command(clip, "--annotated", tmp_path / "copy.mp4")
    assert (code, out) == (130, "") and list(tmp_path.iterdir()) == []
    assert err == ["Interrupted. 0 of 1 videos are done; unfinished files were removed."]


# --- predict --------------------------------------------------------------------------------------------


def test_predict_answers_for_a_video(command: Command, clip: Path, tmp_path: Path) -> None:
    code, out, _ = command(clip, "--out", tmp_path / "a.csv", "--workers", 2, name="predict")
    assert code == 0 and [line.split("\t")[3] for line in out.splitlines()] == list(CLASSES)
    assert (tmp_path / "a.csv").read_text().startswith("start,end,label,")


def test_predict_says_which_command_to_type(command: Command, run: Path, clip: Path, tmp_path: Path) -> None:
    plain(RED).save(tmp_path / "photo.png")
    code, _, err = command(tmp_path / "photo.png", clip, name="predict")
    assert code == 2 and len(err) == 1
    assert err[0].endswith(
        f"{clip} is a video, and {tmp_path}/photo.png is not. For videos run: clip-har video {run} {clip}"
    )
    code, _, err = command(clip, "--coverage", "0.9", name="predict")
    assert err == [f"clip-har: --coverage is for images, and {clip} is a video. Run: clip-har video {run} {clip}"]


def test_predict_refers_flags_of_videos_to_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["predict", str(run), "--camera", "0"]) == 2
    assert capsys.readouterr().err == f"clip-har: --camera is for videos. Run: clip-har video {run} --camera 0\n"


# --- cameras --------------------------------------------------------------------------------------------


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that shows two seconds of each class, and as fast as they are read."""

    def images(_frames: object, *, rate: float, seconds: float | None) -> Iterator[sampling.Sample]:
        for place in range(12):
            if seconds is not None and place / 2 >= seconds:
                return
            yield sampling.Sample(time=place / 2, image=noisy(CLASSES[place // 4], place))

    monkeypatch.setattr(predict_video, "open_camera", lambda _source: iter(()))
    monkeypatch.setattr(predict_video, "latest_images", images)


@pytest.mark.usefixtures("camera")
def test_a_camera_prints_each_change_and_writes_the_timeline(command: Command, tmp_path: Path) -> None:
    code, out, err = command("--camera", "0", "--mean-span", "2", "--out", tmp_path / "a.json")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and err == [] and [row[1] for row in rows] == list(CLASSES)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["video"] == "camera 0" and content["seconds"] == 6.0
    assert [span["label"] for span in content["spans"]] == list(CLASSES)


@pytest.mark.usefixtures("camera")
def test_a_camera_as_json_prints_a_line_per_image(command: Command) -> None:
    code, out, _ = command("--camera", "rtsp://host/path", "--json", "--seconds", "2")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [answer["time"] for answer in answers] == [0, 0.5, 1, 1.5]
    assert set(answers[0]) == {"time", "label", "confidence", "top"}


def test_ctrl_c_ends_a_camera_and_its_timeline_is_written(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    def images(_frames: object, **_options: Any) -> Iterator[sampling.Sample]:
        with closing(type("Camera", (), {"close": lambda self: closed.append(True)})()):
            for place in range(3):
                yield sampling.Sample(time=place / 2, image=noisy(CLASSES[0], place))
            raise KeyboardInterrupt

    monkeypatch.setattr(predict_video, "open_camera", lambda _source: iter(()))
    monkeypatch.setattr(predict_video, "latest_images", images)
    code, _, err = command("--camera", "0", "--out", tmp_path / "a.csv")
    assert code == 0 and err == [] and closed == [True]
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 2


def test_a_camera_without_an_image_exits_with_2(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_video, "open_camera", lambda _source: iter(()))
    code, _, err = command("--camera", "0")
    assert code == 2 and err == ["The camera 0 gave no image."]


def test_colours_are_a_video_too(command: Command, tmp_path: Path) -> None:
    """A clip of one frame is answered."""
    code, out, _ = command(write_clip(tmp_path / "one.mp4", colours((RED, 1))))
    assert code == 0 and len(out.splitlines()) == 1
