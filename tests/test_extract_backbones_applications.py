"""Every model of keras.applications: table, preprocessing, width, and local weights files."""

import inspect
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError, OnepassError
from onepass.extract.backbones import applications, registry
from onepass.extract.backbones.table import read_table

SPECS = {spec.name: spec for spec in applications.specs()}
SMALL = SPECS["mobilenetv3small"]


def _factory(spec):
    import keras

    return getattr(keras.applications, spec.factory)


def _random_pixels(size, count=2):
    return np.random.default_rng(size).integers(0, 256, (count, size, size, 3)).astype("float32")


def _run(model, spec, pixels):
    return np.asarray(model(spec.preprocessing.apply(pixels, np), training=False))


def _one_line(caught):
    assert isinstance(caught.value, OnepassError)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_the_table_holds_exactly_what_keras_has():
    import keras

    known = {
        name
        for name, item in vars(keras.applications).items()
        if inspect.isfunction(item) and name[0].isupper()
    }
    assert {spec.factory for spec in SPECS.values()} == known
    assert all(spec.name == spec.factory.lower() for spec in SPECS.values())


@pytest.mark.parametrize("name", sorted(SPECS))
def test_preprocessing_equals_keras(name):
    spec = SPECS[name]
    pixels = _random_pixels(7)
    keras_module = sys.modules[_factory(spec).__module__]
    expected = np.asarray(keras_module.preprocess_input(pixels.copy(), data_format="channels_last"))
    np.testing.assert_allclose(spec.preprocessing.apply(pixels, np), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_the_minimum_is_keras_own(name):
    spec = SPECS[name]
    below = spec.min_size - 1
    with pytest.raises(ValueError, match=f"at least {spec.min_size}"):
        _factory(spec)(weights=None, include_top=False, input_shape=(below, below, 3))
    with pytest.raises(InvalidInputError, match=f"expected {spec.min_size} ") as caught:
        registry.build_backbone(spec, below, "none")
    _one_line(caught)


def _outline(spec, size, weights="none"):
    """Return the model without weights, which take most of the time: layers and shapes only."""
    import keras

    keras.backend.clear_session()  # or the last models stay in memory
    with keras.StatelessScope(initialize_variables=False):
        return registry.build_backbone(spec, size, weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_model_gives_vectors_of_its_width(name):
    import keras

    spec = SPECS[name]
    model = _outline(spec, spec.min_size)
    assert 0 not in model.output_shape and model.output_shape[-1] == spec.feature_dim
    assert model.count_params() * 4e-6 == pytest.approx(spec.weights_mb, abs=0.06)
    if "none" in _style(spec):  # no preprocessing of ours: then the model must rescale inside
        first = model.layers[1]
        assert isinstance(first, keras.layers.Rescaling | keras.layers.Normalization)


def _style(spec):
    return [
        row["preprocessing"] for row in read_table("applications.csv") if row["name"] == spec.name
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnexttiny", "densenet121", "mobilenet", "resnet50"])
def test_the_smallest_image_has_a_finite_vector(name):
    """One of every kind of preprocessing."""
    spec = SPECS[name]
    output = _run(
        registry.build_backbone(spec, spec.min_size, "none"), spec, _random_pixels(spec.min_size)
    )
    pooled = output.mean((1, 2)) if output.ndim == 4 else output
    assert pooled.shape == (2, spec.feature_dim)
    assert np.isfinite(pooled).all() and pooled.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nasnetmobile", "xception", "densenet121", "convnexttiny"])
def test_odd_sizes_build_too(name):
    spec = SPECS[name]
    for size in (spec.min_size + 1, 80, 97):
        assert _outline(spec, size).output_shape[-1] == spec.feature_dim


def _saved(folder, spec):
    """Return a model with random weights and the two kinds of file that it was saved to."""
    model = registry.build_backbone(spec, 32, "none", seed=5)
    files = folder / f"{spec.name}.weights.h5", folder / f"{spec.name}.h5"
    model.save_weights(files[0])
    model.save(files[1])
    return model, files


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The smallest model and its files."""
    return _saved(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def small_files(small):
    """Weights of the smallest model, new and legacy."""
    return small[1]


@pytest.fixture(params=["new", "legacy"])
def small_file(small_files, tmp_path, request):
    """One of these files, to be damaged."""
    return Path(shutil.copy(small_files[request.param == "legacy"], tmp_path))


@pytest.mark.parametrize("name", ["mobilenetv3small", "efficientnetb0"])  # every kind of layer
def test_a_saved_file_gives_identical_vectors(tmp_path, small, name):
    spec = SPECS[name]
    model, files = small if spec is SMALL else _saved(tmp_path, spec)
    pixels = _random_pixels(32)
    vectors = _run(model, spec, pixels)
    assert np.ptp(vectors) > 0
    for path in files:
        digest = registry.weights_identity(spec, path)
        loaded = registry.build_backbone(spec, 32, str(path), weights_sha256=digest)
        np.testing.assert_array_equal(_run(loaded, spec, pixels), vectors)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet", "convnexttiny", "mobilenetv3small"])
def test_a_file_with_its_top_serves_features_and_logits(tmp_path, name):
    import keras

    spec = SPECS[name]
    keras.utils.set_random_seed(0)
    shape = (spec.min_size, spec.min_size, 3)
    whole = _factory(spec)(weights=None, classifier_activation=None, input_shape=shape)
    # Away from the initial 0 and 1, so that a normalisation left out or misplaced shows.
    generator = np.random.default_rng(0)
    whole.set_weights([w + 0.01 * abs(generator.normal(size=w.shape)) for w in whole.get_weights()])
    path = tmp_path / "whole.weights.h5"
    whole.save_weights(path)
    model = registry.build_backbone(spec, spec.min_size, path)
    pixels = _random_pixels(spec.min_size)
    features = _run(model, spec, pixels)
    if name == "mobilenetv3small":
        pools = [x for x in whole.layers if isinstance(x, keras.layers.GlobalAveragePooling2D)]
        before = keras.Model(whole.input, pools[-1].input)
        np.testing.assert_allclose(features, _run(before, spec, pixels), rtol=1e-4, atol=1e-5)
        with pytest.raises(InvalidInputError, match="one dense layer"):
            registry.build_top(spec, path)
        return
    pooled = features.mean((1, 2)) if features.ndim == 4 else features
    kernel, bias = registry.build_top(spec, path)
    np.testing.assert_allclose(
        pooled @ kernel + bias, _run(whole, spec, pixels), rtol=2e-3, atol=2e-4
    )


def test_official_efficientnet_files_are_scaled_as_keras_scales_them(tmp_path, monkeypatch):
    """The same file by Keras's own download path (get_file answered locally) and by ours."""
    import keras
    from keras.src.utils import file_utils

    spec = SPECS["efficientnetb0"]
    model = registry.build_backbone(spec, 32, "none")
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.set_weights(
                [np.array(x) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
                + [np.array(0)]
            )
    path = tmp_path / "efficientnetb0_notop.h5"
    model.save(path)
    monkeypatch.setattr(file_utils, "get_file", lambda *args, **options: str(path))
    downloaded = registry.build_backbone(spec, 32, "imagenet")
    local = registry.build_backbone(spec, 32, path)
    pixels = _random_pixels(32)
    expected = _run(downloaded, spec, pixels)
    np.testing.assert_allclose(_run(local, spec, pixels), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(_run(model, spec, pixels), expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet", "efficientnetb0", "nasnetmobile"])
def test_a_failed_download_is_one_line_and_names_the_file_in_the_table(
    name, tmp_path, monkeypatch, capsys
):
    """Keras's real download code, sent to a port where nothing listens."""
    from keras.src.utils import file_utils

    asked, fetch = [], file_utils.get_file

    def unreachable(file_name, origin, **options):
        asked.append(file_name)
        return fetch(file_name, "http://127.0.0.1:9/none", cache_dir=str(tmp_path), **options)

    monkeypatch.setattr(file_utils, "get_file", unreachable)
    spec = SPECS[name]
    with pytest.raises(MissingFileError, match=f"^{name}: .*--weights FILE") as caught:
        _outline(spec, spec.native_size, "imagenet")
    _one_line(caught)
    assert capsys.readouterr().out == ""
    assert asked == [row["file"] for row in read_table("applications.csv") if row["name"] == name]


def test_another_architectures_file_is_refused(small_file):
    with pytest.raises(InvalidInputError, match="not the weights of mobilenetv2") as caught:
        registry.build_backbone(SPECS["mobilenetv2"], 32, small_file)
    _one_line(caught)


def test_a_file_of_the_right_size_and_another_shape_is_refused(small_file):
    with h5py.File(small_file, "r+") as file:
        name = next(iter(_kernels(file)))
        kernel = file[name][()]
        del file[name]
        file[name] = kernel.reshape(kernel.shape[::-1])
    with pytest.raises(InvalidInputError, match="not the weights of") as caught:
        registry.build_backbone(SMALL, 32, small_file)
    _one_line(caught)


def _kernels(file):
    names = []
    file.visit(names.append)
    return [name for name in names if getattr(file[name], "ndim", 0) == 4]


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(small_file, kept):
    content = small_file.read_bytes()
    small_file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CorruptFileError, match="truncated") as caught:
        registry.build_backbone(SMALL, 32, small_file)
    _one_line(caught)


def test_a_wrong_digest_names_both(small_files):
    path = small_files[0]
    found = registry.weights_identity(SMALL, path).removeprefix("sha256:")
    with pytest.raises(CorruptFileError, match=f"expected SHA-256 {'0' * 64}, received {found}"):
        registry.build_backbone(SMALL, 32, path, weights_sha256="0" * 64)
    with pytest.raises(OnepassError, match="--weights FILE"):
        registry.build_backbone(SMALL, 32, "none", weights_sha256="0" * 64)


def test_a_missing_file_and_other_formats_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="no such weights file"):
        registry.build_backbone(SMALL, 32, tmp_path / "none.weights.h5")
    for name in ("model.keras", "model.pkl"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InvalidInputError, match=r"expected a weights file named"):
            registry.build_backbone(SMALL, 32, tmp_path / name)


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage"])
def test_a_file_that_points_outside_itself_is_refused(tmp_path, kind):
    path = tmp_path / "hostile.weights.h5"
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(path, "w") as file:
        if kind == "external link":
            file["layers"] = h5py.ExternalLink("other.h5", "/layers")
        elif kind == "soft link":
            file["layers"] = h5py.SoftLink("/elsewhere")
        else:
            external = [(str(tmp_path / "secret"), 0, 64)]
            file.create_dataset("layers/x", (16,), "float32", external=external)
    with pytest.raises(InvalidInputError, match=r"link|outside") as caught:
        registry.build_backbone(SMALL, 32, path)
    _one_line(caught)


def test_random_weights_follow_the_seed():
    pixels = _random_pixels(32)
    one, same, other = (
        _run(registry.build_backbone(SMALL, 32, "none", seed=seed), SMALL, pixels)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_vgg_has_no_single_dense_head():
    with pytest.raises(InvalidInputError, match="one dense layer"):
        registry.build_top(SPECS["vgg16"])
    with pytest.raises(InvalidInputError, match="without weights"):
        registry.build_top(SPECS["resnet50"], "none")
