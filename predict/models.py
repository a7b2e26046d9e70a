"""What MODEL means: a data set (its best run, or the leaderboard's winner), one of its probes, or one of its runs.

A probe is named by its line on the leaderboard, by its id, or by its head, of which the best is meant.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onepass.cache.errors import (
    InvalidInputError,
    MissingFileError,
    OnepassError,
    StaleError,
    UnknownNameError,
    UsageError,
    unknown_name,
)
from onepass.cache.keras_settings import load_keras
from onepass.cache.rows import RowFile
from onepass.cache.stores import AnyStore
from onepass.classify.goals import Goal, parse_goal
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult
from onepass.classify.operating_points import OperatingPoint, choose_point, positive_column
from onepass.classify.prior import Prior, parse_prior, training_shares
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.finetune.session.best import run_to_use
from onepass.finetune.session.result import RESULT
from onepass.finetune.session.runs import FinishedRun, open_run
from onepass.predict.average import average, calibrate
from onepass.predict.config import (
    ESTIMATE,
    NO_POINT,
    ModelsConfig,
    check_models,
    is_model_folder,
    split_model,
)
from onepass.predict.facts import About
from onepass.predict.known import learn_novelty
from onepass.predict.model_folder import load_folder
from onepass.predict.pixel_classifier import BATCH, PictureGeometry, PixelClassifier
from onepass.predict.pixel_models import VectorSpec
from onepass.predict.predictor import SELECTION, Predictor
from onepass.predict.probes import Probe, ensemble_predictor, probe_predictor

if TYPE_CHECKING:
    import keras

Model = Probe | FinishedRun


def load_predictor(config: ModelsConfig) -> Predictor:
    """Return the predictor of the models that a configuration names; several are averaged.

    Raises:
        UsageError: Views are asked for, but no model is a run.
        OnepassError: A model is unknown, unfinished, stale or damaged.
    """
    if len(config.models) == 1 and is_model_folder(config.models[0]):
        return folder_predictor(Path(config.models[0]), config)
    return make_predictor(open_models(config.store, config.runs, config.models), config)


def folder_predictor(folder: Path, config: ModelsConfig) -> Predictor:
    """Return the predictor of a model folder, as it was exported.

    Raises:
        UsageError: Views, no temperature or an operating point are asked for: they are inside.
        OnepassError: It is no model folder, or a file of it is damaged.
    """
    if config.views or not config.temperature or config.at not in ("", NO_POINT):
        raise UsageError(
            f"{folder}: views, temperature and operating point of a model folder are those it was exported with; "
            "leave --views, --no-temperature and --at GOAL out"
        )
    loaded = load_folder(folder, config.batch_size or 0, config.abstain, config.chosen_engine)
    made = loaded.record.about
    point, prior = None if config.at == NO_POINT else made.point, made.prior
    if config.prior:
        prior, point = _prior_of_folder(folder, made, point, config.prior)

    def compute(part: str) -> np.ndarray:
        raise UsageError(f"{folder}: a model folder predicts new pictures, not {part} rows")

    return Predictor(
        name=made.name,
        description=made.description,
        data=None,
        compute=compute,
        held_out=None,
        not_held_out="a model folder comes without its data set",
        temperature=made.facts.temperature,
        model=loaded.pictures.model,
        pictures=loaded.pictures,
        labels=(list(made.class_ids), list(made.class_names)),
        point=point,
        prior=prior,
    )


def _prior_of_folder(
    folder: Path, made: About, point: OperatingPoint | None, text: str
) -> tuple[Prior, OperatingPoint | None]:
    """Return the mix of classes that --prior asks for, and the operating point in it."""
    if not made.shares:
        raise UsageError(
            f"{folder}: an earlier Onepass exported it without the mix of classes that it learnt from, which --prior "
            "needs; export it again"
        )
    prior = _asked(text, made.class_ids, made.class_names, made.shares)
    if point is None:
        return prior, None
    if not point.goal.whatever_the_mix:
        raise UsageError(
            f"{folder}: its operating point {point.goal} was chosen for another mix of classes; export it again with "
            "--prior, or add --at none"
        )
    column, classes = made.class_ids.index(point.positive), len(made.class_ids)
    return prior, replace(point, prior_odds=_prior_odds(point.goal, column, prior, classes))


def make_predictor(models: Sequence[Model], config: ModelsConfig) -> Predictor:
    """Return the predictor of opened models.

    A probe is scaled by the temperature that it was stored with, also as a member of an average; a run
    alone and an average learn one here.
    """
    if config.views and not any(isinstance(model, FinishedRun) for model in models):
        raise UsageError(
            f"--views {' '.join(config.views)}: expected a fine-tuned run among the models, received "
            f"{' '.join(model.name for model in models)}; a probe looks at the views it was trained on"
        )
    predictor = _combined(models, config)
    prior = _prior(predictor.dataset, models, config.prior)
    point = _operating_point(predictor, models, config, prior)
    pictures = _on_pictures(predictor, models, config)
    return replace(predictor, pictures=pictures, point=point, prior=prior)


def _prior(dataset: ImageDataset, models: Sequence[Model], text: str) -> Prior | None:
    """Return the mix of classes that --prior asks for; None where it does not."""
    if not text:
        return None
    for probe in (model for model in models if isinstance(model, Probe)):
        lines = [probe.result, *map(probe.board.find, probe.result.members)]
        if any(line.class_weight == "uncorrected" for line in lines):
            raise UsageError(
                f"--prior: {probe.name} was fitted with --class-weight uncorrected, and its probabilities are not "
                "those of the training mix; name a model that was fitted with balanced or none"
            )
    return _asked(text, dataset.class_ids, dataset.class_names, training_shares(dataset).tolist())


def _asked(
    text: str, class_ids: Sequence[str], class_names: Sequence[str], learnt: Sequence[float]
) -> Prior:
    """Return the mix of classes that --prior stands for."""
    if text == ESTIMATE:
        return Prior(tuple(learnt), ())
    return parse_prior(text, class_ids, class_names, learnt)


def _prior_odds(goal: Goal, column: int, prior: Prior | None, classes: int) -> float:
    """Return what a mix in use multiplies the odds of the positive class by; 1 where it is still to be estimated."""
    if prior is None:
        return 1.0
    if prior.used:
        return prior.odds(column)
    if classes > 2 or not goal.whatever_the_mix:
        raise UsageError(
            f"--prior {ESTIMATE} with the operating point {goal}: expected the share of its class, as this threshold "
            "is chosen before the images are seen; or add --at none"
        )
    return 1.0


def _operating_point(
    predictor: Predictor, models: Sequence[Model], config: ModelsConfig, prior: Prior | None
) -> OperatingPoint | None:
    """Return the point that --at asks for, else that on record; None where neither is.

    On record is that of a probe. A run that a data set stands for gets one for the goal of the winner's.
    """
    first, dataset = models[0], predictor.dataset
    goal, column = None, 0
    if not config.at and len(models) == 1 and config.temperature:
        kept = _kept_point(first, config)
        if kept is None or (prior is None and isinstance(first, Probe)):
            return kept
        goal, column = kept.goal, dataset.class_ids.index(kept.positive)
    elif config.at not in ("", NO_POINT):
        goal, column = parse_goal(config.at), positive_column(dataset, config.positive)
    if goal is None:
        return None
    odds = _prior_odds(goal, column, prior, len(dataset.class_ids))
    if predictor.held_out is None:
        raise InvalidInputError(
            f"--at {goal}: a threshold is chosen on rows that the model was not trained on, but "
            f"{predictor.not_held_out}; --at {NO_POINT} does without"
        )
    val = predictor.compute("val") if len(dataset.rows("val")) else np.zeros((0, column + 1))
    selection = predictor.compute(SELECTION)
    return choose_point(goal, column, dataset, predictor.held_out, selection, val, odds)


def _kept_point(model: Model, config: ModelsConfig) -> OperatingPoint | None:
    """Return the point on record for a probe; for a run that its data set stands for, that of the winner."""
    if isinstance(model, Probe):
        return OperatingPoint.read_optional(model.folder / OperatingPoint.NAME)
    dataset = model.dataset
    if config.models != (dataset.name,):
        return None
    try:
        board = Leaderboard.load(config.runs / dataset.name, dataset.name, dataset.digest)
    except MissingFileError:
        return None
    return OperatingPoint.read_optional(board.head_folder(board.winner) / OperatingPoint.NAME)


def _combined(models: Sequence[Model], config: ModelsConfig) -> Predictor:
    if len(models) == 1:
        return _predictor_of(models[0], config.views, scaled=config.temperature)
    # Each at its own temperature: a cautious one would count for too little beside one that is surer.
    members = [_predictor_of(model, config.views, scaled=True) for model in models]
    mean = average(members, learnt=config.weights == "learnt")
    return calibrate(mean) if config.temperature else mean


def _on_pictures(
    predictor: Predictor, models: Sequence[Model], config: ModelsConfig
) -> PixelClassifier | None:
    """Return a predictor's model with its networks; None where it can say nothing of new pictures."""
    if predictor.model is None:
        return None

    def build(specs: Sequence[VectorSpec], shape: tuple[int, int, int]) -> "keras.Model":
        from onepass.predict.extractors import build_extractor

        return build_extractor(specs, shape, config.backbone_weights)

    return PixelClassifier(
        predictor.model,
        PictureGeometry.of(predictor.dataset),
        build,
        stored_batches(models),
        config.batch_size or 0,
        lambda classifier: learn_novelty(predictor, models, classifier),
        config.abstain,
        config.chosen_engine,
    )


