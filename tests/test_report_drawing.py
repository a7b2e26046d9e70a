"""Drawings: numbers land where they belong, names cannot break out, colours can be told apart."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from onepass.report.palette import COLOURS, SERIES, Style, series_style
from onepass.report.plot import DPI, POINT, Drawing, Plot, blank, shorten, styled, tip
from onepass.report.svg import SVG, XLINK

HOSTILE = '"><script>alert(1)</script>& $\\frac$'


def rgb(name: str, dark: bool = False) -> tuple[int, int, int]:
    """Return a colour as red, green and blue, 0 … 255."""
    text = COLOURS[name][dark]
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def luminance(colour: tuple[int, int, int]) -> float:
    parts = [v / 255 for v in colour]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("ground", ["paper", "soft"])
def test_text_and_marks_have_contrast(dark: bool, ground: str) -> None:
    behind = rgb(ground, dark)
    assert contrast(rgb("ink", dark), behind) >= 7
    assert all(contrast(rgb(name, dark), behind) >= 4.5 for name in ("muted", "accent"))
    assert all(contrast(rgb(name, dark), behind) >= 3 for name in SERIES)


def test_contrast_is_measured_as_wcag_says() -> None:
    assert contrast((255, 255, 255), (0, 0, 0)) == pytest.approx(21)
    assert contrast((255, 255, 255), (118, 118, 118)) == pytest.approx(4.54, abs=0.01)


def test_series_differ_in_colour_and_shape() -> None:
    looks = {(series_style(i).colour, series_style(i).shape) for i in range(len(SERIES))}
    assert len(looks) == len(SERIES) == len({COLOURS[name][0] for name in SERIES})


@styled
def plot_of(points: list[tuple[float, float]], name: str = "series", **options: bool) -> Plot:
    plot = Plot(name, name, [(name, series_style(0)), ("other", series_style(1))], **options)
    plot.curve(points, Style("s1"), [f"{name} {i}" for i in range(len(points))])
    return plot


def parsed(drawing: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(str(drawing.svg("figure")))


def test_larger_values_are_drawn_higher_and_further_right() -> None:
    root = parsed(plot_of([(1, 10), (10, 20), (100, 15)], log=True).drawing("alt"))
    marks = [g for g in root.iter(f"{{{SVG}}}g") if (t := g.find(f"{{{SVG}}}title")) is not None and t.text]  # fmt: skip
    places = [(float(u.get("x", "")), float(u.get("y", ""))) for g in marks for u in g.iter(f"{{{SVG}}}use")]  # fmt: skip
    (x0, y0), (x1, y1), (x2, y2) = places
    assert y1 < y2 < y0 and x1 - x0 == pytest.approx(x2 - x1)
    assert [g[0].text for g in marks] == ["series 0", "series 1", "series 2"]


def test_svg_is_well_formed_and_every_text_is_escaped() -> None:
    svg = str(plot_of([(1, 2), (2, 3)], HOSTILE).drawing(HOSTILE).svg("figure"))
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == HOSTILE and root.attrib["role"] == "img"
    texts = [element.text for element in root.iter(f"{{{SVG}}}text")]
    assert texts.count(HOSTILE) == 3 and "<script" not in svg
    assert [e.text for e in root.iter(f"{{{SVG}}}title")] == [f"{HOSTILE} 0", f"{HOSTILE} 1"]


def test_svg_obeys_the_policy_of_the_page() -> None:
    root = parsed(plot_of([(1, 2), (2, 3)]).drawing("alt"))
    assert not [e for e in root.iter() if "style" in e.attrib or e.tag.endswith("}style")]
    links = [e.get(f"{{{XLINK}}}href", "#") for e in root.iter()]
    assert all(link.startswith("#") for link in links)
    colours = {e.get(name) for e in root.iter() for name in ("fill", "stroke")} - {None, "none"}
    assert colours <= {light for light, _ in COLOURS.values()}  # each has a dark counterpart


def test_the_same_numbers_give_the_same_bytes_and_figures_do_not_share_names() -> None:
    first, second = (plot_of([(1, 2), (2, 3)]).drawing("alt") for _ in range(2))
    assert first.svg("a") == second.svg("a") and first.png() == second.png()
    names = [{e.get("id") for e in ElementTree.fromstring(str(first.svg(n))).iter()} for n in "ab"]
    assert names[0] & names[1] <= {None}


@styled
def test_png_shows_what_was_drawn() -> None:
    canvas, axes = blank(60, 40)
    axes.set_axis_off()
    axes.barh([0], [1], color=COLOURS["s1"][0], gid=tip("bar"))
    image = Image.open(io.BytesIO(Drawing(canvas, "alt").png())).convert("RGB")
    assert image.size == (60 * DPI // POINT, 40 * DPI // POINT)
    assert np.allclose(image.getpixel((image.width // 2, image.height // 2)), rgb("s1"), atol=3)
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_letters_that_the_font_lacks_and_control_characters_are_no_trouble() -> None:
    drawing = plot_of([(1, 2), (2, 3)], "字\x00\n\u202e").drawing("alt")
    assert drawing.png().startswith(b"\x89PNG") and "字" in drawing.svg("a")


def test_a_text_is_cut_to_its_room() -> None:
    assert shorten("short") == "short" and shorten("a\nb") == "a b"
    assert shorten("a very long name", 8) == "a very …"
