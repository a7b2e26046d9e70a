"""A solver for multinomial logistic regression, for a path of penalties.

It minimises, over weights W (D, K) and a bias b (K,) that is not penalised,

    F(W, b) = mean over rows of the log-loss + penalty / 2 · ||W||²

by L-BFGS (Nocedal and Wright, "Numerical Optimization", 2nd ed., algorithms 7.4 and 7.5) with three
things that make it need few passes over the rows:

- The first guess of the Hessian is `c · XᵀX/n + penalty` for every class, the form of Böhning's bound
  (Annals of the Institute of Statistical Mathematics 44, 1992) that Agarwal, Kakade, Karampatziakis,
  Song and Valiant make a method of ("Least Squares Revisited", ICML 2014). c is not the bound's 1/2
  but what the probabilities at hand give, and equation 7.20 of Nocedal and Wright rescales it.
- A new penalty starts on the line through the last two solutions, where that is better.
- Pairs of steps and gradient changes are kept without the penalty's part, which is known exactly. So
  what one penalty taught of the loss serves the next.

F is `penalty`-strongly convex in W, so ||gradient by W||² / (2 · penalty) bounds what F is above its
minimum for the bias at hand: it is where the solver stops. Products are float32, sums over blocks of
rows float64.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from onepass.classify.heads.linear.curvature import Curvature
from onepass.classify.heads.linear.softmax_objective import LossAndGradient, SoftmaxObjective

MEMORY = 20  # pairs
ARMIJO = 1e-4
ROUNDING = 3e-7  # of the objective: below it float32 sums cannot tell better from worse
FEWEST = 4  # passes for a penalty: where it is strong, any weights have nearly the same objective,
SURE = 2e-3  # unless the weights are known to be as near as this
SCALES = 3  # last pairs whose curvature scales the first guess of the Hessian
FEWEST_SAMPLED, ONE_IN = (
    2_048,
    10,
)  # rows that an extrapolation is compared on: at least; one of so many
SHORTEST = 1e-3  # of a step, before the pairs are forgotten and, failing that, the search ends


@dataclass(frozen=True, slots=True)
class Point:
    """Weights, and what they are worth under one penalty.

    Attributes:
        weights: (D + 1, K) float32, the bias last.
        value: The log-loss there, without the penalty.
        penalty: Of F.
        objective: F.
        slope: Gradient of F, (D + 1, K) float32.
        bound: What F is above its minimum, at most, as a share of F; for the bias, whose gradient
            is far smaller, by its estimated curvature.
        error: Distance of W to its minimum, at most, as a share of ||W||; the same proof.
    """

    weights: np.ndarray
    value: LossAndGradient
    penalty: float
    objective: float
    slope: np.ndarray
    bound: float
    error: float

    @classmethod
    def of(cls, weights: np.ndarray, value: LossAndGradient, penalty: float) -> "Point":
        """Add the penalty to the loss."""
        body = weights[:-1]
        square = float(np.vdot(body, body))
        objective = value.loss + penalty / 2 * square
        slope = value.gradient.copy()
        slope[:-1] += np.float32(penalty) * body
        steep = float(np.vdot(slope[:-1], slope[:-1]))
        excess = steep / (2 * penalty)
        excess += float(np.vdot(slope[-1], slope[-1])) / (2 * max(value.spread, 1e-6))
        error = float(np.sqrt(steep / max(square, 1e-12))) / penalty
        return cls(weights, value, penalty, objective, slope, excess / max(objective, 1e-12), error)


class Solver:
    """Solves the same rows for one penalty after another.

    Args:
        objective: The mean log-loss over the rows.
        start: Weights (D + 1, K) to begin with; else 0, and the bias from the shares of the classes.

    Attributes:
        passes: Passes over the rows so far.
    """

    def __init__(self, objective: SoftmaxObjective, start: np.ndarray | None = None) -> None:
        self.objective = objective
        self.passes = 0
        self.curvature = Curvature.of(objective)
        self._pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=MEMORY)
        self._before: Point | None = None
        self._spread = 1.0
        self._extrapolated = False
        if start is None:
            start = np.zeros((objective.features + 1, objective.classes), np.float32)
            start[-1] = np.log(objective.share())
        self._here = Point.of(start, self._evaluate(start), 1.0)

    def solve(self, penalty: float, tol: float, steps: int) -> tuple[Point, bool]:
        """Return the minimum for a penalty, and whether its bound is at most `tol`.

        Args:
            penalty: Above 0.
            tol: Largest excess over the minimum, as a share of the objective.
            steps: Most passes over the rows.
        """
        limit, fewest = self.passes + steps, self.passes + min(FEWEST, steps)
        last = self._here
        value = self._evaluate(last.weights) if self._extrapolated else last.value
        here = self._start(Point.of(last.weights, value, penalty))
        self._spread = here.value.spread  # kept for this penalty: an inverse costs half a pass
        while self.passes < limit and (
            here.bound > tol or (self.passes < fewest and here.error > SURE)
        ):
            there = self._step(here, limit)
            if there is here and not self._pairs:
                break  # float32 has no better one
            if there is here:
                self._pairs.clear()
            here = there
        self._before, self._here, self._extrapolated = last, here, False
        return here, here.bound <= tol

    def extrapolate(self, penalty: float) -> Point:
        """Return where the line through the last two solutions leads, or the last one if that is better.

        Which it is, a sample of the rows says: this is no pass over them, and proves nothing.
        """
        size = max(FEWEST_SAMPLED, len(self.objective) // ONE_IN)
        sample, last = self.objective.sample(size), self._here
        tried = [last.weights]
        if self._before is not None:
            tried.append(2 * last.weights - self._before.weights)
        points = [Point.of(weights, sample.evaluate(weights), penalty) for weights in tried]
        here = min(points, key=lambda point: point.objective)
        self._before, self._here, self._extrapolated = last, here, True
        return here

    def _start(self, here: Point) -> Point:
        """Go on in the direction from the last solution but one to the last, if that is better."""
        if self._before is None:
            return here
        there = self._move(here, here.weights - self._before.weights)
        return there if there.objective < here.objective else here

    def _step(self, here: Point, limit: int) -> Point:
        """Return the point after one step, or `here` itself where none was found before `limit` passes."""
        direction = self._direction(here)
        fall, rate = float(np.vdot(here.slope, direction)), 1.0
        while rate > SHORTEST and self.passes < limit:
            there = self._move(here, np.float32(rate) * direction)
            rise = there.objective - here.objective
            if rise <= ARMIJO * rate * fall + ROUNDING * here.objective:
                return there
            # the minimum of the parabola through what is known of the line
            rate *= min(0.5, max(0.1, -rate * fall / (2 * (rise - rate * fall))))
        return here

    def _move(self, here: Point, step: np.ndarray) -> Point:
        weights = here.weights + step
        there = Point.of(weights, self._evaluate(weights), here.penalty)
        change = there.value.gradient - here.value.gradient
        if np.vdot(step, change) > 0:
            self._pairs.append((step, change))
        return there

    def _direction(self, here: Point) -> np.ndarray:
        """The two loops of algorithm 7.4."""
        penalty, inverse = here.penalty, self.curvature.at(self._spread, here.penalty)
        pairs = []
        for step, change in self._pairs:
            whole = change.copy()
            whole[:-1] += np.float32(penalty) * step[:-1]
            pairs.append((step, whole, float(np.vdot(step, whole))))
        direction, shares = -here.slope, []
        for step, change, product in reversed(pairs):
            shares.append(np.float32(np.vdot(step, direction) / product))
            direction -= shares[-1] * change
        direction = inverse(direction)
        if pairs:
            scales = [
                product / np.vdot(change, inverse(change)) for _, change, product in pairs[-SCALES:]
            ]
            direction *= np.float32(np.exp(np.mean(np.log(scales))))
        for (step, change, product), share in zip(pairs, reversed(shares), strict=True):
            direction += (share - np.float32(np.vdot(change, direction) / product)) * step
        return direction

    def _evaluate(self, weights: np.ndarray) -> LossAndGradient:
        self.passes += 1
        return self.objective.evaluate(weights)