def stored_batches(models: Sequence[Model]) -> dict[VectorSpec, int]:
    """Return how many images a step the stored vectors of probes were computed with, where that is known."""
    found = {}
    for probe in (model for model in models if isinstance(model, Probe)):
        for key in probe.feature_keys():
            try:
                made_by = RowFile.open(key.file(probe.store, probe.board.dataset)).made_by
            except OnepassError:  # gone: its head still knows what it learnt
                continue
            found[VectorSpec.of(key)] = made_by.batch or BATCH
    return found


def _predictor_of(model: Model, views: tuple[str, ...], *, scaled: bool) -> Predictor:
    if isinstance(model, Probe):
        maker = ensemble_predictor if model.result.members else probe_predictor
        return maker(model, scaled=scaled)
    load_keras()  # which a probe does without
    from onepass.predict.runs import run_predictor

    predictor = run_predictor(model, views)
    return calibrate(predictor) if scaled else predictor


def open_models(store: AnyStore, runs: Path, texts: Sequence[str]) -> list[Model]:
    """Open what each MODEL names, with what lies on disk; nothing is computed.

    Args:
        store: Root of the store.
        runs: Root of the results.
        texts: Each DATASET, DATASET#LINE, DATASET/PROBE, DATASET/HEAD or DATASET/RUN.

    Raises:
        UnknownNameError: The data set has no such line, probe, head or run; what there is is named.
        MissingFileError: It has no leaderboard, or the run is not finished.
        StaleError: The data set has changed since.
        UsageError: One cannot be the name of a model, or two name the same.
    """
    check_models(tuple(texts))
    models = [_open(store, runs, text) for text in texts]
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise UsageError(
            f"{' '.join(texts)}: expected each model once, received {', '.join(names)}"
        )
    return models


