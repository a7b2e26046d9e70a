"""The heads by name; a head's module is imported when it is asked for, and not before."""

from importlib import import_module
from typing import TYPE_CHECKING

from cache.errors import unknown_name

if TYPE_CHECKING:
    from classify.heads.base import Head

PROBES = {
    "logistic": "classify.heads.logistic:Logistic",
    "ridge": "classify.heads.ridge:Ridge",
    "centroid": "classify.heads.centroid:Centroid",
    "knn": "classify.heads.neighbours:Neighbours",
    "lda": "classify.heads.lda:Lda",
    "dense": "classify.heads.dense:Dense",
    "mlp": "classify.heads.mlp:Mlp",
}
FLOOR = {
    "majority": "classify.heads.majority:Majority",
    "guess": "classify.heads.guess:Guess",
    "imagenet": "classify.heads.imagenet:ImageNet",
    "cnn": "classify.heads.cnn:Cnn",
}
POOLS = {
    "average": "classify.heads.pool:Average",
    "stack": "classify.heads.pool:Stack",
}


def find_head(name: str) -> "type[Head]":
    """Return the class of a head.

    Raises:
        UnknownNameError: There is none of that name; the nearest are named.
    """
    known = PROBES | FLOOR | POOLS
    if name not in known:
        raise unknown_name("head", name, PROBES)
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)
