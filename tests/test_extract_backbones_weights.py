"""extract/backbones/weights_files.py: what an HDF5 file of weights may not hold."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from onepass.cache.errors import CorruptFileError, InvalidInputError
from onepass.extract.backbones.weights_files import count_numbers


def weights(path: Path) -> h5py.File:
    file = h5py.File(path, "w")
    file.create_dataset("layers/dense/vars/0", data=np.ones((8, 8), "f4"))
    file.create_dataset("optimizer/vars/0", data=np.ones((8, 8), "f4"))
    return file


def test_floating_point_numbers_are_counted_without_the_optimiser(tmp_path: Path) -> None:
    weights(tmp_path / "a.h5").close()
    assert count_numbers(tmp_path / "a.h5") == 64


@pytest.mark.parametrize("kind", ["i1", "f4"])
def test_what_would_grow_without_measure_is_refused(tmp_path: Path, kind: str) -> None:
    """A terabyte in a few bytes: no chunk is stored, each is the fill value."""
    with weights(tmp_path / "a.h5") as file:
        file.create_dataset("layers/bomb/vars/0", (1 << 20, 1 << 20), kind, chunks=(1024, 1024))
    with pytest.raises(InvalidInputError, match="would grow more than 20 times"):
        count_numbers(tmp_path / "a.h5")


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    with weights(tmp_path / "a.h5") as file:
        file.create_dataset("layers/words/vars/0", data="text", dtype=h5py.string_dtype())
    with pytest.raises(InvalidInputError, match="words/vars/0 is object, expected numbers"):
        count_numbers(tmp_path / "a.h5")


def test_damage_below_the_top_is_one_clear_error(tmp_path: Path) -> None:
    """h5py raised a SystemError there."""
    weights(tmp_path / "a.h5").close()
    content = (tmp_path / "a.h5").read_bytes()
    refused = 0
    for place in range(0, len(content), 64):
        (tmp_path / "b.h5").write_bytes(content[:place] + b"\xff" * 8 + content[place + 8 :])
        try:
            count_numbers(tmp_path / "b.h5")
        except (CorruptFileError, InvalidInputError) as error:
            assert "b.h5" in str(error)
            refused += 1
    assert refused > 10
