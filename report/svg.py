"""matplotlib's SVG, adapted to stand inside the page.

The page's policy forbids styles inside elements, so they become attributes, which also lets the style
sheet replace the colours in dark mode. Groups named by `tip` get a `<title>`, which browsers show as a tooltip.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

from markupsafe import Markup

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
TIP = "tip:"
Adorn = Callable[[ElementTree.Element], None]
DROPPED = ("font-family", "font-stretch", "font-variant", "font-style")  # the page's own are used


def page_svg(text: str, alt: str, adorn: Adorn | None = None) -> Markup:
    """Return a figure as an element of the page.

    Args:
        text: SVG as matplotlib writes it.
        alt: Description for screen readers.
        adorn: Adds to its root what matplotlib does not draw.
    """
    root = ElementTree.fromstring(text)  # noqa: S314  our own drawing
    for element in list(root.iter()):
        _plain(element)
    for marker in root.iterfind(f".//{{{SVG}}}defs/{{{SVG}}}path"):
        marker.attrib.pop(
            "stroke", None
        )  # it takes that of its use, which the style sheet can replace
    for child in list(root):
        # The author, a global style, and clips of what never leaves them.
        if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}defs"):
            root.remove(child)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update({"role": "img", "aria-label": alt})
    if adorn:
        adorn(root)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704  escaped there


def _plain(element: ElementTree.Element) -> None:
    """Turn the style of one element into attributes and the id of a group into its tooltip."""
    for rule in element.attrib.pop("style", "").split(";"):
        name, _, value = rule.partition(":")
        if value and name.strip() not in DROPPED:
            element.set(name.strip(), value.strip())
    element.attrib.pop("clip-path", None)
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if element.tag == f"{{{SVG}}}path" and "d" in element.attrib:
        element.set("d", " ".join(element.attrib["d"].split()))
    if element.tag == f"{{{SVG}}}g" and (name := element.attrib.pop("id", "")).startswith(TIP):
        title = ElementTree.Element(f"{{{SVG}}}title")
        title.text = name.removeprefix(TIP)
        element.insert(0, title)
    element.tail = None
    if element.text is not None and not element.text.strip():
        element.text = None
