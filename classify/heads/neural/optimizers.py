"""How gradients become steps: Adam and Nesterov's SGD for many heads whose weights lie side by side.

Weights are (I, H, O) and biases (H, O): inputs, heads, outputs. A head's learning rate and penalties
are its own. The steps are those of Keras; a test compares them.
"""

from collections.abc import Callable

import numpy as np

BLOCK_NUMBERS = 1 << 16  # numbers of a block; four arrays of it stay in the cache
MOMENTUM, DECAY = 0.9, 1e-6  # of the SGD of De (2020)


class Optimizer:
    """Steps of one optimiser, with its state.

    Args:
        arrays: Weights (I, H, O) and biases (H, O), float32; they are changed in place.
        rate: (H,) learning rates.
        l1, l2: (H,) penalties: `l1 · Σ|w| + l2 · Σw²` is added to the loss, of weights only.
        ema: Momentum of the running means; 0: none are kept.

    Attributes:
        means: Exponential moving averages of the arrays, as Keras's `use_ema` keeps them; the arrays
            themselves where `ema` is 0.
    """

    slots: int  # arrays of state for each array

    def __init__(
        self,
        arrays: list[np.ndarray],
        rate: np.ndarray,
        l1: np.ndarray,
        l2: np.ndarray,
        ema: float = 0.0,
    ) -> None:
        self.arrays, self.ema = arrays, ema
        self.means = [array.copy() for array in arrays] if ema else arrays
        self.rate, self.l1, self.l2 = (np.asarray(v, np.float32)[:, None] for v in (rate, l1, l2))
        self.state = [[np.zeros_like(array) for _ in range(self.slots)] for array in arrays]
        self.steps = 0

    def step(self, gradients: list[np.ndarray]) -> None:
        """Change the arrays by their gradients, which are overwritten."""
        change = self._change()
        for number, (array, gradient) in enumerate(zip(self.arrays, gradients, strict=True)):
            rows = max(1, BLOCK_NUMBERS // array[0].size)
            for start in range(0, len(array), rows) if array.ndim == 3 else (None,):
                part = slice(start, start + rows) if start is not None else slice(None)
                w, g = array[part], gradient[part]
                if array.ndim == 3:
                    self._penalise(w, g)
                change(w, g, *(state[part] for state in self.state[number]))
                if self.ema:
                    np.subtract(w, self.means[number][part], out=g)
                    g *= np.float32(1 - self.ema if self.steps else 1)
                    self.means[number][part] += g
        self.steps += 1

    def all_arrays(self) -> list[np.ndarray]:
        """Return weights, biases, their means and the optimiser's state, themselves."""
        means = self.means if self.ema else []
        return [*self.arrays, *means, *(one for state in self.state for one in state)]

    def keep(self, chosen: np.ndarray) -> None:
        """Drop all heads but the chosen ones, (h,) int."""
        for arrays in [self.arrays, *self.state, *([self.means] if self.ema else [])]:
            arrays[:] = [np.ascontiguousarray(array[..., chosen, :]) for array in arrays]
        self.rate, self.l1, self.l2 = self.rate[chosen], self.l1[chosen], self.l2[chosen]

    def _penalise(self, w: np.ndarray, g: np.ndarray) -> None:
        if self.l2.any():
            g += w * (2 * self.l2)
        if self.l1.any():
            g += np.sign(w) * self.l1

    def _change(self) -> Callable[..., None]:
        """Return what one block of weights undergoes in this step: f(weights, gradient, *state)."""
        raise NotImplementedError


class Adam(Optimizer):
    """Kingma and Ba, "Adam", ICLR 2015, in the form before section 2.1, as Keras has it.

    The moments are kept divided by (1 − β): two passes over the arrays fewer.
    """

    slots = 2
    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7

    def _change(self) -> Callable[..., None]:
        t = self.steps + 1
        root = np.sqrt(1 - self.BETA2)
        factor = np.sqrt(1 - self.BETA2**t) / (1 - self.BETA1**t) * (1 - self.BETA1) / root
        rate, epsilon = self.rate * np.float32(factor), np.float32(self.EPSILON / root)

        def change(w: np.ndarray, g: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
            first *= self.BETA1
            first += g
            np.square(g, out=g)
            second *= self.BETA2
            second += g
            np.sqrt(second, out=g)
            g += epsilon
            np.divide(first, g, out=g)
            g *= rate
            w -= g

        return change


class Nesterov(Optimizer):
    """SGD with Nesterov momentum 0.9 and the rate `rate / (1 + 1e-6 · step)`, as old Keras had it.

    Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep
    learning", ICML 2013.
    """

    slots = 1

    def _change(self) -> Callable[..., None]:
        rate = self.rate / np.float32(1 + DECAY * self.steps)

        def change(w: np.ndarray, g: np.ndarray, velocity: np.ndarray) -> None:
            g *= rate
            velocity *= MOMENTUM
            velocity -= g
            w -= g
            w += MOMENTUM * velocity

        return change


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "sgd": Nesterov}
RATES = {"adam": 1e-3, "sgd": 1e-2}
