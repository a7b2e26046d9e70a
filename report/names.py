"""Class names for people: short enough for a table, and unique."""

from collections import Counter

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
