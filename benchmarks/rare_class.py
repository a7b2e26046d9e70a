"""Do `--metric average-precision --class-weight balanced` find a rare class better than the default?

    python benchmarks/rare_class.py [--seeds 20] [--rows 4000] [--ways "average precision"]

Tiny ImageNet, lite0@128: for each seed another 10 of the 200 classes are the positive class (5 %), with other training
rows; the 10,000 validation images are new. Heads are chosen as `onepass classify` does: with 4,000 rows on a tenth of
them by top-1, and by five folds by average precision, which is of 200 rows only. Of each way to choose, the best of
the default heads is refitted, and its average precision on the new images is compared over the seeds by a paired
t-test. Features are found by ONEPASS_CACHE. The last line is JSON.
"""

import argparse
import json
from dataclasses import replace

from common import machine

WAYS = {  # metric and class weights
    "default": ("top1", "none"),
    "average precision": ("average-precision", "none"),
    "average precision, balanced": ("average-precision", "balanced"),
}
POSITIVE = 10  # classes of 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument(
        "--ways", nargs="+", default=list(WAYS), choices=WAYS, help="besides the default"
    )
    options = parser.parse_args()
    import numpy as np
    from scipy.stats import ttest_rel

    from onepass.cache.commandline.flags import StoreConfig
    from onepass.data.features import labelled_features

    print(machine())
    features = labelled_features(StoreConfig().store, "tiny-imagenet", ["efficientnet_lite0@128"])
    ways = list(dict.fromkeys(["default", *options.ways]))
    found: dict[str, list[float]] = {way: [] for way in ways}
    winners: dict[str, list[str]] = {way: [] for way in ways}
    for seed in range(options.first, options.first + options.seeds):
        for way, (head, precision) in _compare(features, seed, options.rows, ways).items():
            found[way].append(precision)
            winners[way].append(head)
        print(
            seed, " · ".join(f"{way} {found[way][-1]:.4f} ({winners[way][-1]})" for way in ways),
            flush=True,
        )  # fmt: skip
    if options.seeds > 1:
        for way in ways:
            gain = np.subtract(found[way], found["default"])
            error = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
            p = ttest_rel(found[way], found["default"]).pvalue
            print(
                f"{way}: {np.mean(found[way]):.4f}, {gain.mean():+.4f} ± {error:.4f}, p = {p:.2g}, "
                f"better in {int(np.sum(gain > 0))}, worse in {int(np.sum(gain < 0))}"
            )
    print(json.dumps({"average_precision": found, "winners": winners}))


def _compare(features, seed: int, count: int, ways: list[str]) -> dict[str, tuple[str, float]]:
    """Return, of each way to choose, the winning head and its average precision on the new images."""
    import numpy as np

    from onepass.classify.baselines import make_head
    from onepass.classify.config import ClassifyConfig
    from onepass.classify.metrics import average_precision
    from onepass.classify.protocol.evaluate import metric_of, protocol_rows, run_probe
    from onepass.data.dataset import EXCLUDED

    random = np.random.default_rng(seed)
    positive = random.choice(len(features.class_ids), POSITIVE, replace=False)
    labels, split = (
        np.isin(features.labels, positive).astype(np.int32),
        features.dataset.split.copy(),
    )
    split[random.permutation(features.rows("train"))[count:]] = EXCLUDED
    classes = ["other", "rare"]
    dataset = replace(
        features.dataset, labels=labels, split=split, class_ids=classes, class_names=classes
    )
    found, known = {}, {}
    for way in ways:
        name, class_weight = WAYS[way]
        metric, tried = metric_of(dataset, name), []
        rows = protocol_rows(dataset, seed, "auto", metric)
        for kind in ClassifyConfig(dataset="").head:
            head = make_head(kind, seed, class_weight)
            same = kind == "knn" or "class_weight" not in head.get_params()  # whatever the weights
            key = (kind, name, "none" if same else class_weight)
            if key not in known:
                outcome = run_probe(head, features.X, labels, rows, metric=metric)
                precision = average_precision(labels[rows.val], outcome.val)
                known[key] = (-outcome.chosen.merit, outcome.chosen.log_loss, kind, precision)
            tried.append(known[key])
        _, _, kind, precision = min(tried)
        found[way] = (kind, precision)
    return found


if __name__ == "__main__":
    main()
