"""Several devices of this host share each batch: data parallelism by XLA's own partitioner, on JAX."""

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from onepass.extract.backend import device_names

log = logging.getLogger(__name__)


def devices_for(images: int) -> int:
    """Return how many devices share the images that are computed at once; where not all can, say why.

    Args:
        images: Of a batch, or of a part of it.
    """
    if keras.backend.backend() == "jax":
        import jax

        total = len(jax.local_devices())
        count = next(n for n in range(total, 0, -1) if images % n == 0)
        why = f"{images} images at once cannot be divided by {total}; choose another --batch"
    else:
        total, count = len(device_names()), 1
        why = "KERAS_BACKEND=jax trains on all of them"
    if count < total:
        log.info(f"training uses {count} of {total} devices: {why}")
    return count


class Sharing:
    """How the arrays of one step lie on the devices: images are divided, weights are everywhere.

    The compiled step remains the program of the whole batch. XLA divides it along the images and adds the
    gradients up, so the numbers differ from those of one device by the order of sums only.

    Args:
        devices: How many; with 1 nothing is moved.
    """

    def __init__(self, devices: int) -> None:
        self.divided: Any = None
        self.everywhere: Any = None
        if devices > 1:
            import jax
            from jax.sharding import Mesh, NamedSharding, PartitionSpec

            mesh = Mesh(np.array(jax.local_devices()[:devices]), ("images",))
            self.divided = NamedSharding(mesh, PartitionSpec("images"))
            self.everywhere = NamedSharding(mesh, PartitionSpec())

    def copy(self, arrays: Any) -> Any:
        """Put all arrays of a nest on every device."""
        import jax

        return jax.device_put(arrays, self.everywhere) if self.everywhere else arrays

    def divide(self, arrays: Any, images: int) -> Any:
        """Divide the arrays of a nest whose first axis is the images; the others go on every device."""
        import jax

        if not self.divided:
            return arrays
        return jax.tree.map(
            lambda a: jax.device_put(a, self.divided if a.shape[0] == images else self.everywhere),
            arrays,
        )

    def compile(self, function: Callable, divided: bool = False) -> Callable:
        """Compile a function whose results lie on every device, or are divided."""
        import jax

        if not self.divided:
            return jax.jit(function)
        return jax.jit(function, out_shardings=self.divided if divided else self.everywhere)


def divided_like(variable: Any, pixels: np.ndarray) -> Any:
    """Divide pixels among the devices that a variable's value (JAX) lies on, if they can be divided."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    where = variable.sharding
    if not isinstance(where, NamedSharding) or len(pixels) % where.mesh.size:
        return pixels
    return jax.device_put(pixels, NamedSharding(where.mesh, PartitionSpec("images")))
