"""Is what an operating point promises kept on new images?

    python benchmarks/operating_points.py [--seeds 20] [--rows 40000] [--head ridge lda]

(a) rare: Tiny ImageNet, for each seed another 10 of the 200 classes as the positive class (5 %) and other training
rows, a tenth of them to choose the threshold on; the 10,000 validation images are new. (b) solar cells: for each seed
another split, three quarters to train (a tenth of them to choose on), one quarter new. Of each goal: the mean rate on
the new images over the seeds with its 95 % interval, its deviation, and in how many seeds it lay within the interval
that was stated with the promise (of the threshold's own rate and the new images' chance: beta-binomial).
Features of both are found by ONEPASS_CACHE; what is not stored is left out. The last line is JSON.
"""

import argparse
import json
from collections.abc import Iterator

from common import machine

GOALS = (
    "sensitivity=0.95",
    "sensitivity=0.8",
    "specificity=0.95",
    "precision=0.5",
    "cost=FP:1,FN:20",
)
DATA = {
    "rare": ("tiny-imagenet", "efficientnet_lite0@128"),
    "solar cells": ("solar-cells", "efficientnet_lite0@300"),
}
POSITIVE = 10  # classes of 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--head", nargs="+", default=["ridge", "lda"])
    options = parser.parse_args()
    from onepass.cache.commandline.flags import StoreConfig
    from onepass.cache.errors import OnepassError
    from onepass.data.features import labelled_features

    print(machine())
    found = {}
    for name, (dataset, key) in DATA.items():
        try:
            features = labelled_features(StoreConfig().store, dataset, [key])
        except OnepassError as error:
            print(f"{name}: left out ({error})")
            continue
        splits = _rare if name == "rare" else _solar
        for head in options.head:
            found[f"{name}, {head}"] = _measure(head, features, splits, options.seeds, options.rows)
            _print(name, head, found[f"{name}, {head}"])
    print(json.dumps(found))


def _rare(features, rows: int, seed: int):
    """Return labels, training rows and new rows: 10 of the classes are the positive one."""
    import numpy as np

    random = np.random.default_rng(seed)
    positive = random.choice(len(features.class_ids), POSITIVE, replace=False)
    train = random.permutation(features.rows("train"))[:rows]
    return np.isin(features.labels, positive).astype(int), train, features.rows("val")


def _solar(features, rows: int, seed: int):
    """Return labels, training rows and new rows of another split."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    every = np.arange(len(features.labels))
    train, new = train_test_split(
        every, test_size=0.25, stratify=features.labels, random_state=seed
    )
    return features.labels, train, new


def _measure(kind: str, features, splits, seeds: int, rows: int) -> dict:
    """Return, by goal, the rates of each seed and whether they lie in the stated interval."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    from onepass.cache.errors import InvalidInputError
    from onepass.classify.baselines import make_head
    from onepass.classify.goals import CostGoal, parse_goal
    from onepass.classify.operating_points import mean_cost, operating_point
    from onepass.classify.protocol.evaluate import ProtocolRows, run_probe

    found: dict = {goal: {"rate": [], "alarms": [], "inside": [], "refused": 0} for goal in GOALS}
    for seed in range(seeds):
        labels, train, new = splits(features, rows, seed)
        fit, selection = train_test_split(
            train, test_size=0.1, stratify=labels[train], random_state=seed
        )
        every = ProtocolRows(*map(np.sort, (fit, selection, train, new)), np.zeros(0, int))
        outcome = run_probe(make_head(kind, seed), features.X, labels, every)
        truth = labels == 1
        for text in GOALS:
            line, goal = found[text], parse_goal(text)
            try:
                point = operating_point(
                    goal,
                    ("1", "positive"),
                    (outcome.selection[:, 1], truth[every.selection]),
                    (outcome.val[:, 1], truth[every.val]),
                )
            except InvalidInputError:
                line["refused"] += 1
                continue
            made = point.validation
            assert made
            if isinstance(goal, CostGoal):
                usual = outcome.val[:, 1] >= 0.5
                plain = np.mean(
                    goal.false_alarm * (usual & ~truth[every.val])
                    + goal.miss * (~usual & truth[every.val])
                )
                line["rate"].append(mean_cost(goal, made) / plain)
            else:
                line["rate"].append(getattr(made, goal.kind).value)
                line["inside"] += _inside(point, goal, made)
            line["alarms"].append(made.false_alarms.value)
    return found


def _inside(point, goal, made) -> Iterator[bool]:
    """Yield whether the new images' rate lies where the stated interval and their own chance put it."""
    from scipy.stats import betabinom

    from onepass.classify.metrics import LEVEL

    if point.expected is None:
        return
    n = point.positives if goal.kind == "sensitivity" else point.negatives
    k = int((n + 1) * (1 - goal.share) + 1e-9)
    share = getattr(made, goal.kind)
    low, high = betabinom.interval(LEVEL, share.rows, n + 1 - k, k)
    yield bool(low <= share.count <= high)


def _print(name: str, head: str, found: dict) -> None:
    import numpy as np

    for goal, line in found.items():
        rates = np.array(line["rate"])
        if not len(rates):
            print(f"{name}, {head}, {goal}: refused {line['refused']}")
            continue
        error = 1.96 * rates.std(ddof=1) / np.sqrt(len(rates))
        print(
            f"{name}, {head}, {goal}: {rates.mean():.3f} ± {error:.3f}, deviation {rates.std(ddof=1):.3f}, inside "
            f"{sum(line['inside'])} of {len(line['inside'])}, false alarms {np.mean(line['alarms']):.3f}, "
            f"refused {line['refused']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
