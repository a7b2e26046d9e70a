"""Images that are held out of a data set: which, where they lie, and that they stay out."""

import io

import numpy as np
import pytest
from PIL import Image
from test_data_identity import Place, files, png, write

from onepass.cache.content import source_of
from onepass.cache.errors import CorruptFileError, UsageError
from onepass.cache.inventory import KeyConfig, delete_entry
from onepass.data.config import PrepareConfig, VerifyConfig
from onepass.data.held_out import held_out_folder
from onepass.data.listing import verify_datasets
from onepass.data.prepare import prepare_dataset
from onepass.data.record import HeldOutImage


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    place = Place(tmp_path, monkeypatch)
    write(place.photos, files(20) | {f"cat/more {n}.png": png(500 + n) for n in range(20)})
    return place


def held_out(place: Place) -> list[HeldOutImage]:
    return place.dataset.record.held_out


def pictures(place: Place) -> dict[str, bytes]:
    folder = held_out_folder(place.store, "photos")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_of_each_class_its_share_is_held_out_and_lies_there_as_files(place):
    done = place.prepare(hold_back=6)
    held = held_out(place)
    assert [image.class_id for image in held].count("cat") == 4 and len(held) == 6
    assert not {image.name for image in held} & set(place.dataset.names)
    assert len(place.dataset.names) == 54 and done.new == 54
    assert any("held out: 6 images (4 cat, 2 dog)" in line for line in done.said)
    everything = {
        png(number): number for number in [*range(20), *range(1000, 1020), *range(500, 520)]
    }
    for image in held:
        content = pictures(place)[image.file]
        assert content in everything and source_of(content).tobytes().hex() == image.source
        assert "cat" not in image.file and "dog" not in image.file


def test_they_stay_out_until_another_number_is_said(place):
    place.prepare(hold_back=6)
    held, before = held_out(place), place.dataset.digest
    assert place.prepare().state == "cached" and held_out(place) == held
    assert place.prepare(hold_back=6).state == "cached" and held_out(place) == held
    write(place.photos, {"dog/new.png": png(77)})
    added = place.prepare()
    assert added.new == 1 and held_out(place) == held and len(place.dataset.names) == 55
    (place.photos / "dog" / "new.png").unlink()
    assert place.prepare().changed == ["images removed: 1"] and place.dataset.digest == before
    more = place.prepare(hold_back=12)
    assert {image.file for image in held} < {image.file for image in held_out(place)}
    assert "images held out: 6" in more.changed and len(pictures(place)) == 12
    none = place.prepare(hold_back=0)
    assert none.new == 12 and not held_out(place) and not pictures(place)
    assert len(place.dataset.names) == 60


def test_what_belongs_together_is_held_out_together(place):
    for name in ("cat", "dog"):
        write(
            place.photos,
            {f"{name}/twin {n}.png": png(2000 + 10 * (name == "dog")) for n in range(4)},
        )
    place.prepare(hold_back=20, group_by=r"(\d)\.png")
    held = held_out(place)
    groups = {image.name[-5] for image in held}
    rest = [name for name in place.dataset.names if "twin" not in name]
    assert held and not groups & {name[-5] for name in rest}


def test_only_labelled_training_images_are_held_out(place):
    numbers = range(8)
    write(place.photos.with_name("split"), {
        f"{split}/{name}/{n}.png": png(3000 + 100 * i + n)
        for i, (split, name) in enumerate([("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")])
        for n in numbers
    })  # fmt: skip
    place.prepare(place.photos.with_name("split"), hold_back=4)
    assert all(image.name.startswith("train/") for image in held_out(place))
    assert len(place.dataset.rows("val")) == 16 and len(place.dataset.rows("train")) == 12
    with pytest.raises(UsageError, match="--hold-back 16: expected fewer than the 16 labelled"):
        place.prepare(place.photos.with_name("split"), hold_back=16)
    with pytest.raises(UsageError, match="--hold-back: expected 0 or more"):
        PrepareConfig(kind="digits", hold_back=-1)


def test_pixels_that_come_without_a_file_become_png_and_go_with_the_data_set(place):
    config = PrepareConfig(kind="digits", hold_back=20, cache_dir=place.store)
    prepare_dataset(config)
    folder = held_out_folder(place.store, "digits")
    found = [np.asarray(Image.open(io.BytesIO(path.read_bytes()))) for path in folder.iterdir()]
    assert len(found) == 20 and {pixels.shape for pixels in found} == {(8, 8)}
    delete_entry(KeyConfig(key="digits/pixels", cache_dir=place.store))
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["photos", "digits"])
def test_verify_names_a_picture_that_is_not_what_was_held_out(place, kind):
    if kind == "photos":
        place.prepare(hold_back=6)
    else:
        prepare_dataset(PrepareConfig(kind="digits", hold_back=6, cache_dir=place.store))
    config = VerifyConfig(name=kind, cache_dir=place.store)
    verify_datasets(config)
    path = next(held_out_folder(place.store, kind).iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), None):
        path.unlink()
        if damaged:
            path.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=f"{path.name}: is not the image .*--hold-back"):
            verify_datasets(config)
        path.touch()
