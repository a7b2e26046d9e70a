"""Variables are stored by name: another order is loaded right or refused, and older files still load.

`format0/training` holds a training of `finetune_tiny` that was interrupted in its second epoch, written
by position, by the commit before variables had names in a checkpoint.
"""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from finetune_tiny import tiny_classifier, tiny_recipe, tiny_training

from onepass.cache.arrays import pack_arrays, unpack_arrays
from onepass.cache.errors import CorruptFileError
from onepass.finetune.session.checkpoint import (
    load_variables,
    named_slots,
    named_variables,
    save_variables,
)

BEFORE = Path(__file__).with_name("format0") / "training"
# What the same training gave without interruption: loss, accuracy, selection loss and accuracy.
HISTORY = [
    [1.3413923808506556, 0.4107142857142857, 1.2776031643152237, 0.65],
    [1.1332156573023116, 0.5952380952380952, 1.0573050111532212, 0.675],
    [0.975831945737203, 0.6041666666666666, 0.912802541255951, 0.675],
    [0.9110225439071655, 0.5952380952380952, 0.8524116247892379, 0.675],
]


def norms(names: list[str]) -> keras.Model:
    """Return BatchNorms in a row: every variable has the same shape."""
    x = inputs = keras.Input((3,))
    for name in names:
        x = keras.layers.BatchNormalization(name=name)(x)
    return keras.Model(inputs, x)


def fill(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """Give each variable values of its own, and return them."""
    random = np.random.default_rng(0)
    values = {name: random.normal(size=v.shape).astype(np.float32) for name, v in variables.items()}
    for name, variable in variables.items():
        variable.assign(values[name])
    return values


def test_another_order_is_loaded_by_name(tmp_path: Path) -> None:
    ours = named_variables(norms(["a", "b"]))
    assert {v.shape for v in ours.values()} == {(3,)}
    values = fill(ours)
    save_variables(tmp_path / "w.npz", {"model": ours}, {})
    turned = named_variables(norms(["b", "a"]))
    assert list(turned) != list(ours)
    load_variables(tmp_path / "w.npz", {"model": turned})
    for name, value in values.items():
        np.testing.assert_array_equal(np.asarray(turned[name]), value)


def test_other_names_are_refused_by_name_and_nothing_is_assigned(tmp_path: Path) -> None:
    ours = named_variables(norms(["a", "b"]))
    fill(ours)
    save_variables(tmp_path / "w.npz", {"model": ours}, {})
    others = named_variables(norms(["a", "c"]))
    before = {name: np.asarray(v).copy() for name, v in others.items()}
    with pytest.raises(CorruptFileError, match=r"model/b/beta: expected nothing, found \(3,\)"):
        load_variables(tmp_path / "w.npz", {"model": others})
    for name, variable in others.items():
        np.testing.assert_array_equal(np.asarray(variable), before[name])


@pytest.mark.parametrize("kind", ["<U3", "<i4", "<c8"])
def test_arrays_that_are_no_such_numbers_are_refused_and_nothing_is_assigned(
    tmp_path: Path, kind: str
) -> None:
    ours = named_variables(norms(["a"]))
    values = fill(ours)
    arrays = {f"model/{name}": value for name, value in values.items()}
    arrays["model/a/gamma"] = np.ones(3).astype(kind)
    state = np.frombuffer(b"{}", dtype=np.uint8)
    (tmp_path / "w.npz").write_bytes(pack_arrays({**arrays, "state": state}))
    with pytest.raises(CorruptFileError, match=r"w\.npz: .*model/a/gamma: expected \(3,\) float"):
        load_variables(tmp_path / "w.npz", {"model": ours})
    for name, value in values.items():
        np.testing.assert_array_equal(np.asarray(ours[name]), value)


def test_one_array_alone_is_no_file_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.zeros(3))
    with pytest.raises(CorruptFileError, match="a single array"):
        load_variables(tmp_path / "w.npy", {"model": named_variables(norms(["a"]))})


