"""How the hyper-parameters of each kind of head are searched; imported when it is asked for."""

from typing import TYPE_CHECKING

from onepass.cache.errors import unknown_name
from onepass.cache.later import imported

if TYPE_CHECKING:
    from onepass.classify.search.search import Strategy

STRATEGIES = {
    "logistic": "onepass.classify.search.linear:search_logistic",
    "ridge": "onepass.classify.search.linear:search_ridge",
    "centroid": "onepass.classify.search.linear:search_centroid",
    "knn": "onepass.classify.search.neighbours:search_neighbours",
    "lda": "onepass.classify.search.linear:search_lda",
    "dense": "onepass.classify.search.neural:search_network",
    "mlp": "onepass.classify.search.neural:search_network",
    "majority": "onepass.classify.search.baselines:fit_once",
    "guess": "onepass.classify.search.baselines:fit_once",
    "imagenet": "onepass.classify.search.baselines:fit_once",
    "cnn": "onepass.classify.search.baselines:search_cnn",
    "average": "onepass.classify.search.baselines:fit_once",
    "stack": "onepass.classify.search.ensembles:search_stack",
}


def find_strategy(kind: str) -> "Strategy":
    """Return the search strategy of a kind of head.

    Raises:
        UnknownNameError: There is none; the nearest are named.
    """
    if kind not in STRATEGIES:
        raise unknown_name("search strategy", kind, STRATEGIES)
    return imported(STRATEGIES[kind])
