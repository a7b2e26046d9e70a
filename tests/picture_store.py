"""A data set made of picture files of every kind, with probes, an ensemble and a fine-tuned run, by a tiny backbone."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny_backbone
from PIL import Image

from conftest import made_once

SIDE, CLASSES = 24, ("crow", "great tit", "jay")
# What a camera, a scanner or a phone leaves: all of it becomes rows, and all of it is predicted.
KINDS = ("jpeg", "exif", "grey", "cmyk", "alpha", "deep", "palette", "wide", "webp", "gif")


def picture(kind: str, label: int, seed: int) -> bytes:
    """Return an encoded picture: a texture that depends on its class, with noise."""
    random = np.random.default_rng(seed)
    height, width = (31, 45) if kind in ("wide", "exif") else (40, 40)
    y, x = np.mgrid[:height, :width]
    wave = np.sin(x * (0.2 + 0.25 * label)) * np.cos(y * (0.6 - 0.2 * label))
    colour = np.array([1.0, 0.5 + 0.2 * label, 1.0 - 0.4 * label])
    pixels = 120 + 70 * wave[..., None] * colour + random.normal(0, 25, (height, width, 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    options: dict = {"format": "JPEG", "quality": 92}
    if kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 1 + seed % 8
        options["exif"] = exif
    elif kind == "grey":
        image = image.convert("L")
    elif kind == "cmyk":
        image = image.convert("CMYK")
    elif kind in ("alpha", "palette", "deep"):
        options = {"format": "PNG"}
        if kind == "alpha":
            image.putalpha(Image.fromarray(random.integers(0, 256, (height, width), np.uint8)))
        elif kind == "palette":
            image = image.quantize(64)
        else:
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif kind in ("webp", "gif"):
        options = {"format": kind.upper()}
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def suffix(kind: str) -> str:
    """Return the suffix of its files."""
    if kind in ("alpha", "palette", "deep"):
        return ".png"
    return f".{kind}" if kind in ("webp", "gif") else ".jpg"


def write_pictures(folder: Path) -> None:
    """Write train/<class> and val/<class>, ten kinds of file in each; one picture lies in a wrong folder."""
    for split, rounds in (("train", 3), ("val", 1)):
        for label, name in enumerate(CLASSES):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(rounds * len(KINDS)):
                kind = KINDS[number % len(KINDS)]
                seed = 1000 * (split == "val") + 100 * label + number
                wrong = (split, label, number) == ("val", 0, 9)
                content = picture(kind, 2 if wrong else label, seed)
                (place / f"{number} {kind}{suffix(kind)}").write_bytes(content)


@contextmanager
def opened(factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Let a test file use a store of its own, and know the backbone that its models stand on.

    All workers together make it once, which takes as long as some of the files that use it.

    Yields:
        `cache_dir` and `runs_dir`; the pictures lie in `birds` beside them.
    """
    with tiny_backbone.installed():
        copy = factory.mktemp("pictures") / "copy"
        shutil.copytree(made_once(factory, "picture-store", make_store), copy)
        yield places_in(copy)


def places_in(folder: Path) -> dict[str, Path]:
    """Return where the store and its results lie in a folder."""
    return {"cache_dir": folder / "store", "runs_dir": folder / "runs"}


def make_store(folder: Path) -> None:
    """Prepare, extract, classify, put together and fine-tune; the tiny backbone must be known."""
    import onepass
    from onepass.classify.config import EnsembleConfig
    from onepass.classify.ensemble import run_ensemble

    places = places_in(folder)
    store = {"cache_dir": places["cache_dir"]}
    write_pictures(folder / "birds")
    onepass.prepare_dataset(
        "folder", source=str(folder / "birds"), name="birds", max_side=SIDE, **store
    )
    onepass.extract_features("birds", "tiny", size=(16, 20), view=("", "flip", "random:1"), **store)
    onepass.run_probes("birds", head=("ridge", "logistic", "knn"), **places)
    onepass.run_probes("birds", head=("ridge",), features=("tiny@16",), views=("flip",), **places)
    onepass.run_probes(
        "birds", head=("ridge",), features=("tiny@16",), views=("random:1",), **places
    )
    probes = onepass.run_probes("birds", head=("lda",), features=("tiny@16,tiny@20",), **places)
    run_ensemble(EnsembleConfig(dataset="birds", **places))
    linear = tuple(r.id for r in probes.results if r.head in ("ridge", "logistic", "lda"))
    run_ensemble(EnsembleConfig(dataset="birds", probe=linear, method=("stack",), **places))
    onepass.finetune_network(
        "birds", epochs=1, run="r1", from_="tiny@16", set=("learning_rate=0.01",), **places
    )
