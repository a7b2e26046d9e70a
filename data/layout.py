"""What the names of folders say: which are splits, and whether classes may be splits in disguise."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import combinations

from onepass.cache.features import SPLITS

SPLIT_WORDS = {
    "train": r"train(?:ing)?|trn",
    "val": r"val|valid(?:ation)?|validate|dev|devel(?:opment)?|eval(?:uation)?",
    "test": r"tests?|testing|tst|holdout",
}
FILLER = r"(?:data)?sets?|data|images?|imgs?|pictures?|pics?|photos?|files?|splits?|samples?"
JOINED = {
    split: re.compile(rf"(?:{words})(?:{FILLER})*") for split, words in SPLIT_WORDS.items()
}  # testset, trainimages
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")


def one_form(name: str) -> str:
    """Return a name in Unicode's form NFC: macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def split_of(folder: str, ignored: Iterable[str] = ()) -> str:
    """Return the split that a folder's name means: Training, train_images, 01-TEST, valSet; "" for none.

    Args:
        folder: Its name.
        ignored: Words, in lower case, that say nothing.
    """
    words = [word.casefold() for word in WORD.findall(folder)]
    telling = "".join(w for w in words if w not in ignored and not re.fullmatch(FILLER, w))
    return next((split for split in SPLITS if JOINED[split].fullmatch(telling)), "")


def splits_of(folders: Sequence[str]) -> dict[str, list[str]]:
    """Return the folders that mean each split, among folders that lie side by side.

    Words that all of them share say nothing, as in seg_train and seg_test.
    """
    words = [{word.casefold() for word in WORD.findall(folder)} for folder in folders]
    shared = set.intersection(*words) if len(words) > 1 else set()
    found: dict[str, list[str]] = {}
    for folder in folders:
        if split := split_of(folder, shared):
            found.setdefault(split, []).append(folder)
    return found


def twins(inside: Mapping[str, Set[str]]) -> tuple[str, str] | None:
    """Return two folders that share at least two names of sub-folders, as splits do; None where none do.

    Args:
        inside: The names of the sub-folders by folder.
    """
    for first, second in combinations(sorted(f for f in inside if len(inside[f]) > 1), 2):
        if len(inside[first] & inside[second]) > 1:
            return first, second
    return None
