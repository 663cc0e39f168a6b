"""How much one request, and all of them together, may ask for."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clip_har.serving.problems import ProblemError

LONGEST_NAME = 200
"""Characters of a class name."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one request."""

    bytes: int
    """Body."""
    images: int
    classes: int
    seconds: float
    """From the request's first byte to its answer."""

    def check_length(self, length: int) -> None:
        """Refuse a body that is too long; what is read of it so far counts."""
        if length > self.bytes:
            raise ProblemError(413, f"The request has more than {self.bytes:,} bytes. Send smaller or fewer images.")

    def check_images(self, count: int) -> None:
        """Refuse a request without images, or with too many."""
        if count == 0:
            raise ProblemError(
                422, 'The request has no image. Send one as the form field "file", or as JSON in "images".'
            )
        if count > self.images:
            raise ProblemError(413, f"The request has {count} images, more than {self.images}. Send several requests.")

    def check_classes(self, classes: tuple[str, ...]) -> None:
        """Refuse class names that are too many or too long."""
        if len(classes) > self.classes:
            raise ProblemError(422, f"The request has {len(classes)} classes, more than {self.classes}. Send fewer.")
        if any(len(name) > LONGEST_NAME for name in classes):
            raise ProblemError(422, f"A class name has more than {LONGEST_NAME} characters. Shorten it.")


class Admission:
    """Counts the images that are accepted and not yet answered; used by one thread, the event loop's.

    Args:
        capacity: images; what would exceed it is refused with 429.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.in_flight = 0
        self._answered: deque[float] = deque(maxlen=256)

    @contextmanager
    def request(self) -> Iterator[Admitted]:
        """Accept a request, as one image until it is known how many it has.

        Raises:
            ProblemError: there is no room.
        """
        admitted = Admitted(self)
        admitted.set_images(1)
        try:
            yield admitted
        finally:
            self.in_flight -= admitted.images
            self._answered.extend([time.monotonic()] * admitted.images)

    def refused(self) -> ProblemError:
        """The answer to what does not fit, with a guess when it will."""
        seconds = 1
        if len(self._answered) > 1 and (passed := self._answered[-1] - self._answered[0]) > 0:
            seconds = min(60, max(1, math.ceil(self.in_flight * passed / len(self._answered))))
        return ProblemError(
            429,
            f"The service is busy: {self.capacity} images are waiting. Try again in {seconds} s.",
            headers={"Retry-After": str(seconds)},
        )


class Admitted:
    """One accepted request."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.images = 0

    def set_images(self, count: int) -> None:
        """Count the request as so many images.

        Raises:
            ProblemError: there is no room for them.
        """
        more = count - self.images
        if self._admission.in_flight + more > self._admission.capacity:
            raise self._admission.refused()
        self._admission.in_flight += more
        self.images = count
