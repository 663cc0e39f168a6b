"""`video`: a run's timeline of video files or of a camera, and the files that it is written to.

Not in commands/, for the reason given in predict_files.py.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_har.config import PredictConfig, VideoConfig, validate
from clip_har.config.video_command import OUTPUT_SUFFIXES
from clip_har.errors import ConfigError
from clip_har.experiment.predict_files import predictor_of
from clip_har.files import write_atomically
from clip_har.images.listing import ImageList
from clip_har.predict import AbstentionPolicy, Predictor
from clip_har.progress import SILENT, Progress
from clip_har.video import LivePrediction, UnreadableVideoError, VideoPrediction, is_video
from clip_har.video.camera import latest_images, open_camera
from clip_har.video.opening import library
from clip_har.video.smoothing import FloatArray
from clip_har.video.writing import WRITERS

_UNUSED_FOR_VIDEOS = frozenset({"workers"})
"""Options of `predict` that change nothing for a video."""


@dataclass(frozen=True, kw_only=True)
class VideoOutcome:
    """What came of one video."""

    video: Path
    prediction: VideoPrediction | None = None
    files: tuple[Path, ...] = ()
    """Files that were written."""
    error: UnreadableVideoError | None = None
    """Why nothing came of it."""


def videos_among(paths: Sequence[Path]) -> list[Path]:
    """The paths that are videos."""
    return [path for path in paths if not path.is_dir() and is_video(path)]


def listed_videos(paths: Sequence[Path]) -> list[Path]:
    """The paths, and for a folder the videos in it and below that are not hidden."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        videos = videos_among(list(map(Path, ImageList([path]).names())))
        if not videos:
            raise ConfigError(f"There is no video in {path}", remedy="Pass a video file, such as an .mp4 or .mov.")
        found += videos
    return found


def config_for_videos(run: Path, paths: Sequence[Path], config: PredictConfig) -> VideoConfig:
    """The options of `predict` as those of `video`.

    Raises:
        ConfigError: there are images among the paths, or an option is for images only.
    """
    videos = videos_among(paths)
    command = shlex.join(["clip-har", "video", str(run), *map(str, videos)])
    others = [path for path in paths if path not in videos]
    if others:
        raise ConfigError(f"{videos[0]} is a video, and {others[0]} is not", remedy=f"For videos run: {command}")
    known = {item.name for item in dataclasses.fields(VideoConfig)}
    shared = {name: value for name, value in _given(config) if name in known}
    foreign = [name for name, _ in _given(config) if name not in known | _UNUSED_FOR_VIDEOS]
    if foreign:
        flag = foreign[0].replace("_", "-")
        raise ConfigError(f"--{flag} is for images, and {videos[0]} is a video", remedy=f"Run: {command}")
    out = shared.pop("out", None)
    return VideoConfig(**shared, out=() if out is None else (out,))  # type: ignore[arg-type]


def predict_videos(
    run: Path, videos: Sequence[Path], config: VideoConfig, *, progress: Progress = SILENT
) -> Iterator[VideoOutcome]:
    """Answer for each video, in order, and write its files; unreadable ones have `error` set.

    Args:
        videos: from `listed_videos`.

    Raises:
        UserError: settings, run or model cannot be used, PyAV is missing, or no video is given.
    """
    if not videos:
        raise ConfigError("No video is named", remedy="Example: clip-har video runs/lora clip.mp4, or --camera 0.")
    validate(config)
    plans = [_files(video, config, alone=len(videos) == 1) for video in videos]
    _require_distinct([file for plan in plans for file in plan], videos)
    predictor = _predictor(run, config, progress)
    for video, files in zip(videos, plans, strict=True):
        try:
            prediction = predictor.predict_video(
                video,
                rate=config.rate,
                mean_span=config.mean_span,
                caution=AbstentionPolicy.of(config),
                batch_size=config.batch_size,
                progress=progress,
            )
            _write(prediction, video, files, config, progress)
        except UnreadableVideoError as error:
            yield VideoOutcome(video=video, error=error)
        else:
            yield VideoOutcome(video=video, prediction=prediction, files=files)


