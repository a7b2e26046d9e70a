"""What is `predict --prior` worth where the mix of classes in use differs from that of training?

    python benchmarks/prior.py [--draws 20]

A head learns from the training rows of Tiny ImageNet (200 classes) and of the solar cells, at its temperature. The
validation rows are drawn at other mixes: solar cells at 5 % defective, 400 a draw; Tiny ImageNet at shares that fall
geometrically, the first class a hundred times as frequent as the last in an order drawn anew, 4,000 a draw. Log-loss and
accuracy as they are, with the mix given, and estimated; and how far the estimate is off (total variation).
Features of both are found by ONEPASS_CACHE; what is not stored is left out. The last line is JSON.
"""

import argparse
import json

from common import machine

DATA = {
    "solar-cells": ("efficientnet_lite0@300", 400),
    "tiny-imagenet": ("efficientnet_lite0@128", 4_000),
}
DEFECTIVE, SPREAD = 0.05, 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    from onepass.cache.commandline.flags import StoreConfig
    from onepass.cache.errors import OnepassError
    from onepass.data.features import labelled_features

    print(machine())
    found = {}
    for name, (key, count) in DATA.items():
        try:
            features = labelled_features(StoreConfig().store, name, [key])
        except OnepassError as error:
            print(f"{name}: left out ({error})")
            continue
        found[name] = _measure(features, count, options.draws)
        for way, figures in found[name].items():
            print(f"{name}, {way}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    print(json.dumps(found))


def _measure(features, count: int, draws: int) -> dict:
    """Return, by what is known of the mix, the mean figures over the draws."""
    import numpy as np

    from onepass.classify.baselines import make_head
    from onepass.classify.metrics import (
        accuracy,
        apply_temperature,
        balanced_accuracy,
        calibration_temperature,
        log_loss,
        log_probabilities,
    )
    from onepass.classify.prior import Prior
    from onepass.classify.protocol.evaluate import ProtocolRows, run_probe

    labels, train = features.labels, features.rows("train")
    random = np.random.default_rng(0)
    selection = np.sort(random.choice(train, len(train) // 10, replace=False))
    fit = np.setdiff1d(train, selection)
    rows = ProtocolRows(fit, selection, train, features.rows("val"), np.zeros(0, int))
    outcome = run_probe(make_head("logistic", 0), features.X, labels, rows)
    temperature = calibration_temperature(labels[selection], outcome.selection)
    probabilities = apply_temperature(outcome.val.astype(np.float32), temperature)
    truth, classes = labels[rows.val], len(features.class_ids)
    learnt = tuple((np.bincount(labels[train], minlength=classes) / len(train)).tolist())
    lines: dict = {"as it is": [], "given": [], "estimated": []}
    for _ in range(draws):
        shares = np.array([1 - DEFECTIVE, DEFECTIVE])
        if classes > 2:
            shares = random.permutation(np.geomspace(SPREAD, 1, classes))
        weights = (shares / shares.sum() / np.bincount(truth, minlength=classes))[truth]
        drawn = random.choice(len(truth), count, p=weights / weights.sum())
        mix = tuple((shares / shares.sum()).tolist())
        own, seen = truth[drawn], probabilities[drawn]
        estimated = Prior(learnt, ()).settled(seen)
        ways = {
            "as it is": Prior(learnt, learnt),
            "given": Prior(learnt, mix),
            "estimated": estimated,
        }
        for way, prior in ways.items():
            p = prior.corrected(seen)
            lines[way].append(
                {
                    "log-loss": log_loss(own, log_probabilities(p)),
                    "top-1": accuracy(own, p.argmax(axis=1)),
                    "balanced accuracy": balanced_accuracy(own, p.argmax(axis=1)),
                    "mix off by": float(np.abs(np.subtract(prior.used, mix)).sum() / 2),
                }
            )
    return {way: {k: float(np.mean([one[k] for one in figures])) for k in figures[0]} for way, figures in lines.items()}  # fmt: skip


if __name__ == "__main__":
    main()
