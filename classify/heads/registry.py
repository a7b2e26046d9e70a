"""The heads by name; a head's module is imported when the head is asked for, not before."""

from typing import TYPE_CHECKING

from onepass.cache.errors import unknown_name
from onepass.cache.later import imported

if TYPE_CHECKING:
    from onepass.classify.heads.base import Head

PROBES = {
    "logistic": "onepass.classify.heads.linear.logistic:Logistic",
    "ridge": "onepass.classify.heads.linear.ridge:Ridge",
    "centroid": "onepass.classify.heads.linear.centroid:Centroid",
    "knn": "onepass.classify.heads.neighbours.knn:Neighbours",
    "lda": "onepass.classify.heads.linear.lda:Lda",
    "dense": "onepass.classify.heads.neural.dense:Dense",
    "mlp": "onepass.classify.heads.neural.mlp:Mlp",
}
BASELINES = {
    "majority": "onepass.classify.heads.baselines.blind:Majority",
    "guess": "onepass.classify.heads.baselines.blind:Guess",
    "imagenet": "onepass.classify.heads.baselines.imagenet:ImageNet",
    "cnn": "onepass.classify.heads.baselines.cnn:Cnn",
}
ENSEMBLES = {
    "average": "onepass.classify.heads.ensembles.ensembler:Average",
    "stack": "onepass.classify.heads.ensembles.ensembler:Stack",
}


def find_head(name: str) -> "type[Head]":
    """Return the class of a head.

    Raises:
        UnknownNameError: There is none of that name; the nearest are named.
    """
    known = PROBES | BASELINES | ENSEMBLES
    if name not in known:
        raise unknown_name("head", name, PROBES)
    return imported(known[name])
