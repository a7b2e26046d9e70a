"""A map of the validation images by their vectors: each point shows its image where it is pointed at or focused."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import numpy as np
from PIL import Image

from onepass.cache.keras_settings import check_keras
from onepass.cache.stderr import suppress_stderr
from onepass.classify.heads.neighbours.nearest import unit_length
from onepass.data.dataset import ImageDataset
from onepass.data.shown import as_image, data_uri
from onepass.report.context import EvaluatedModel
from onepass.report.figures.figure import Figure
from onepass.report.palette import SERIES, Style, series_style
from onepass.report.plot import Plot, shorten, styled
from onepass.report.svg import SVG

POINTS = 240
FITTED = 5_000  # vectors that the projection is fitted on
SIDE, ACROSS = 56, 16  # px of a thumbnail, thumbnails side by side on the sheet
PANEL, GAP = 112, 12  # units of the SVG: the image that is shown below the plot
NAME = "embedding"
HINT = "Point at a point, or focus it, to see its image."
QUALITY = 72  # of the JPEG
RIGHT = Style("s1", "circle", "")  # where there are too many classes for a colour each
WRONG = Style("muted", "circle", "", hollow=True)


def add_images(
    root: ElementTree.Element, name: str, sheet: str, captions: Sequence[tuple[str, str]]
) -> None:
    """Let each point, in order, show its image below the plot; no script is needed, the style sheet does it.

    Args:
        root: SVG of the plot. What has a tooltip is a point.
        name: Of the figure.
        sheet: All images on one, from `thumbnail_sheet`.
        captions: Two lines beside each image.
    """
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    size = f"0 0 {width:g} {height + PANEL + GAP:g}"
    root.attrib.update({"viewBox": size, "role": "group", "class": "map"})
    left, top = 3 * GAP, height + GAP
    rows = -(-len(captions) // ACROSS)
    known = _element("defs")
    whole = {"width": f"{ACROSS * SIDE}", "height": f"{rows * SIDE}", "href": sheet}
    known.append(_element("image", id=f"{name}-sheet", **whole))
    clip = _element("clipPath", id=f"{name}-panel")
    box = {"x": f"{left:g}", "y": f"{top:g}", "width": f"{PANEL}", "height": f"{PANEL}"}
    clip.append(_element("rect", **box))
    known.append(clip)
    root.insert(0, known)
    points = [
        group for group in root.iter(f"{{{SVG}}}g") if group.find(f"{{{SVG}}}title") is not None
    ]
    for number, (group, lines) in enumerate(zip(points, captions, strict=True)):
        group.attrib.update({"class": "point", "tabindex": "0", "role": "img"})
        x, y = left - number % ACROSS * PANEL, top - number // ACROSS * PANEL
        shown = _element("g", **{"class": "shown", "clip-path": f"url(#{name}-panel)"})
        place = f"translate({x:g} {y:g}) scale({PANEL / SIDE:g})"
        shown.append(_element("use", href=f"#{name}-sheet", transform=place))
        group.append(shown)
        group.extend(_beside(left, top, line, text, "shown") for line, text in enumerate(lines))
    root.append(_beside(left - PANEL, top, 0, HINT, "hint"))


def _beside(left: float, top: float, line: int, text: str, kind: str) -> ElementTree.Element:
    """Return a line of text to the right of the image."""
    place = {"x": f"{left + PANEL + GAP:g}", "y": f"{top + 20 + 16 * line:g}"}
    return _element("text", text, **place, **{"class": kind})


def _element(tag: str, text: str = "", /, **attributes: str) -> ElementTree.Element:
    made = ElementTree.Element(f"{{{SVG}}}{tag}", attributes)
    made.text = text or None
    return made


@styled
def embedding_figure(
    dataset: ImageDataset, vectors: np.ndarray, model: EvaluatedModel, names: Sequence[str]
) -> Figure:
    """Return the map of some validation images.

    Args:
        dataset: Of the images.
        vectors: (N, D) of every image.
        model: Whose answers are right or wrong.
        names: Of the classes.
    """
    val = dataset.rows("val")
    random = np.random.default_rng(0)
    fitted = np.sort(random.permutation(len(val))[:FITTED])
    places, axes, how = project(unit_length(vectors[val[fitted]].astype(np.float32)))
    chosen = np.sort(random.permutation(len(fitted))[:POINTS])
    by_class = len(names) <= len(SERIES)
    styles = [series_style(k) if by_class else RIGHT for k in range(len(names))]
    styles = [replace(style, line="") for style in styles]
    legend = [*zip(names, styles, strict=True)] if by_class else [("right", RIGHT)]
    plot = Plot(*axes, [*legend, ("wrong", WRONG)])
    rows, captions = [], []
    for place, i in zip(places[chosen].tolist(), fitted[chosen].tolist(), strict=True):
        truth, predicted = int(model.truth[i]), int(model.predicted[i])
        wrong = truth != predicted
        style = replace(styles[truth] if by_class or not wrong else WRONG, hollow=wrong)
        said = f"{names[truth]}, predicted as {names[predicted]}" if wrong else names[truth]
        file = dataset.names[val[i]]
        plot.curve([tuple(place)], style, [f"{file}: {said}"])
        captions.append((shorten(said, 36), shorten(file, 36)))
        rows.append((file, names[truth], names[predicted], *place))
    alt = f"Map of {len(rows)} validation images by {how}"
    sheet = thumbnail_sheet(dataset.pixels[val[fitted[chosen]]])
    return Figure(
        NAME,
        "Map of the images",
        f"{len(rows):,} of {len(val):,} validation images, placed by {how} of the vectors, of length 1, that the winner looks at: "
        "what lies near each other looks alike to the backbone. Hollow: classified wrongly.",
        plot.drawing(alt, partial(add_images, name=NAME, sheet=sheet, captions=captions)),
        ("file", "class", "predicted", *axes),
        rows,
    )


def project(vectors: np.ndarray) -> tuple[np.ndarray, tuple[str, str], str]:
    """Return places (n, 2) of vectors (n, D), what the axes are called, and how it was done: UMAP where it is installed."""
    if find_spec("umap") and len(vectors) > 15:  # its neighbourhoods are of 15
        check_keras()
        with suppress_stderr():  # it looks whether TensorFlow is there
            from umap import UMAP

        places = UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(vectors)
        return np.asarray(places, np.float64), ("UMAP 1", "UMAP 2"), "UMAP"
    from sklearn.decomposition import PCA

    pca = PCA(2, random_state=0, svd_solver="randomized").fit(vectors)
    first, second = (
        f"component {k} ({100 * share:.0f} % of variance)"
        for k, share in enumerate(pca.explained_variance_ratio_, 1)
    )
    return pca.transform(vectors).astype(np.float64), (first, second), "PCA"


def thumbnail_sheet(pixels: np.ndarray) -> str:
    """Return images, uint8 (n, H, W, 1 or 3), as one JPEG, ACROSS side by side, as a data URI."""
    grey = pixels.shape[-1] == 1
    rows = -(-len(pixels) // ACROSS)
    sheet = Image.new("L" if grey else "RGB", (ACROSS * SIDE, rows * SIDE))
    for number, one in enumerate(pixels):
        resized = as_image(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        sheet.paste(resized, (number % ACROSS * SIDE, number // ACROSS * SIDE))
    return data_uri(sheet, "jpeg", quality=QUALITY, optimize=True)