class CameraSession:
    """A camera that is classified live, and afterwards as a whole.

    Raises:
        UserError: settings, run, model or camera cannot be used, or PyAV is missing.
    """

    def __init__(self, run: Path, config: VideoConfig, *, progress: Progress = SILENT) -> None:
        validate(config)
        if config.camera is None:
            raise ConfigError("No camera is named", remedy="Pass --camera 0.")
        if config.annotated is not None:
            raise ConfigError("--annotated is for files, not for --camera", remedy="Remove --annotated.")
        self._camera = config.camera
        self.files = _files(Path("camera"), config, alone=True)
        self._predictor = _predictor(run, config, progress)
        self._config = config
        self._progress = progress
        self._times: list[float] = []
        self._scores: list[FloatArray] = []

    def answers(self) -> Generator[LivePrediction, None, None]:
        """An answer for each image, until the camera or the time ends, or the iterator is closed."""
        config = self._config
        images = latest_images(open_camera(self._camera), rate=config.rate, seconds=config.seconds)
        answers = self._predictor.predict_camera(
            images, mean_span=config.mean_span, caution=AbstentionPolicy.of(config)
        )
        for answer in answers:
            self._times.append(answer.time)
            self._scores.append(answer.raw_C)
            yield answer

    def finish(self) -> VideoPrediction | None:
        """The whole timeline, written to the files that were asked for; None if the camera gave no image."""
        if not self._times:
            return None
        config = self._config
        prediction = self._predictor.live_timeline(
            f"camera {self._camera}",
            self._times,
            self._scores,
            rate=config.rate,
            mean_span=config.mean_span,
            caution=AbstentionPolicy.of(config),
        )
        _write(prediction, Path("camera"), self.files, config, self._progress)
        return prediction


def _given(config: PredictConfig) -> Iterator[tuple[str, object]]:
    """The options that differ from their defaults."""
    default = PredictConfig()
    for item in dataclasses.fields(config):
        if getattr(config, item.name) != getattr(default, item.name):
            yield item.name, getattr(config, item.name)


def _files(video: Path, config: VideoConfig, *, alone: bool) -> tuple[Path, ...]:
    """The files to write for a video, the annotated copy last."""
    files: list[Path] = []
    for path in config.out:
        if path.suffix.lower() in OUTPUT_SUFFIXES and not path.is_dir():
            if not alone:
                raise ConfigError(f"--out {path} is one file for several videos", remedy="Pass a folder.")
            files.append(path)
        elif path.suffix and not path.is_dir():
            raise ConfigError(
                f"--out {path} has an unknown suffix", remedy=f"Use {', '.join(OUTPUT_SUFFIXES)}, or pass a folder."
            )
        else:
            files += [path / f"{video.stem}{suffix}" for suffix in OUTPUT_SUFFIXES]
    if config.annotated is not None:
        copy = config.annotated
        if copy.suffix.lower() == ".mp4" and not copy.is_dir():
            if not alone:
                raise ConfigError(f"--annotated {copy} is one file for several videos", remedy="Pass a folder.")
            files.append(copy)
        elif copy.suffix and not copy.is_dir():
            raise ConfigError(f"--annotated {copy} is not an MP4 file", remedy="Use the suffix .mp4, or pass a folder.")
        else:
            files.append(copy / f"{video.stem}-annotated.mp4")
    return tuple(files)


def _require_distinct(files: Sequence[Path], videos: Sequence[Path]) -> None:
    for file in files:
        if list(files).count(file) > 1:
            raise ConfigError(f"Two outputs would be written to {file}", remedy="Pass one video at a time.")
        if any(file.exists() and video.exists() and file.samefile(video) for video in videos):
            raise ConfigError(f"{file} is one of the videos", remedy="Pass another file.")


def _write(
    prediction: VideoPrediction, video: Path, files: tuple[Path, ...], config: VideoConfig, progress: Progress
) -> None:
    copies = 0 if config.annotated is None else 1
    for file in files[: len(files) - copies]:
        suffix = file.suffix.lower()
        if suffix == ".png":
            from clip_har.video.plot import timeline_png  # slow to import

            write_atomically(file, timeline_png(prediction))
        else:
            write_atomically(file, WRITERS[suffix](prediction))
    if copies:
        from clip_har.video.annotating import write_annotated

        write_annotated(video, prediction, files[-1], progress=progress)


def _predictor(run: Path, config: VideoConfig, progress: Progress) -> Predictor:
    library()  # refused before anything slow, as is the policy
    AbstentionPolicy.of(config)
    return predictor_of(run, config.model, progress)
