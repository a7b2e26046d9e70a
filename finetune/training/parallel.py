"""Several devices share each batch, on this host or on several: data parallelism by XLA's own partitioner, on JAX."""

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.extract.backend import device_names
from onepass.finetune.training import hosts

log = logging.getLogger(__name__)


def devices_for(images: int) -> int:
    """Return how many devices share the images that are computed at once; where not all can, say why.

    Args:
        images: Of a batch, or of a part of it.

    Raises:
        InvalidInputError: Several processes train together, and not all their devices can share it.
    """
    if keras.backend.backend() == "jax":
        import jax

        total = jax.device_count()
        if hosts.count() > 1 and images % total:
            raise InvalidInputError(
                f"{images} images at once cannot be divided by the {total} devices of {hosts.count()} processes; "
                "choose another --batch"
            )
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
            self.divided, self.everywhere = _placements(devices)

    def copy(self, arrays: Any) -> Any:
        """Put all arrays of a nest on every device; where several processes train, those of the first."""
        import jax

        if hosts.count() > 1:
            from jax.experimental import multihost_utils

            arrays = multihost_utils.broadcast_one_to_all(arrays)
        return jax.tree.map(lambda a: _put(a, self.everywhere), arrays)

    def divide(self, arrays: Any, images: int) -> Any:
        """Divide the arrays of a nest whose first axis is the images; the others go on every device."""
        import jax

        if not self.divided:
            return arrays
        return jax.tree.map(
            lambda a: _put(a, self.divided if a.shape[0] == images else self.everywhere), arrays
        )

    def compile(self, function: Callable, divided: bool = False) -> Callable:
        """Compile a function whose results lie on every device, or are divided."""
        import jax

        if not self.divided:
            return jax.jit(function)
        return jax.jit(function, out_shardings=self.divided if divided else self.everywhere)


def read_share(pixels: np.ndarray, rows: np.ndarray) -> Any:
    """Return the pixels (n, H, W, C) of rows (n,); where several processes train, each reads a share of them."""
    if hosts.count() == 1:
        return pixels[rows]
    import jax

    divided, _ = _placements(jax.device_count())
    shape = (len(rows), *pixels.shape[1:])
    read: Any = lambda index: pixels[rows[index[0]]]  # noqa: E731
    return jax.make_array_from_callback(shape, divided, read)


def local(array: Any) -> Any:
    """Return an array (JAX) that lies on every device as this process can use it by itself."""
    return array.addressable_data(0) if hosts.count() > 1 else array


def divided_like(variable: Any, pixels: np.ndarray) -> Any:
    """Divide pixels among the devices that a variable's value (JAX) lies on, if they can be divided."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    where = variable.sharding
    if not isinstance(where, NamedSharding) or len(pixels) % where.mesh.size:
        return pixels
    return jax.device_put(pixels, NamedSharding(where.mesh, PartitionSpec("images")))


def _placements(devices: int) -> tuple[Any, Any]:
    """Return how images are divided among so many devices, and how an array lies on each of them."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()[:devices]), ("images",))
    return NamedSharding(mesh, PartitionSpec("images")), NamedSharding(mesh, PartitionSpec())


def _put(array: Any, where: Any) -> Any:
    """Put an array, which every process has, on devices."""
    import jax

    if where is None or hosts.count() == 1 or isinstance(array, jax.Array):
        return jax.device_put(array, where) if where else array
    return jax.make_array_from_process_local_data(where, array, array.shape)
