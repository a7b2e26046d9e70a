"""Names for people: of classes, short enough for a table and unique; of features, without the marks of a key."""

from collections import Counter

from onepass.cache.features import OPENVINO, parse_key_text

LONG = 28  # characters; a longer name is cut to its first synonym
LONGEST = 60


def display_names(class_ids: list[str], class_names: list[str]) -> list[str]:
    """Return a unique name for each class.

    WordNet's names list synonyms, such as "koala, koala bear, kangaroo bear, native bear": the first
    is enough where no other class begins with it. A name that two classes share gets the class's id.
    """
    first = [name.split(",")[0].strip() for name in class_names]
    shared = Counter(first) + Counter(n for n, f in zip(class_names, first, strict=True) if n != f)
    names = [
        short if len(name) > LONG and short and shared[short] == 1 else name
        for name, short in zip(class_names, first, strict=True)
    ]
    names = [name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in names]
    counts = Counter(names)
    return [
        name if counts[name] == 1 and name.strip() else f"{name} ({identity})".strip()
        for name, identity in zip(names, class_ids, strict=True)
    ]


def feature_words(text: str) -> str:
    """Return a feature key's text in words: `vgg16@64=openvino_bfloat16` as `vgg16 at 64 px (OpenVINO, bfloat16)`."""
    parts = parse_key_text(text)
    precision = parts.get("precision", "").replace(OPENVINO, "OpenVINO, ")
    told = (
        parts.get("variant") and f"weights {parts['variant']}",
        parts.get("layer") and f"layer {parts['layer']}",
        parts.get("view"),
        parts.get("pooling") and f"{parts['pooling']} pooling",
        precision,
        parts.get("dtype") and f"stored as {parts['dtype']}",
    )
    details = "; ".join(filter(None, told))
    return f"{parts['backbone']} at {parts['size']} px" + (f" ({details})" if details else "")
