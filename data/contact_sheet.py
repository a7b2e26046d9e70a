"""A contact sheet: images with a few lines of text below each, as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onepass.cache.files import atomic_path
from onepass.data.shown import as_image, data_uri

THUMB, MARGIN, LINE = 128, 8, 16  # px
COLUMNS = 6
INK, PAPER, RIGHT, WRONG = "#1b1b1b", "#ffffff", "#0b6b3a", "#a3201b"


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of a contact sheet.

    Attributes:
        pixels: uint8 (H, W, 1 or 3).
        lines: What stands below it: text and colour of each line.
    """

    pixels: np.ndarray
    lines: tuple[tuple[str, str], ...]


def contact_sheet(path: Path, cells: Sequence[Cell], columns: int = COLUMNS) -> None:
    """Draw images as a PNG, row by row.

    Args:
        path: Where it is written, atomically.
        cells: At least one.
        columns: Images side by side, at most.
    """
    sheet = _sheet(cells, columns)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def sheet_html(cells: Sequence[Cell], columns: int = COLUMNS) -> str:
    """Return the same as an element of HTML that holds it."""
    return f'<img src="{data_uri(_sheet(cells, columns))}">'


def _sheet(cells: Sequence[Cell], columns: int) -> Image.Image:
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    lines = max(len(cell.lines) for cell in cells)
    width, height = THUMB + MARGIN, THUMB + lines * LINE + MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    for i, cell in enumerate(cells):
        x, y = MARGIN + i % columns * width, MARGIN + i // columns * height
        picture = _picture(cell.pixels)
        sheet.paste(picture, (x + (THUMB - picture.width) // 2, y))
        for line, (text, colour) in enumerate(cell.lines):
            place = x, y + THUMB + line * LINE
            draw.text(place, _fitting(text, font), colour, font=font)
    return sheet


def _font() -> Any:
    """Return the font of Matplotlib's figures: Pillow's own has Latin letters only, and no arrow."""
    package = find_spec("matplotlib")
    assert package and package.origin
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(folder / "DejaVuSans.ttf", 11)


def _picture(pixels: np.ndarray) -> Image.Image:
    """Return an image with its longer side at THUMB."""
    image = as_image(pixels)
    scale = THUMB / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _fitting(text: str, font: Any) -> str:
    """Return the text, without its middle where it would be wider than a thumbnail: names of files differ at their ends."""
    text = " ".join(text.split())
    half, shown = len(text) // 2, text
    left, right = text[:half][:THUMB], text[half:][-THUMB:]  # no letter is narrower than a pixel
    while font.getlength(shown) > THUMB:
        left, right = (left[:-1], right) if len(left) > len(right) else (left, right[1:])
        shown = f"{left}…{right}"
    return shown
