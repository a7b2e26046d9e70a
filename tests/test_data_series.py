"""Names in series are noticed; plain numbers, and the numbers within a class, are not."""

import re

import numpy as np
import pytest
import regex

from onepass.data.series import parted_series

WORDS = ("left", "right", "front", "back")


def found(names: list[str], classes: int = 2) -> str:
    order = np.random.default_rng(0).permutation(len(names))
    cut = len(names) // 4
    series = parted_series(names, np.sort(order[cut:]), np.sort(order[:cut]), classes)
    return series.pattern if series else ""


IN_SERIES = {
    "crops": [f"patient_{p:02}_{crop}.jpg" for p in range(40) for crop in range(4)],
    "numbers": [f"{p:04}-{crop}.png" for p in range(40) for crop in range(4)],
    "brackets": [f"scan {p} ({crop}).png" for p in range(40) for crop in range(4)],
    "letters": [f"img/{p}{crop}.png" for p in range(40) for crop in "abcd"],
    "words": [f"cell{p}_{word}.png" for p in range(40) for word in WORDS],
    "without a suffix": [f"{p}_{crop}" for p in range(40) for crop in range(4)],
    "over classes": [f"{'ab'[crop % 2]}/p{p}_{crop}.jpg" for p in range(40) for crop in range(4)],
}
PLAIN = {
    "camera": [f"IMG_{n:04}.JPG" for n in range(160)],
    "digits": [f"{n:06}.png" for n in range(160)],
    "classes": [f"{name}/{name}_{n}.jpg" for name in ("cat", "dog") for n in range(80)],
    "in every class": [f"{c}/{n}.{('png', 'jpg')[n % 2]}" for c in "abc" for n in range(60)],
    "Tiny ImageNet": [f"n{c:08}_{n}.JPEG" for c in range(20) for n in range(10)],
    "parts": [f"camera{c}_{n:05}.png" for c in range(6) for n in range(200)],
    "digests": [f"{n * 7919 % 10007:05}f_{n % 13}.jpg" for n in range(160)],
    "words": [f"{a} {b}.jpg" for a in ("red", "green") for b in ("apple", "pear", "car", "house")]
    * 20,
}


@pytest.mark.parametrize("kind", IN_SERIES)
def test_a_series_is_found_with_the_expression_that_keeps_it_together(kind: str) -> None:
    names = IN_SERIES[kind]
    pattern = regex.compile(found(names))
    groups = [pattern.search(name)[1] for name in names]  # as --group-by does
    same = [re.search(r"\d+", name.rpartition("/")[2])[0] for name in names]
    assert len(set(zip(groups, same, strict=True))) == len(set(groups)) == 40


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_numbers_are_no_series(kind: str) -> None:
    assert found(PLAIN[kind], classes={"Tiny ImageNet": 20, "in every class": 3}.get(kind, 2)) == ""
