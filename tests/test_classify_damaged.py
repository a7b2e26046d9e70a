"""No head learns from a row that is not what was written."""

from pathlib import Path

import h5py
import pytest
from classify_store import NAME, digits, write_dataset, write_features

from onepass.cache.errors import CorruptFileError
from onepass.classify.config import ClassifyConfig
from onepass.classify.pipeline import run_probes


@pytest.mark.parametrize("row", [0, 700, -1])
def test_a_flipped_bit_in_the_features_is_found_before_a_head_learns_from_it(
    tmp_path: Path, row: int
) -> None:
    data = digits()
    write_features(tmp_path / "store", write_dataset(tmp_path / "store", data), data.X)
    (path,) = (tmp_path / "store").rglob("features/*.h5")
    with h5py.File(path) as file:
        vectors = file["features"]
        place = vectors.id.get_offset() + (row % len(vectors)) * vectors[0].nbytes
    content = bytearray(path.read_bytes())
    content[place] ^= 1  # the last bit of a number: it stays finite and near what it was
    path.write_bytes(content)
    config = ClassifyConfig(
        dataset=NAME, head=("ridge",), cache_dir=tmp_path / "store", runs_dir=tmp_path / "runs"
    )
    with pytest.raises(CorruptFileError, match="differ from what was written"):
        run_probes(config)
    assert not (tmp_path / "runs" / NAME / "leaderboard.json").exists()
