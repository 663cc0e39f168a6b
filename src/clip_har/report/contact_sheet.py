"""Photographs -> a contact sheet with captions, and thumbnails small enough to put into a page.

Which photographs, and what is said of them, is decided by the caller.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from clip_har import wording
from clip_har.report.style import ACCENT, INK, MUTED, WRONG

TILE_WIDTH, TILE_HEIGHT = 168, 126  # pixels
MARGIN = 10  # pixels
LINE_HEIGHT = 19  # pixels
MAX_COLUMNS = 8
CAPTION_LENGTH = 24
THUMBNAIL_SIDE = 200  # pixels, the longer side
THUMBNAIL_QUALITY = 70
PICTURE_SIDE = 168  # pixels, the longer side, where a page holds hundreds
PICTURE_QUALITY = 62


def contact_sheet(
    items: Sequence[tuple[Path | Image.Image, str]], predictions: Sequence[str] | None = None
) -> Image.Image:
    """A grid of thumbnails, the true class under each.

    Args:
        items: image and true class; a file that cannot be read leaves an empty tile that says so.
        predictions: answers to the images, shown in blue with a tick where right and in orange with a cross
            where wrong.
    """
    if not items:
        raise ValueError("a contact sheet needs at least one image")
    if predictions is not None and len(predictions) != len(items):
        raise ValueError(f"{len(items)} images but {len(predictions)} predictions")
    columns = min(MAX_COLUMNS, math.ceil(math.sqrt(len(items) * 1.4)))
    rows = math.ceil(len(items) / columns)
    step_x = TILE_WIDTH + MARGIN
    step_y = TILE_HEIGHT + MARGIN + LINE_HEIGHT * (1 if predictions is None else 2)
    sheet = Image.new("RGB", (columns * step_x + MARGIN, rows * step_y + MARGIN), "white")
    for index, (image, true) in enumerate(items):
        corner = (MARGIN + index % columns * step_x, MARGIN + index // columns * step_y)
        _draw_tile(sheet, corner, image, true, None if predictions is None else predictions[index])
    return sheet


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(image: Image.Image) -> str:
    """The image as a JPEG of at most 200 pixels a side, in a form that a page can hold."""
    return _jpeg(image, THUMBNAIL_SIDE, THUMBNAIL_QUALITY)[1]


def small_jpeg(image: Image.Image) -> tuple[tuple[int, int], str]:
    """The image as a JPEG for a page of many: its width and height in pixels, and a data URI."""
    return _jpeg(image, PICTURE_SIDE, PICTURE_QUALITY)


def _jpeg(image: Image.Image, side: int, quality: int) -> tuple[tuple[int, int], str]:
    small = _rgb(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=quality, optimize=True)
    return small.size, "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _draw_tile(
    sheet: Image.Image, corner: tuple[int, int], image: Path | Image.Image, true: str, answer: str | None
) -> None:
    draw = ImageDraw.Draw(sheet)
    x, y = corner
    loaded = _loaded(image)
    draw.rectangle((x, y, x + TILE_WIDTH - 1, y + TILE_HEIGHT - 1), fill="#eef0f3")
    if loaded is None:
        draw.text((x + 8, y + 8), "unreadable", font=_font(), fill=MUTED)
    else:
        small = ImageOps.contain(loaded, (TILE_WIDTH, TILE_HEIGHT), Image.Resampling.LANCZOS)
        sheet.paste(small, (x + (TILE_WIDTH - small.width) // 2, y + (TILE_HEIGHT - small.height) // 2))
    draw.text((x, y + TILE_HEIGHT + 2), wording.shortened(true, CAPTION_LENGTH), font=_font(), fill=INK)
    if answer is not None:
        right = answer == true
        colour, mark = (ACCENT, "✓") if right else (WRONG, "✗")
        draw.rectangle((x, y, x + TILE_WIDTH - 1, y + TILE_HEIGHT - 1), outline=colour, width=3)
        text = f"{mark} {wording.shortened(answer, CAPTION_LENGTH - 2)}"
        draw.text((x, y + TILE_HEIGHT + 2 + LINE_HEIGHT), text, font=_font(), fill=colour)


def _loaded(image: Path | Image.Image) -> Image.Image | None:
    if isinstance(image, Image.Image):
        return _rgb(image)
    try:
        with Image.open(image) as opened:
            opened.draft("RGB", (2 * TILE_WIDTH, 2 * TILE_HEIGHT))
            return _rgb(ImageOps.exif_transpose(opened))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _rgb(image: Image.Image) -> Image.Image:
    """A copy in RGB; what is transparent becomes white."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _font() -> ImageFont.FreeTypeFont:
    """The font of the plots, which comes with matplotlib."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 12)
