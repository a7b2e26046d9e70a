"""Which unlabelled images to label next: those that the probe is unsure of, and no two of a kind.

Margin: the difference of the two most probable classes, the smallest first (Scheffer, Decomain and Wrobel, 2001).
K-center: again and again the image that is farthest from all that are labelled or chosen (Sener and Savarese,
"Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018). Both: k-center among the
images of small margin. Typical: from each group of similar images of which none is labelled, the largest first, the
image that is most like the others (Hacohen, Dekel and Weinshall, "Active Learning on a Budget: Opposite Strategies
Suit High and Low Budgets", ICML 2022).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

from onepass.cache.content import find, first_of_each
from onepass.cache.errors import InvalidInputError, Remedy, UsageError
from onepass.cache.memory import within_memory
from onepass.classify.analysis.suspects import ON_SHEET
from onepass.classify.config import NextConfig, NextRule
from onepass.classify.heads.lazy_rows import take
from onepass.classify.heads.neighbours.nearest import nearest, unit_length
from onepass.classify.heads.scaler import Scaler
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult
from onepass.classify.protocol.inputs import Inputs, feature_inputs, inputs_of
from onepass.classify.protocol.views import mean_probabilities
from onepass.data.contact_sheet import INK, Cell, contact_sheet
from onepass.data.dataset import EXCLUDED, ImageDataset, open_dataset
from onepass.data.relabel import shown_classes, write_table

TABLE, SHEET = "next.csv", "next.png"
HEADER = ("file", "label", "split", "suggested", "probability", "margin")
POOL = 10  # times as many images of small margin as are wanted, among which k-center chooses
LABELLED = 20_000  # labelled images that a distance is taken to, at most
CLUSTERS, CLUSTER_STEPS = 500, 20  # groups of similar images, at most, and steps of k-means
NEIGHBOURS = 20  # that an image of a group is compared with


@dataclass(frozen=True, slots=True)
class NextResult:
    """What `onepass classify next` did.

    Attributes:
        dataset: Name of the labelled data set.
        source: Name of the data set that the images are of.
        probe: Id of the probe that was asked.
        rule: How they were chosen.
        unlabelled: Different images without a label, none of which is in the training split.
        rows: The chosen ones, the first to be labelled first.
        table: `next.csv`.
        sheet: `next.png`.
    """

    dataset: str
    source: str
    probe: str
    rule: NextRule
    unlabelled: int
    rows: tuple[int, ...]
    table: Path
    sheet: Path


@within_memory
def choose_next(config: NextConfig) -> NextResult:
    """Choose the images to label next, and write a table to be filled in and a contact sheet.

    Raises:
        InvalidInputError: There is no unlabelled image, or its vectors were made in another way.
        OnepassError: Something is missing, stale or damaged; one line says what.
    """
    dataset = open_dataset(config.store, config.dataset)
    source = open_dataset(config.store, config.from_) if config.from_ else dataset
    folder = config.runs / dataset.name
    board = Leaderboard.load(folder, dataset.name, dataset.digest)
    probe = _probe(board, config.probe)
    known = inputs_of(config.store, dataset, probe)
    there = known if source is dataset else _same_vectors(config, source, probe)
    train = dataset.rows("train")
    rows = unlabelled_rows(source, dataset.content[train])
    if not len(rows):
        raise InvalidInputError(
            f"{source.name}: expected images without a label that are not in the training split, found none"
        )
    probabilities = mean_probabilities(load_head(board.head_folder(probe)), there.all_views(), rows)
    labelled = take(known.vectors(), train[_evenly(len(train), LABELLED)])
    chosen = choose(take(there.vectors(), rows), probabilities, labelled, config.count, config.by)
    picked = rows[chosen]
    table, sheet = folder / TABLE, folder / SHEET
    _write(table, sheet, source, dataset, picked, probabilities[chosen])
    return NextResult(
        dataset.name, source.name, probe.id, config.by, len(rows), tuple(picked.tolist()), table, sheet
    )  # fmt: skip


def unlabelled_rows(source: ImageDataset, labelled: np.ndarray) -> np.ndarray:
    """Return the rows without a label, int64, ascending: each image once, and none that is labelled already.

    Args:
        source: Where they are.
        labelled: (n, 16) contents of labelled images.
    """
    first = first_of_each(source.content) == np.arange(len(source.content))
    without = (source.labels < 0) & (source.held_labels < 0) & (source.split != EXCLUDED)
    return np.flatnonzero(without & first & (find(labelled, source.content) < 0))


def choose(
    X: np.ndarray, probabilities: np.ndarray, labelled: np.ndarray, count: int, rule: NextRule
) -> np.ndarray:
    """Return the rows to label, (≤ count,) int64, the first to be labelled first.

    Args:
        X: (n, D) vectors of unlabelled images.
        probabilities: (n, K) of them.
        labelled: (m, D) vectors of labelled images.
        count: How many are wanted.
        rule: "margin", "k-center", "both" or "typical".
    """
    unsure = np.argsort(margins(probabilities), kind="stable")
    if rule == "margin":
        return unsure[:count]
    pool = np.sort(unsure[: POOL * count]) if rule == "both" else np.arange(len(X))
    scaler = Scaler.fit(labelled)
    points, known = (unit_length(scaler.apply(some)) for some in (take(X, pool), labelled))
    if rule == "typical":
        return typical_first(points, known, count)
    _, cosines = nearest(points, known, k=1)
    return pool[farthest_first(points, 1 - cosines[:, 0], count)]


def margins(probabilities: np.ndarray) -> np.ndarray:
    """Return the most probable class's lead over the next, (n,), from probabilities (n, K)."""
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return first - second


