"""A contact sheet: mistakes as pictures, each with its true class and the one it was mistaken for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onepass.cache.files import atomic_path

if TYPE_CHECKING:
    from onepass.finetune.errors import Mistake

THUMB, MARGIN, LINE = 128, 8, 16  # px
COLUMNS, LINES = 6, 3
INK, PAPER, RIGHT, WRONG = "#1b1b1b", "#ffffff", "#0b6b3a", "#a3201b"


def contact_sheet(path: Path, mistakes: Sequence[tuple[np.ndarray, "Mistake"]]) -> None:
    """Draw mistakes as a PNG, row by row.

    Args:
        path: Where it is written, atomically.
        mistakes: Pixels uint8 (H, W, 1 or 3), and what is wrong with them.
    """
    columns = min(COLUMNS, len(mistakes))
    rows = -(-len(mistakes) // columns)
    width, height = THUMB + MARGIN, THUMB + LINES * LINE + MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for i, (pixels, mistake) in enumerate(mistakes):
        x, y = MARGIN + i % columns * width, MARGIN + i // columns * height
        picture = _picture(pixels)
        sheet.paste(picture, (x + (THUMB - picture.width) // 2, y))
        texts = (
            (mistake.true_name, RIGHT),
            (f"{100 * mistake.confidence:.0f} % {mistake.predicted_name}", WRONG),
            (mistake.file, INK),
        )
        for line, (text, colour) in enumerate(texts):
            place = x, y + THUMB + line * LINE
            draw.text(place, _fitting(text, font), colour, font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def _picture(pixels: np.ndarray) -> Image.Image:
    """Return an image with its longer side at THUMB."""
    image = Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    )
    scale = THUMB / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _fitting(text: str, font: Any) -> str:
    """Return the text, cut where it would be wider than a thumbnail."""
    text = " ".join(text.split())
    if font.getlength(text) <= THUMB:
        return text
    while text and font.getlength(text + "…") > THUMB:
        text = text[:-1]
    return text + "…"
