"""The photographs of one page: each is encoded once, however often it is shown, and all together keep to a budget.

Where they stand and what is said of them is decided by the pages; how small they are made, in `sheet`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from clip_har.errors import UnreadableImageError
from clip_har.report import contact_sheet

ThumbnailLoader = Callable[[str], Image.Image | None]
BUDGET_BYTES = 2_800_000
"""What the photographs of a page may take: it stays a file of a few megabytes, whatever the size of the test set."""
State = Literal["shown", "unreadable", "omitted", "not wanted"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One photograph as a page refers to it."""

    id: str
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    source: str
    """A data URI."""


class Pictures:
    """Photographs by path, loaded when they are first asked for."""

    def __init__(self, load_thumbnail: ThumbnailLoader | None, *, budget_bytes: int = BUDGET_BYTES) -> None:
        """Starts with none.

        Args:
            load_thumbnail: a path -> image, or None if it cannot be read. Without it there are no photographs.
            budget_bytes: characters of all data URIs together, about; once it is used up no more are loaded.
        """
        self._load = load_thumbnail
        self._left = budget_bytes
        self._found: dict[str, Picture | None] = {}
        self._made = 0

    @property
    def wanted(self) -> bool:
        """Whether there are any photographs at all."""
        return self._load is not None

    @property
    def shown(self) -> list[Picture]:
        """Those that were asked for and could be read, in that order."""
        return [picture for picture in self._found.values() if picture is not None]

    @property
    def full(self) -> bool:
        """Whether the budget is used up."""
        return self._left <= 0

    def get(self, path: str) -> Picture | None:
        """The photograph, or None; `state` says why there is none."""
        if path not in self._found and self._load is not None and not self.full:
            try:
                image = self._load(path)
            except UnreadableImageError:
                image = None
            self._found[path] = None if image is None else self._added(image)
        return self._found.get(path)

    def add(self, key: str, image: Image.Image) -> Picture:
        """A picture that no path of the dataset leads to, such as an overlay, under a key of its own."""
        picture = self._added(image)
        self._found[key] = picture
        return picture

    def state(self, path: str) -> State:
        """What became of a photograph that was asked for."""
        if not self.wanted:
            return "not wanted"
        if path not in self._found:
            return "omitted"
        return "unreadable" if self._found[path] is None else "shown"

    def _added(self, image: Image.Image) -> Picture:
        (width, height), source = contact_sheet.small_jpeg(image)
        self._left -= len(source)
        self._made += 1
        return Picture(id=f"photo-{self._made}", width=width, height=height, source=source)
