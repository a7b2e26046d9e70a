"""A backbone of 700 weights, so that a store and a run made with it are small enough to keep.

`install(lite)` puts it into the family module given: the fixture was made with that of the commit before
the package existed (`extract.backbones.lite`), and is opened with today's.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import processes

NAME = "tiny"


def install(lite: ModuleType, every: bool = False) -> None:
    """Let the family know one backbone more; with `every`, its others are as small, under their own names."""
    specs, build = lite.specs, lite.build

    def with_tiny() -> list[Any]:
        known = specs()
        small = {"weights_mb": 0.003, "native_size": 16, "min_size": 8, "feature_dim": 16}
        others = [replace(one, **small) if every else one for one in known]
        return [*others, replace(known[0], name=NAME, **small)]

    def build_any(spec: Any, size: int, *rest: Any) -> Any:
        return network(size) if every or spec.name == NAME else build(spec, size, *rest)

    lite.specs, lite.build = with_tiny, build_any


@contextmanager
def installed() -> Iterator[None]:
    """Let today's family know it for as long as the block runs."""
    from onepass.extract.backbones import lite

    specs, build = lite.specs, lite.build
    install(lite)
    try:
        yield
    finally:
        lite.specs, lite.build = specs, build


def network(size: int) -> Any:
    """Two convolutions with BatchNorm and fixed weights: (B, size, size, 3) → (B, size/4, size/4, 16)."""
    import keras
    import numpy as np

    image = keras.Input((size, size, 3))
    x = image
    for number, width in enumerate((8, 16)):
        x = keras.layers.Conv2D(width, 3, 2, "same", use_bias=False, name=f"conv{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    model = keras.Model(image, x, name=NAME)
    random = np.random.default_rng(7)
    for variable in model.variables:
        low, high = (0.5, 1.5) if "norm" in variable.path else (-1.0, 1.0)
        variable.assign(random.uniform(low, high, variable.shape))
    return model


def unpack_colours(folder: Path) -> Path:
    """Unpack a data set with features, probes and runs of it, as today's format has them."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(Path(__file__).parent / "fixtures" / "before_the_package.zip") as archive:
        archive.extractall(folder)
    done = processes.run("cache", "migrate", cwd=folder, ONEPASS_CACHE="store")
    assert done.returncode == 0, done.stderr
    return folder