def _open(store: AnyStore, runs: Path, text: str) -> Model:
    if is_model_folder(text):
        raise UsageError(
            f"{text}: a model folder stands alone, and predicts new pictures: expected no other model, and "
            "files, folders or addresses after it"
        )
    name, line, model = split_model(text)
    place = runs / name / "finetune"
    if model and (place / model).is_dir():
        return open_run(store, runs, text, any_state=True)
    dataset = open_dataset(store, name)
    if not line and not model:
        board = None
        with suppress(MissingFileError, StaleError):  # a run stands without one
            board = Leaderboard.load(runs / name, name, dataset.digest)
        if best := run_to_use(place, dataset, board):
            return open_run(store, runs, f"{name}/{best.name}")
    finished = [path.parent.name for path in place.glob(f"*/{RESULT}")]
    try:
        board = Leaderboard.load(runs / name, name, dataset.digest)
    except MissingFileError:
        if model and finished:
            raise unknown_name(f"model of {name}", model, finished) from None
        raise
    return Probe(store, dataset, board, _find_probe(board, line or 1, model, finished))


def _find_probe(board: Leaderboard, line: int, model: str, finished: list[str]) -> ProbeResult:
    """Return the probe of an id or a head, else that of a line of the leaderboard."""
    ranked = board.ranked
    if not model:
        if line > len(ranked) > 0:
            raise UnknownNameError(
                f"{board.dataset}#{line}: expected a line of the leaderboard, 1 to {len(ranked)}; received {line}"
            )
        return ranked[line - 1] if ranked else board.winner
    by_rank = (*ranked, *board.baselines)
    heads = {result.head: result for result in reversed(by_rank)}  # the best comes last, and stays
    probes = {**heads, **{result.id: result for result in board.results}}
    if model not in probes:
        raise unknown_name(f"model of {board.dataset}", model, [*probes, *finished])
    return probes[model]
