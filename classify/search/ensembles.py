"""How the penalty of a stack is searched."""

from onepass.classify.heads.ensembles.ensembler import Stack
from onepass.classify.search.search import Search, Trial

PENALTIES = (1.0, 0.1, 0.01, 0.001)


def search_stack(search: Search[Stack]) -> list[Trial]:
    """Try penalties from strong to weak."""
    trials = []
    for penalty in PENALTIES:
        head = search.head.with_params(penalty=penalty).fit(search.split.X, search.split.y)
        trials.append(search.evaluate(head, {"penalty": penalty}))
    return trials
