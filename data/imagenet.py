"""The classes of ImageNet, which most backbones were trained on."""

from functools import cache
from pathlib import Path

FILE = Path(__file__).resolve().parent / "imagenet_wnids.txt"


@cache
def imagenet_wnids() -> list[str]:
    """Return the 1000 WordNet ids of ILSVRC2012; class k of every ImageNet head is [k]."""
    return FILE.read_text(encoding="ascii").split()
