"""Pixels as images to be looked at: Pillow's, encoded, or as data URIs."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return pixels, uint8 (H, W) or (H, W, 1 or 3), as a grey image or one in colour."""
    grey = pixels.ndim == 3 and pixels.shape[-1] == 1
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """Return an image as a file of a kind that Pillow writes, such as "jpeg"."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def data_uri(image: Image.Image, kind: str = "png", **options: Any) -> str:
    """Return the same as an address that holds it."""
    content = base64.b64encode(encoded(image, kind, **options)).decode()
    return f"data:image/{kind};base64,{content}"
