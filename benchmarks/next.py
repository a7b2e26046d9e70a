"""What `onepass classify next` is worth: accuracy after the chosen images are labelled, against random ones.

    python benchmarks/next.py --store STORE --dataset solar-cells [--labelled 100] [--count 100] [--seeds 20]
                              [--head ridge] [--rules margin k-center both typical]

The labels of a prepared data set are hidden but for a few training images (the beginning of `nested_order`). A head
learns from these, each rule chooses as many more among the rest of four fifths of the training rows, and the head
learns again. The other fifth says how good it is. All rules begin with the same images; reported are mean accuracies
over the seeds, and each rule's gain on random choice with the 95 % interval of its mean. The last line is JSON.
"""

import argparse
import json
from pathlib import Path

from common import machine

RULES = ("random", "margin", "k-center", "both", "typical")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--head", default="ridge")
    parser.add_argument("--rules", nargs="+", default=RULES[1:], choices=RULES[1:])
    for name, default in (("labelled", 100), ("count", 100), ("seeds", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    import numpy as np
    from scipy import stats

    from onepass.classify.analysis.labelling import choose
    from onepass.classify.baselines import make_head
    from onepass.classify.metrics import accuracy
    from onepass.classify.protocol.inputs import feature_inputs
    from onepass.classify.search.search import Search, Split, best_trial
    from onepass.data.dataset import open_dataset
    from onepass.data.splits import fold_split, nested_order, selection_split

    print(machine())
    dataset = open_dataset(options.store, options.dataset)
    inputs, *_ = feature_inputs(options.store, dataset, ())
    X, labels, content = inputs.vectors(), dataset.labels, dataset.content
    train = dataset.rows("train")

    def learn(rows: np.ndarray, seed: int):
        fit, selection = selection_split(labels, rows, content, fraction=0.2, seed=seed)
        split = Split(X[fit], labels[fit], X[selection], labels[selection])
        chosen = best_trial(Search(make_head(options.head, 0), split).run())
        return chosen.head.refit(X[np.sort(rows)], labels[np.sort(rows)])

    rules = ("random", *options.rules)
    found = {rule: [] for rule in ("start", *rules)}
    for seed in range(options.seeds):
        dealt = fold_split(labels, train, content, dataset.groups, seed=seed)
        order = nested_order(labels, train[dealt != 0], content, dataset.groups, seed=seed)
        held, known, rest = train[dealt == 0], order[: options.labelled], np.sort(order[options.labelled :])  # fmt: skip
        head = learn(known, seed)
        found["start"].append(accuracy(labels[held], head.predict(X[held])))
        probabilities = head.predict_proba(X[rest])
        for rule in rules:
            if rule == "random":
                more = np.random.default_rng(seed).permutation(len(rest))[: options.count]
            else:
                more = choose(X[rest], probabilities, X[known], options.count, rule)
            later = learn(np.concatenate([known, rest[more]]), seed)
            found[rule].append(accuracy(labels[held], later.predict(X[held])))
        print(seed, {rule: round(100 * values[-1], 1) for rule, values in found.items()}, flush=True)  # fmt: skip
    report = {rule: float(np.mean(values)) for rule, values in found.items()}
    for rule in options.rules:
        gains = np.array(found[rule]) - np.array(found["random"])
        half = float(stats.sem(gains) * stats.t.ppf(0.975, len(gains) - 1))
        report[f"{rule} gain"], report[f"{rule} ±"] = float(gains.mean()), half
        print(f"{rule}: {100 * report[rule]:.1f} %, {100 * gains.mean():+.1f} ± {100 * half:.1f} points on random choice ({100 * report['random']:.1f} %)")  # fmt: skip
    print(json.dumps({**vars(options), "store": options.store.name, **report}))


if __name__ == "__main__":
    main()