def farthest_first(points: np.ndarray, distance: np.ndarray, count: int) -> np.ndarray:
    """Return the k-center greedy choice, (≤ count,) int64.

    Args:
        points: (n, D) of length 1.
        distance: (n,) from each to its nearest centre so far, 1 - cosine.
        count: How many are wanted.
    """
    distance, chosen = distance.copy(), []
    for _ in range(min(count, len(points))):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, 1 - points @ points[chosen[-1]])
        distance[chosen] = -np.inf
    return np.array(chosen, np.int64)


def typical_first(points: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """Return the most typical images of groups that have the fewest labels, (≤ count,) int64.

    Args:
        points: (n, D) of length 1.
        known: (m, D) of length 1, of labelled images.
        count: How many are wanted.
    """
    together = np.concatenate([known, points])
    clusters = min(len(known) + count, CLUSTERS, len(together))
    k_means = KMeans(clusters, n_init=1, max_iter=CLUSTER_STEPS, random_state=0)
    cluster = k_means.fit_predict(together)
    labels = np.bincount(cluster[: len(known)], minlength=clusters)
    sizes, own = np.bincount(cluster, minlength=clusters), cluster[len(known) :]
    waiting = {k: _most_typical_last(points, np.flatnonzero(own == k)) for k in np.unique(own)}
    chosen: list[int] = []
    while waiting and len(chosen) < count:
        k = min(waiting, key=lambda k: (labels[k], -sizes[k]))
        chosen.append(waiting[k].pop())
        labels[k] += 1
        if not waiting[k]:
            del waiting[k]
    return np.array(chosen, np.int64)


def _most_typical_last(points: np.ndarray, rows: np.ndarray) -> list[int]:
    """Return rows by their mean cosine to the nearest others of them, ascending."""
    k = min(NEIGHBOURS + 1, len(rows))  # itself among them
    _, cosines = nearest(points[rows], points[rows], k)
    return rows[np.argsort(cosines.mean(axis=1), kind="stable")].tolist()


def _probe(board: Leaderboard, name: str) -> ProbeResult:
    """Return the probe of that id; for "best", the best one that is no ensemble."""
    if name == "best":
        return next((probe for probe in board.ranked if not probe.members), board.winner)
    probe = board.find(name)
    if not probe.keys:
        raise UsageError(f"--probe {name}: expected a probe on features, received {probe.head}")
    return probe


def _same_vectors(config: NextConfig, source: ImageDataset, probe: ProbeResult) -> Inputs:
    """Open the vectors of other images that were made as those of the probe.

    Raises:
        InvalidInputError: They were made in another way.
        OnepassError: As `feature_inputs`.
    """
    (inputs,) = feature_inputs(config.store, source, (",".join(probe.features),), probe.views)
    if inputs.keys != probe.keys:
        raise InvalidInputError(
            f"{source.name}: expected {probe.features_text} as probe {probe.id} learnt from, found vectors made by "
            "other weights or in another way",
            remedy=Remedy("extract", source.name),
        )
    return inputs


def _evenly(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def _write(
    table: Path,
    sheet: Path,
    source: ImageDataset,
    dataset: ImageDataset,
    rows: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    """Write the table and the contact sheet; the class that the probe suggests stands beside the empty label."""
    shown = shown_classes(dataset.class_ids, dataset.class_names)
    best, lead = probabilities.argmax(axis=1), margins(probabilities)
    lines = [
        (source.names[row], "", "train", shown[k], f"{p[k]:.4f}", f"{m:.4f}")
        for row, k, p, m in zip(rows.tolist(), best.tolist(), probabilities, lead, strict=True)
    ]
    write_table(table, HEADER, lines)
    cells = [
        Cell(source.pixels[row], ((f"{k[:12]}? {float(p):.0%}", INK), (name, INK)))
        for row, (name, _, _, k, p, _) in zip(rows[:ON_SHEET].tolist(), lines, strict=False)
    ]
    contact_sheet(sheet, cells)
