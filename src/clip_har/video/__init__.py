"""Video files and cameras: frames sampled by time, probabilities smoothed over time, spans of one action.

What a run makes of an image is in run_model.py and predict.py; PyAV is imported when a video is opened.
"""

from clip_har.video.opening import UnreadableVideoError, is_video
from clip_har.video.predictor import MEAN_SPAN, RATE, LivePrediction, PredictsVideo
from clip_har.video.records import Span, VideoPrediction

__all__ = [
    "MEAN_SPAN",
    "RATE",
    "LivePrediction",
    "PredictsVideo",
    "Span",
    "UnreadableVideoError",
    "VideoPrediction",
    "is_video",
]
