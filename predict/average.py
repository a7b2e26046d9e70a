"""Several predictors as one, and the temperature of a predictor: both learnt on selection rows only."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.classify.ensemble import cross_fitted, member_inputs
from onepass.classify.heads.ensembles.ensembler import Average, mixture_weights
from onepass.classify.metrics import (
    SMALLEST,
    apply_temperature,
    calibration_temperature,
)
from onepass.predict.pixel_models import MeanModel, at_temperature, mix
from onepass.predict.predictor import SELECTION, Predictor


def average(members: Sequence[Predictor], *, learnt: bool) -> Predictor:
    """Return the weighted mean of the probabilities of several predictors.

    Args:
        members: Two or more, of one data set; each at its temperature, if they are to count by what they know
            and not by how sure they are.
        learnt: Whether the weights are learnt on the selection rows, which no member may have been
            trained on; else all are equal.

    Raises:
        InvalidInputError: Weights are to be learnt, but the members share no selection rows.
    """
    held_out, reason = _shared_rows(members)
    if learnt and held_out is None:
        raise InvalidInputError(f"--weights learnt: {reason}; use --weights equal")
    weights = np.full(len(members), 1 / len(members))
    selection = None
    if learnt and held_out is not None:
        truth = members[0].dataset.labels[held_out]
        weights = learn_weights(_parts(members, SELECTION, held_out), truth)
        selection = partial(_cross_fitted, members, held_out, truth)

    def compute(part: str) -> np.ndarray:
        # rounded as they were when the weights were learnt
        pairs = zip(members, _parts(members, part, held_out), strict=True)
        parts = [one.astype(member.precision) for member, one in pairs]
        return mix([part.astype(np.float32) for part in parts], weights)

    return Predictor(
        name=" + ".join(member.name for member in members),
        description=f"average of {len(members)}",
        data=members[0].dataset,
        compute=compute,
        held_out=held_out,
        not_held_out=reason,
        views=tuple(dict.fromkeys(view for member in members for view in member.views)),
        note=joined([member.note for member in members]),
        members=tuple(members),
        weights=tuple(map(float, weights)),
        model=_mean_model(members, tuple(map(float, weights))),
        learnt_on=len(held_out) if learnt and held_out is not None else 0,
        selection=selection,
    )


def calibrate(predictor: Predictor) -> Predictor:
    """Return a predictor at the temperature under which its selection rows are most probable.

    Where every selection row was trained on, it is returned as it is, with a note that says so.
    """
    if predictor.held_out is None:
        why = f"no temperature: {predictor.not_held_out}"
        known = why in predictor.note  # of a member
        return predictor if known else replace(predictor, note=joined([predictor.note, why]))
    truth = predictor.dataset.labels[predictor.held_out]
    temperature = calibration_temperature(truth, predictor.compute(SELECTION))
    return replace(
        predictor,
        compute=lambda part: apply_temperature(predictor.compute(part), temperature),
        temperature=temperature,
        learnt_on=len(truth),
        model=predictor.model and at_temperature(predictor.model, temperature),
    )


def joined(notes: Sequence[str]) -> str:
    """Return several notes as one; "" for none."""
    return ". ".join(filter(None, notes))


def _mean_model(members: Sequence[Predictor], weights: tuple[float, ...]) -> MeanModel | None:
    models = tuple(member.model for member in members)
    return None if None in models else MeanModel(models, weights)


def _shared_rows(members: Sequence[Predictor]) -> tuple[np.ndarray | None, str]:
    """Return the selection rows that no member was trained on, or why there are none.

    A member that was chosen by folds has an answer of nearly every training row from before it was trained on it.
    """
    rows = []
    for member in members:
        if member.held_out is None:
            return None, member.not_held_out
        rows.append(member.held_out)
    fewest = min(range(len(rows)), key=lambda i: len(rows[i]))
    for member, held_out in zip(members, rows, strict=True):
        if not np.isin(rows[fewest], held_out).all():
            return (
                None,
                f"{member.name} and {members[fewest].name} held out different selection rows",
            )
    return rows[fewest], ""


def _parts(
    members: Sequence[Predictor], part: str, held_out: np.ndarray | None
) -> list[np.ndarray]:
    """Return what each member makes of a part; of the selection rows, those that all held out."""
    parts = [member.compute(part) for member in members]
    if part != SELECTION or held_out is None:
        return parts
    shared = [np.isin(np.asarray(member.held_out), held_out) for member in members]
    return [part[rows] for part, rows in zip(parts, shared, strict=True)]


def _cross_fitted(
    members: Sequence[Predictor], held_out: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """Return the logarithm of the mean of each selection row (s, K), with weights that were learnt on other rows."""
    X = member_inputs(_parts(members, SELECTION, held_out))
    return cross_fitted(Average(members=len(members)).fit(X, truth), X, truth, seed=0)


def learn_weights(members: Sequence[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """Return the weights of a mixture under which the true classes are most probable.

    Args:
        members: M arrays (n, K) of probabilities of rows that no member was fitted on.
        truth: (n,) the true column of each row.

    Returns:
        (M,) float64, none negative, together 1.
    """
    own = [np.maximum(p[np.arange(len(truth)), truth], SMALLEST) for p in members]
    return mixture_weights(np.stack(own, axis=1).astype(np.float64))
