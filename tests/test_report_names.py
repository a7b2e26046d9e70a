"""Names that a reader of the page can read."""

import pytest

from onepass.report.names import feature_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vgg16@64", "vgg16 at 64 px"),
        ("lite0@224=openvino_bfloat16", "lite0 at 224 px (OpenVINO, bfloat16)"),
        ("a@8#w:block_2+flip~max!float32", "a at 8 px (weights w; layer block_2; flip; max pooling; stored as float32)"),
    ],
)  # fmt: skip
def test_a_feature_key_in_words(text: str, words: str) -> None:
    assert feature_words(text) == words
