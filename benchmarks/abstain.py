"""How many known pictures `onepass predict --abstain 0.05` leaves open, over many draws of training and validation rows.

    python benchmarks/abstain.py DATASET FEATURES [--seeds 20] [--train N] [--val N] [--cache-dir …] [--runs-dir …]

For each probe of the leaderboard on these features, with the hyper-parameters that were chosen for it: training
and validation rows are drawn anew, the head is fitted, known rows are those of the selection split or, where they
are few, all training rows in folds, as `onepass.predict.known` does it. The last line is JSON: for each head the
mean, deviation, least and greatest share (%), and the share of draws within 4 to 6 %.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import machine
from sklearn.base import clone

import onepass
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.metrics import calibration_temperature
from onepass.data.splits import fold_split, selection_split
from onepass.predict.known import ENOUGH, FOLDS, left_out_probabilities
from onepass.predict.novelty import REFERENCE, Novelty, sample_rows
from onepass.predict.pixel_models import ProbeModel, VectorSpec

RATE = 0.05
SPEC = VectorSpec("any", "any", 0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("features")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--train", type=int, default=0, help="rows (default: as many as it has)")
    parser.add_argument("--val", type=int, default=0)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache/store"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    dataset = onepass.open_dataset(options.dataset, cache_dir=options.cache_dir)
    X = onepass.open_features(options.dataset, options.features, cache_dir=options.cache_dir).X
    board = Leaderboard.load(options.runs_dir / options.dataset, options.dataset, dataset.digest)
    lines = [line for line in board.ranked if line.features == (options.features,)]
    labelled = np.concatenate([dataset.rows("train"), dataset.rows("val")])
    n_train = options.train or len(dataset.rows("train"))
    n_val = options.val or len(dataset.rows("val"))
    found = defaultdict(list)
    for seed in range(options.seeds):
        rows = np.random.default_rng(seed).permutation(labelled)
        train, val = np.sort(rows[:n_train]), np.sort(rows[n_train : n_train + n_val])
        Xt, y = {SPEC: np.asarray(X[train])}, dataset.labels[train]
        fit, selection = (
            np.searchsorted(train, part)
            for part in selection_split(dataset.labels, train, dataset.content, seed=seed)
        )
        fold = fold_split(dataset.labels, train, dataset.content, folds=FOLDS, seed=seed)
        places = np.arange(n_train)
        for line in lines:
            head = clone(load_head(board.head_folder(line)))
            chosen = ProbeModel(((SPEC,),), clone(head).fit(Xt[SPEC][fit], y[fit]))
            held = chosen.probabilities({SPEC: Xt[SPEC][selection]})
            temperature = calibration_temperature(y[selection], held)
            model = ProbeModel(((SPEC,),), clone(head).fit(Xt[SPEC], y), temperature)
            if len(selection) < min(ENOUGH, n_train):
                known, sure = places, left_out_probabilities(model, Xt, y, fold)
            else:
                chosen = replace(chosen, temperature=temperature)
                known = selection
                sure = chosen.probabilities({SPEC: Xt[SPEC][selection]})
            novelty = Novelty.learn(
                (SPEC,), Xt[SPEC], sample_rows(places, REFERENCE), known, places, sure, y[known]
            )
            new = {SPEC: np.asarray(X[val])}
            reasons = novelty.abstention(RATE).reasons(
                novelty.distance(new), model.probabilities(new).max(axis=1)
            )
            found[line.head].append(100 * np.mean([bool(reason) for reason in reasons]))
        print(
            f"seed {seed}: " + ", ".join(f"{h} {v[-1]:.1f} %" for h, v in found.items()), flush=True
        )
    print(machine())
    figures = {
        head: {
            "mean": round(float(np.mean(v)), 2),
            "deviation": round(float(np.std(v, ddof=1)), 2),
            "least": round(min(v), 1),
            "greatest": round(max(v), 1),
            "within": round(float(np.mean(np.abs(np.array(v) - 100 * RATE) <= 1)), 2),
        }
        for head, v in found.items()
    }
    for head, one in figures.items():
        print(head, *(f"{name} {value}" for name, value in one.items()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
