"""extract/backbones/registry.py: names, sizes, listing, and what listing must not import."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from onepass.cache.errors import InvalidInputError, UnknownNameError
from onepass.data.imagenet import imagenet_wnids
from onepass.extract.backbones import registry


def test_names_are_unique_however_they_are_written():
    names = [spec.name.replace("_", "") for spec in registry.all_backbones()]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_the_default_is_first_and_comes_from_a_package():
    first = registry.all_backbones()[0]
    assert first.name == registry.DEFAULT_BACKBONE and first.offline


@pytest.mark.parametrize("written", ["ResNet50", "resnet-50", "RES_NET_50"])
def test_case_dashes_and_underscores_do_not_matter(written):
    assert registry.find_backbone(written).name == "resnet50"


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("resnet51", "resnet50"),
        ("efficientnet_lite3", "efficientnet_lite2"),
        ("mobilenet_v3", "mobilenetv3"),
    ],
)
def test_an_unknown_name_gets_its_nearest(written, near):
    with pytest.raises(UnknownNameError, match=near) as caught:
        registry.find_backbone(written)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [31, 0, -5, 4097])
def test_sizes_out_of_range(size):
    spec = registry.find_backbone("efficientnet_lite0")
    with pytest.raises(InvalidInputError, match=r"size: expected 32 … 4096 px, received"):
        registry.check_size(spec, size)


def test_kerashub_backbones_have_no_top():
    with pytest.raises(InvalidInputError, match="--logits"):
        registry.build_top(registry.find_backbone("resnet_18_imagenet"))


def test_wnids_are_keras_hubs_and_sorted():
    from keras_hub.src.utils.imagenet.imagenet_utils import IMAGENET_NAMES

    wnids = imagenet_wnids()
    assert wnids == [IMAGENET_NAMES[k][0] for k in range(1000)]
    assert wnids == sorted(set(wnids)) and len(wnids) == 1000


def test_rows_are_json_and_the_table_shows_each():
    rows = json.loads(json.dumps(registry.backbone_rows()))
    lines = registry.backbone_table(rows).splitlines()
    assert len(lines) == len(rows) + 1 == len(registry.all_backbones()) + 1
    assert lines[0].split()[:2] == ["name", "family"]
    for row, line in zip(rows, lines[1:], strict=True):
        assert line.split()[0] == row["name"]
        assert (" yes" in line) == row["offline"]


def test_the_list_can_be_filtered():
    def names(**how):
        return {row["name"] for row in registry.backbone_rows(**how)}

    every = names()
    assert {"efficientnet_lite0"} <= names(offline=True) < every
    small = names(fits=25e6)
    assert "mobilenetv2" in small and "vgg19" not in small
    apache = names(licence="apache-2.0")
    assert "siglip_base_patch16_224" in apache and "resnet50" not in apache
    assert names(fits=25e6, licence="Apache-2.0") == small & apache
    assert names(fits=0) == set() and registry.backbone_table([]).startswith("name")
    with pytest.raises(
        UnknownNameError, match=r"licence 'apache' is unknown; did you mean apache-2\.0"
    ):
        names(licence="apache")


def test_listing_imports_neither_keras_nor_tensorflow():
    code = (
        "import sys; from extract.backbones import registry; registry.backbone_table(registry.backbone_rows()); "
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'keras', 'tensorflow', 'keras_hub', 'jax', 'torch', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
