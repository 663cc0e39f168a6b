"""What loads the images of a report at a size that will do for a page.

How many a page shows, and how they are embedded, is decided in report/.
"""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from clip_har.errors import UnreadableImageError
from clip_har.images import ImageAddress, decode
from clip_har.report import ThumbnailLoader

THUMBNAIL_PIXELS = 224


def thumbnail_loader(addresses: Mapping[str, ImageAddress]) -> ThumbnailLoader:
    """An image's name -> the image with sides of at most `THUMBNAIL_PIXELS`, or None if it cannot be read."""

    def load(name: str) -> Image.Image | None:
        try:
            image = decode(addresses[name], enough_pixels=THUMBNAIL_PIXELS * THUMBNAIL_PIXELS)
        except UnreadableImageError:
            return None
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        return image

    return load
