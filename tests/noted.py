"""A progress that keeps what is said."""

from __future__ import annotations

from clip_har.progress import Silent


class Notes(Silent):
    """Keeps notes and warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)
