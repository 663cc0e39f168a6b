"""The command `clip-har video`: flags in, tables out, exit codes. No logic; that is in experiment/predict_video.py.

`clip-har predict` hands videos over to it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from clip_har.cli.shared import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USER_INPUT, ConfigFile, say, shown_progress
from clip_har.config import PredictConfig, VideoConfig
from clip_har.errors import ConfigError
from clip_har.shown_text import shown_json

if TYPE_CHECKING:
    from clip_har.console import Output
    from clip_har.experiment.predict_video import CameraSession


def video(
    run: Path,
    /,
    *videos: Path,
    config: Annotated[VideoConfig | None, Parameter(name="*")] = None,
    config_file: ConfigFile = None,
) -> int:
    """Find actions in videos or in front of a camera, each with its start and end.

    Example: clip-har video runs/lora clip.mp4 --out clip.srt,clip.png

    Args:
        run: Run folder.
        videos: Video files, or folders that are searched for videos.

    In a pipe a line per span is printed: video, start, end (in seconds), action, confidence, and smoothed probability,
    separated by tabs.
    """
    del config_file
    config = config or VideoConfig()
    if config.camera is None:
        if config.seconds is not None:
            raise ConfigError("--seconds is for --camera", remedy="Remove --seconds.")
        return show_videos(run, videos, config)
    if videos:
        raise ConfigError("--camera and video files cannot be combined", remedy="Remove one of the two.")
    return _show_camera(run, config)


def videos_of_predict(run: Path, paths: Sequence[Path], config: PredictConfig) -> int | None:
    """Answer `predict` for videos; None where none is among the paths."""
    from clip_har.experiment import predict_video

    if not predict_video.videos_among(paths):
        return None
    return show_videos(run, paths, predict_video.config_for_videos(run, paths, config))


def show_videos(run: Path, videos: Sequence[Path], config: VideoConfig) -> int:
    """Print the timeline of each video."""
    from clip_har.console import Output
    from clip_har.experiment import predict_video

    output, found, answered, videos = Output(), [], 0, predict_video.listed_videos(videos)
    try:
        for outcome in predict_video.predict_videos(run, videos, config, progress=shown_progress()):
            if outcome.prediction is None:
                if len(videos) == 1 and outcome.error is not None:
                    raise outcome.error
                say(f"{outcome.error}")
                continue
            answered += 1
            if outcome.prediction.warning:
                say(f"warning: {outcome.video}: {outcome.prediction.warning}")
            if config.json:
                found.append(outcome.prediction.to_json())
                continue
            output.timeline(outcome.prediction)
            if outcome.files and output.is_terminal:
                output.files(*((_kind(file), file) for file in outcome.files))
    except KeyboardInterrupt:
        say(f"Interrupted. {answered} of {len(videos)} videos are done; unfinished files were removed.")
        return EXIT_INTERRUPTED
    if config.json:
        sys.stdout.write(shown_json(json.dumps(found, ensure_ascii=False)) + "\n")
    return EXIT_DONE if answered else EXIT_USER_INPUT


def _show_camera(run: Path, config: VideoConfig) -> int:
    """Print what the camera shows whenever that changes; at the end, the timeline."""
    from clip_har.console import Output
    from clip_har.experiment.predict_video import CameraSession

    output, session = Output(), CameraSession(run, config, progress=shown_progress())
    with suppress(KeyboardInterrupt):  # that is how one ends it
        _print_live(session, config, output)
    whole = session.finish()
    if whole is None:
        say(f"The camera {config.camera} gave no image.")
        return EXIT_USER_INPUT
    if output.is_terminal and not config.json:
        output.timeline(whole)
        if session.files:
            output.files(*((_kind(file), file) for file in session.files))
    return EXIT_DONE


def _print_live(session: CameraSession, config: VideoConfig, output: Output) -> None:
    last: str | None = None
    with closing(session.answers()) as answers:
        for answer in answers:
            if config.json:
                sys.stdout.write(shown_json(json.dumps(answer.to_json(), ensure_ascii=False)) + "\n")
            elif answer.shown_label != last:
                output.live(answer)
            sys.stdout.flush()
            last = answer.shown_label


def _kind(file: Path) -> str:
    names = {".json": "JSON", ".csv": "Table", ".srt": "Subtitles", ".vtt": "Subtitles", ".png": "Plot"}
    return names.get(file.suffix.lower(), "Annotated copy")
