"""How often the 95 % interval of each metric holds the true value, on simulated sets.

    python benchmarks/intervals.py [--sets 500]

A row's scores are Gaussian, that of its own class 1.5 higher, so that half to four fifths of the rows are right. The
true value is that of the same mix of classes with LARGE rows in all. The standard error of a share of 95 in 100 is 1
at 500 sets. The last line is JSON.
"""

import argparse
import json

from common import machine

MIXES = ((100, 80, 60), (950, 50), (190, 10))  # rows by class
LARGE = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=500)
    options = parser.parse_args()
    import numpy as np

    from onepass.classify.intervals import estimates
    from onepass.classify.metrics import METRICS, softmax

    def drawn(seed: int, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        truth = np.repeat(np.arange(len(counts)), counts)
        scores = np.random.default_rng(seed).normal(size=(len(truth), len(counts)))
        scores[np.arange(len(truth)), truth] += 1.5
        return truth, softmax(scores)

    print(machine())
    report = {}
    for counts in map(np.array, MIXES):
        large = drawn(options.sets, counts * (LARGE // counts.sum()))
        true = {name: metric.value(*large) for name, metric in METRICS.items()}
        held = dict.fromkeys(METRICS, 0)
        for seed in range(options.sets):
            found = estimates(*drawn(seed, counts), None)
            for name, one in found.items():
                held[name] += one.low <= true[name] <= one.high
        mix = ", ".join(map(str, counts))
        report[mix] = {name: round(100 * count / options.sets, 1) for name, count in held.items()}
        print(f"{mix}: " + " · ".join(f"{name} {share}" for name, share in report[mix].items()))
    print(json.dumps({"sets": options.sets, "holds": report}))


if __name__ == "__main__":
    main()
