"""Would an index pay for `onepass data similar`? Exact search, ours and usearch's, against an inverted file.

    pip install usearch faiss-cpu
    python benchmarks/similar.py [--rows 1000000] [--queries 20] [--lists 1024] [--kinds clustered random]

Rows of 1,280 float16 numbers in a file, as features lie: random ones, and clustered ones, each of which is the mean of
stored vectors of two images of one class of Tiny ImageNet, lite0@128 (found by ONEPASS_CACHE; else synthetic). The
inverted file holds row numbers only: the rows of the lists nearest to the query are read from the features and
compared exactly, so that it is as small as such an index can be and all it can miss is a list. Queries are rows with a
tenth of noise; `--lists 0` leaves the inverted file out. Seconds are those of the processor. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from common import feature_rows, machine

DIM, COUNT, BLOCK = 1280, 10, 1 << 14
PROBES = (8, 32, 128)
SAMPLE = 64  # rows a list that its centre is learnt from


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("rows", 1_000_000), ("queries", 20), ("lists", 1024)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kinds", nargs="+", default=["clustered", "random"])
    parser.add_argument("--folder", type=Path, help="where the rows are written")
    options = parser.parse_args()
    print(machine())
    report = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for kind in options.kinds:
            report[kind] = _measure(kind, Path(folder) / "rows.npy", options)
    print(json.dumps(report))


def _measure(kind: str, path: Path, options: argparse.Namespace) -> dict:
    import numpy as np

    from onepass.predict import similar
    from onepass.predict.similar import nearest_rows

    X = _write(kind, path, options.rows)
    random, report = np.random.default_rng(1), {}
    asked = np.sort(random.choice(len(X), options.queries, replace=False))
    queries = X[asked].astype(np.float32)
    queries += 0.1 * queries.std() * random.normal(size=queries.shape).astype(np.float32)
    none = np.full(len(queries), -1)

    def seconds(what: str, work):
        start, wall = time.process_time(), time.monotonic()
        found = work()
        report[what] = round(time.process_time() - start, 3)
        print(f"{kind}: {what} {report[what]} s ({time.monotonic() - wall:.1f} s)", flush=True)
        return found

    similar.MANY = len(X) + 1  # without usearch
    seconds("exact, one query", lambda: nearest_rows(X, queries[:1], COUNT, none[:1]))
    exact, cosines = seconds("exact, all queries", lambda: nearest_rows(X, queries, COUNT, none))
    similar.MANY = 1
    found = seconds(
        "exact by usearch, one query", lambda: nearest_rows(X, queries[:1], COUNT, none[:1])
    )
    report["exact by usearch, equal"] = np.allclose(found[1], cosines[:1], atol=1e-6)
    similar.MANY = len(X) + 1
    if not options.lists:
        return report
    import faiss

    centres = faiss.IndexFlatIP(DIM)

    def build():
        some = np.sort(random.choice(len(X), min(len(X), SAMPLE * options.lists), replace=False))
        sample = _unit(X[some])
        means = faiss.Kmeans(DIM, options.lists, niter=10, spherical=True, seed=0)
        means.train(sample)
        centres.add(means.centroids)
        blocks = (X[start : start + BLOCK] for start in range(0, len(X), BLOCK))
        owner = np.concatenate([centres.search(_unit(block), 1)[1][:, 0] for block in blocks])
        return np.argsort(owner, kind="stable"), np.searchsorted(np.sort(owner), np.arange(options.lists + 1))  # fmt: skip

    order, begins = seconds("build", build)
    for probes in PROBES:

        def one(query, probes=probes):
            near = centres.search(_unit(query[None]), probes)[1][0]
            rows = np.sort(np.concatenate([order[begins[k] : begins[k + 1]] for k in near]))
            found, _ = nearest_rows(X[rows], query[None], COUNT, none[:1])
            return rows[found[0]]

        found = seconds(f"{probes} lists, all queries", lambda: [one(query) for query in queries])
        hits = [np.isin(ours, theirs).mean() for ours, theirs in zip(exact, found, strict=True)]
        report[f"{probes} lists, recall"] = round(float(np.mean(hits)), 3)
        print(f"{kind}: {probes} lists: recall {np.mean(hits):.3f}", flush=True)
    return report


def _unit(rows):
    import numpy as np

    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _write(kind: str, path: Path, count: int):
    """Write so many rows and return them as a memory map."""
    import numpy as np

    X = np.lib.format.open_memmap(path, "w+", np.float16, (count, DIM))
    random = np.random.default_rng(0)
    if kind == "clustered":
        words, real, labels, *_ = feature_rows("efficientnet_lite0@128", 40_000)
        print(f"clustered: made of {words}")
        order = np.argsort(labels, kind="stable")
        real, labels = np.asarray(real)[order], labels[order]
        first, sizes = np.searchsorted(labels, labels), np.bincount(labels)[labels]
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        if kind == "random":
            X[start : start + size] = random.standard_normal((size, DIM), np.float32)
            continue
        one = random.integers(0, len(real), size)
        other = first[one] + random.integers(0, 1 << 30, size) % sizes[one]
        X[start : start + size] = (real[one].astype(np.float32) + real[other]) / 2
    X.flush()
    return np.load(path, mmap_mode="r")


if __name__ == "__main__":
    main()