def test_any_changed_bit_is_an_error_or_of_no_matter() -> None:
    """Bits of a zip's headers say "encrypted", or name a method that zipfile does not know."""
    values = {"logits": np.ones((2, 3), np.float32)}
    content = pack_arrays(values)
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = unpack_arrays(bytes(changed))
        except ValueError:
            continue
        assert all(np.array_equal(array, values["logits"]) for array in found.values())


def test_a_state_of_another_form_names_the_checkpoint(tmp_path: Path) -> None:
    place = Path(shutil.copytree(BEFORE, tmp_path / "run"))
    arrays = unpack_arrays((place / "checkpoint.npz").read_bytes())
    arrays["state"] = np.frombuffer(b'{"place": "?"}', dtype=np.uint8)
    (place / "checkpoint.npz").write_bytes(pack_arrays(arrays))
    with pytest.raises(CorruptFileError, match=r"checkpoint\.npz: .*history: missing.*delete it"):
        tiny_training(place).run(lambda: "")


def test_a_file_by_position_is_loaded_in_the_order_of_the_model(tmp_path: Path) -> None:
    ours = named_variables(norms(["a", "b"]))
    values = fill(ours)
    arrays = {f"model/{i:04d}": value for i, value in enumerate(values.values())}
    state = np.frombuffer(b'{"place": 2}', dtype=np.uint8)
    (tmp_path / "w.npz").write_bytes(pack_arrays({**arrays, "state": state}))
    for variable in ours.values():
        variable.assign(np.zeros(3))
    assert load_variables(tmp_path / "w.npz", {"model": ours}) == {"place": 2}
    for name, value in values.items():
        np.testing.assert_array_equal(np.asarray(ours[name]), value)


def test_names_do_not_depend_on_what_was_built_before() -> None:
    def unnamed() -> dict[str, Any]:
        x = inputs = keras.Input((3,))
        for _ in range(2):
            x = keras.layers.Dropout(0.5)(keras.layers.Dense(3)(x))
        return named_variables(keras.Model(inputs, x))

    first, second = unnamed(), unnamed()
    assert list(first) == list(second) and first["dense/bias"].path != second["dense/bias"].path
    assert list(first)[:2] == ["dense/kernel", "dense/bias"] and "dense_1/bias" in first
    assert sum(name.startswith("seed_generator") for name in first) == 2


def test_what_the_optimiser_remembers_belongs_to_a_variable(tmp_path: Path) -> None:
    training = tiny_training(tmp_path)
    model = named_variables(training.classifier.trainer)
    slots = named_slots(training.optimizer, model)
    trained = [name for name, v in model.items() if v.trainable]
    assert {"conv0/kernel", "norm1/beta", "top/head/bias"} <= set(trained)
    wanted = {f"{n}/{slot}" for n in trained for slot in ("momentum", "velocity", "average")}
    assert set(slots) == wanted | {"iteration"}
    for name in trained:
        assert slots[f"{name}/momentum"].shape == model[name].shape


def test_a_training_saved_by_position_resumes_with_the_same_history(tmp_path: Path) -> None:
    place = Path(shutil.copytree(BEFORE, tmp_path / "run"))
    training = tiny_training(place)
    assert (len(training.history), training.place) == (1, 4)
    assert training.run(lambda: "") == ""
    found = [
        [row.loss, row.accuracy, row.selection_loss, row.selection_accuracy]
        for row in training.history
    ]
    np.testing.assert_allclose(found, HISTORY, rtol=1e-4)
    training.conclude()
    names = unpack_arrays((place / "checkpoint.npz").read_bytes()).keys()
    assert {"model/norm0/moving_mean", "optimizer/conv1/kernel/velocity", "state"} <= set(names)


def test_weights_saved_by_position_load(tmp_path: Path) -> None:
    classifier = tiny_classifier(tiny_recipe())
    load_variables(
        BEFORE / "epochs/epoch-001.npz", {"model": named_variables(classifier.predictor)}
    )
    stored = unpack_arrays((BEFORE / "epochs/epoch-001.npz").read_bytes())
    np.testing.assert_array_equal(
        np.asarray(classifier.backbone.get_layer("conv0").kernel), stored["model/0000"]
    )
