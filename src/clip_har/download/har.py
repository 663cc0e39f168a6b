"""Where HAR is offered, under which names, and how one tells that it is HAR. Nothing here uses the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clip_har.config.converters import HarSource

HAR_CLASSES = (
    *("calling", "clapping", "cycling", "dancing", "drinking", "eating", "fighting", "hugging", "laughing"),
    *("listening_to_music", "running", "sitting", "sleeping", "texting", "using_laptop"),
)
"""The fifteen actions of HAR, sorted."""


@dataclass(frozen=True, kw_only=True)
class FetchSource:
    """A place that offers HAR."""

    name: HarSource
    handle: str
    """Owner and name there."""
    page: str
    """What a person opens in a browser."""

    @property
    def on_kaggle(self) -> bool:
        """Whether it comes as one archive from Kaggle; else as Parquet files from the hub."""
        return self.name != "hub"


def _kaggle(name: HarSource, handle: str) -> FetchSource:
    return FetchSource(name=name, handle=handle, page=f"https://www.kaggle.com/datasets/{handle}")


SOURCES: Mapping[str, FetchSource] = {
    "kaggle": _kaggle("kaggle", "meetnagadia/human-action-recognition-har-dataset"),
    "kaggle-structured": _kaggle("kaggle-structured", "shashankrapolu/human-action-recognition-dataset"),
    "hub": FetchSource(
        name="hub",
        handle="Bingsu/Human_Action_Recognition",
        page="https://huggingface.co/datasets/Bingsu/Human_Action_Recognition",
    ),
}
"""What --source can name."""
