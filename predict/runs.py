"""Predictors of fine-tuned runs: a network on pixels."""

from functools import cache

import keras
import numpy as np

from onepass.cache.errors import MissingFileError, StaleError
from onepass.classify.metrics import softmax
from onepass.finetune.session.runs import FinishedRun
from onepass.finetune.training.inference import predict_rows, restore, save_logits
from onepass.predict.pixel_models import RunModel
from onepass.predict.predictor import SELECTION, Predictor, split_rows
from onepass.predict.text import view_text
from onepass.predict.views import views_to_average, with_view


def run_predictor(run: FinishedRun, views: tuple[str, ...] = ()) -> Predictor:
    """Return the predictor of a run: the mean of its probabilities over the views, at temperature 1.

    The network is built when it is first needed. Its logits of a split, in each view, are kept in the
    run's folder and computed once.

    Args:
        run: Finished.
        views: Views to average beside the whole image, such as "flip" or "five-crop".

    Raises:
        InvalidInputError: There is no such view, or it is drawn at random.
    """
    expanded = views_to_average(views, run.dataset.record.symmetries)
    held_out = run.held_out()

    @cache
    def network() -> keras.Model:
        return restore(run.folder, run.identity, run.dataset).predictor

    def logits(part: str, view: str, rows: np.ndarray) -> np.ndarray:
        kept = part + (f"+{view}" if view else "")
        try:
            found, found_rows = run.logits(kept)
            order = np.argsort(found_rows, kind="stable")
            if np.isin(rows, found_rows).all():
                return found[order[np.searchsorted(found_rows[order], rows)]]
        except MissingFileError:
            pass
        label = f"{run.short}: {part}, {view_text((view,))}"
        computed = predict_rows(with_view(network(), view), run.dataset.pixels, rows, label)
        save_logits(run.folder / f"{kept}_logits.npz", computed, rows)
        return computed

    def compute(part: str) -> np.ndarray:
        if part == SELECTION and held_out is not None:
            rows = held_out
        else:
            rows = split_rows(run.dataset, part)
            if part == "val" and run.state:
                _check_unseen(run, rows)
        total = np.zeros((len(rows), len(run.dataset.class_ids)), np.float32)
        for view in expanded:
            total += softmax(logits(part, view, rows))
        return total / np.float32(len(expanded))

    return Predictor(
        name=run.name,
        description="fine-tuned",
        data=run.dataset,
        compute=compute,
        held_out=held_out,
        not_held_out=""
        if held_out is not None
        else f"{run.name} was trained on the selection rows as well",
        learnt_from=run.identity.dataset_digest,
        note=run.state,
        views=expanded,
        model=RunModel(run.name, network, expanded),
    )


def _check_unseen(run: FinishedRun, rows: np.ndarray) -> None:
    """Refuse to score a run on rows that it may have learnt from."""
    new = np.setdiff1d(rows, run.logits("val")[1])
    if len(new):
        raise StaleError(
            f"{run.state}. {len(new):,} of the {len(rows):,} validation images were none then, and it may have "
            "learnt from them; train it again under another name with --run"
        )
