"""run_finetune: the leaderboard's winner → a trained network, its history and its score."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import InvalidInputError
from cache.files import read_json, write_json
from cache.progress import say
from cache.provenance import differences, made_by
from cache.stopping import StopRequest
from classify.records import load_probabilities
from classify.scores import bootstrap_interval, compare
from data.dataset import ImageDataset, open_dataset
from extract.backbones.registry import find_backbone, weights_identity
from finetune.checkpoint import model_variables, save_arrays
from finetune.config import FinetuneConfig
from finetune.errors import analyse_run
from finetune.model import Classifier, build_classifier, warm_start
from finetune.predict import predict_logits, save_logits
from finetune.runs import open_run
from finetune.start import Start, choose_start
from finetune.train import EpochRow, Training

CHECKED = 16  # images on which the warm start is proved


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """What `python -m finetune` did.

    Attributes:
        run: DATASET/NAME, as `predict --run` takes it.
        folder: Where everything of the run lies.
        start: Features and head that it started from.
        warm_start_difference: Largest difference of a logit from the probe's before step 1.
        history: One row a finished epoch.
        stopped: Why training ended early; "" if it did not.
        probe_top1: Accuracy of the frozen probe on the reported split, 0 … 1.
        val_top1: Accuracy of the fine-tuned network there; None where training is not done.
        val_interval: Its 95 % bootstrap interval.
        p_value: McNemar's test against the probe.
        seconds: Of this process.
    """

    run: str
    folder: Path
    start: str
    warm_start_difference: float
    history: list[EpochRow]
    stopped: str
    probe_top1: float
    val_top1: float | None = None
    val_interval: tuple[float, float] | None = None
    p_value: float | None = None
    seconds: float = 0.0


def run_finetune(config: FinetuneConfig) -> FinetuneResult:
    """Train backbone and head end to end, starting from the chosen probe.

    The epochs are fixed beforehand and nothing is chosen on the reported split, which is scored once
    at the end. The same command goes on from the last checkpoint, or says that the run is done.

    Raises:
        MissingFileError: There is no data set, leaderboard or probe to start from.
        StaleError: The leaderboard was made from another state of the data set.
        InvalidInputError: The run's folder holds a run of another configuration.
        DivergedError: The loss is no longer a number.
    """
    begin = time.monotonic()
    dataset = open_dataset(config.store, config.dataset)
    start = choose_start(config, dataset)
    name = config.run or f"{str(start.key).replace('/', '_')}-{config.recipe}"
    folder = config.runs / config.dataset / "finetune" / name
    _claim(folder, _identity(config, dataset, start))
    if (folder / "result.json").exists():
        say(f"{folder}: this run is done; its result follows (another name: --run NAME)")
        return _load_result(folder)
    with StopRequest(config.time_limit) as stop:
        classifier = build_from(config, dataset, start)
        check = np.asarray(dataset.pixels[dataset.rows("train")[:CHECKED]])
        apart = warm_start(classifier, start.weights, start.bias, check)
        say(
            f"{start.key} + {start.probe.head}: warm start differs from the probe by at most {apart:.1g}"
        )
        training = Training(
            classifier, dataset.pixels, dataset.labels, _training_rows(config, dataset),
            config.chosen_recipe, config.seed, folder / "checkpoint.npz",
        )  # fmt: skip
        stopped = training.run(lambda: stop.reason)
    result = FinetuneResult(
        run=f"{config.dataset}/{name}", folder=folder, start=f"{start.key} + {start.probe.head}",
        warm_start_difference=apart, history=training.history, stopped=stopped,
        probe_top1=start.probe.val_top1, seconds=time.monotonic() - begin,
    )  # fmt: skip
    return result if stopped else _conclude(result, classifier, dataset, start, config, begin)


def build_from(config: FinetuneConfig, dataset: ImageDataset, start: Start) -> Classifier:
    """Build the network that a probe's features came from, with a head of its shape.

    Raises:
        InvalidInputError: The backbone's weights are not those that the features were made with.
    """
    spec = find_backbone(start.key.backbone)
    found = weights_identity(spec, config.weights_source, config.seed)
    if found != start.key.weights:
        raise InvalidInputError(
            f"{start.key}: made with weights {start.key.weights[:20]}, received {found[:20]}; "
            "name the same file with --weights"
        )
    return build_classifier(
        spec, start.key.size, dataset.pixels.shape[1:], len(dataset.class_ids), config.chosen_recipe,
        output=(start.key.layer, start.key.pooling), weights=config.weights_source, seed=config.seed,
    )  # fmt: skip


def _identity(config: FinetuneConfig, dataset: ImageDataset, start: Start) -> dict[str, Any]:
    """What the course of the training depends on; a folder holds runs of one identity only."""
    return {
        "dataset": config.dataset,
        "dataset_digest": dataset.digest,
        "probe": start.probe.id,
        "features": start.key.inputs(),
        "recipe": asdict(config.chosen_recipe),
        "rows": config.rows,
        "weights": config.weights,
        "seed": config.seed,
    }


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Mark the folder as this run's, or find out that it is."""
    path = folder / "config.json"
    if path.exists():
        recorded = read_json(path)["identity"]
        if recorded != identity:
            raise InvalidInputError(
                f"{folder}: holds a run of another configuration ({differences(recorded, identity)}); "
                "give this one a name of its own with --run NAME, or delete that folder"
            )
    else:
        write_json(path, {"identity": identity, "made_by": made_by()})


def _training_rows(config: FinetuneConfig, dataset: ImageDataset) -> np.ndarray:
    rows = dataset.rows("train")
    if not config.rows or config.rows >= len(rows):
        return rows
    return np.sort(np.random.default_rng((config.seed, 2)).permutation(rows)[: config.rows])


def _conclude(
    result: FinetuneResult,
    classifier: Classifier,
    dataset: ImageDataset,
    start: Start,
    config: FinetuneConfig,
    begin: float,
) -> FinetuneResult:
    """Keep the weights, score the reported split once, compare with the probe, write the result."""
    folder = result.folder
    save_arrays(folder / "weights.npz", {"model": model_variables(classifier.predictor)}, {})
    rows = dataset.rows("val")
    truth = dataset.labels[rows]
    logits = predict_logits(classifier, dataset.pixels, rows, "validation")
    save_logits(folder / "val_logits.npz", logits, rows)
    correct = logits.argmax(axis=1) == truth
    head_folder = config.runs / config.dataset / "heads" / start.probe.id
    frozen = load_probabilities(head_folder, start.probe.rows).val_predicted == truth
    result = replace(
        result,
        val_top1=float(correct.mean()),
        val_interval=bootstrap_interval(correct, config.seed),
        p_value=compare("fine-tuned", "probe", correct, frozen).p_value,
        seconds=time.monotonic() - begin,
    )
    write_json(folder / "result.json", {**asdict(result), "folder": folder.name})
    analyse_run(open_run(config.store, config.runs, result.run), config.runs)
    return result


def _load_result(folder: Path) -> FinetuneResult:
    value = read_json(folder / "result.json")
    history = [EpochRow(**row) for row in value.pop("history")]
    return FinetuneResult(**{**value, "folder": folder, "history": history})
