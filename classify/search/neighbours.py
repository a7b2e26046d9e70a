"""How the number of neighbours is searched: they are found once, and vote for every setting."""

from sklearn.base import clone

from onepass.classify.heads.neighbours.knn import Neighbours
from onepass.classify.search.search import Search, Trial

KS = {"quick": (5, 10, 20, 50, 100), "full": (1, 3, 5, 10, 20, 30, 50, 75, 100, 150, 200)}
TEMPERATURES = (0.02, 0.04, 0.07, 0.1, 0.2)


def search_neighbours(search: Search[Neighbours]) -> list[Trial]:
    """Let more and fewer neighbours vote, many first, with each temperature."""
    fitted = clone(search.head).fit(search.split.X, search.split.y)
    found = fitted.neighbours(search.split.X_selection, max(KS[search.budget]))
    trials = []
    for k in sorted({min(k, len(fitted.rows_)) for k in KS[search.budget]}, reverse=True):
        for temperature in TEMPERATURES:
            head = fitted.with_params(k=k, temperature=temperature)
            trials.append(
                search.evaluate(head, {"k": k, "temperature": temperature}, head.vote(*found))
            )
    return trials
