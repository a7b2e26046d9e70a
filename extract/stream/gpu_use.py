"""How busy the GPUs are, sampled with NVML while something runs. Where that cannot be known, it is None."""

import os
import threading
from collections.abc import Callable
from types import TracebackType

from onepass.extract.backend import on_accelerator

PERIOD = 0.5  # seconds between samples; NVML itself looks back over up to a second
RECENT = 10  # samples that count as recent

Reader = Callable[[], float | None]


class GpuUse:
    """Samples how busy the GPUs are, in a thread, while it is entered; entered again, it adds to its samples.

    Args:
        read: Gives the use at this moment, 0 … 1, or None; without it nothing is sampled.
        period: Seconds between samples.
    """

    def __init__(self, read: Reader | None = None, period: float = PERIOD) -> None:
        self.read, self.period = read, period
        self.samples: list[float] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "GpuUse":
        if self.read:
            self._ended.clear()
            self._thread = threading.Thread(
                target=self._sample, args=(self.read,), name="gpu use", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread:
            self._ended.set()
            self._thread.join()
            self._thread = None

    @property
    def mean(self) -> float | None:
        """Mean of all samples, 0 … 1; None where there is none."""
        return _mean(self.samples)

    @property
    def recent(self) -> float | None:
        """Mean of the last `RECENT` samples, 0 … 1; None where there is none."""
        return _mean(self.samples[-RECENT:])

    def __str__(self) -> str:
        """Return the recent use as `GPU 97 %`; "" where it is not known."""
        recent = self.recent
        return "" if recent is None else f"GPU {100 * recent:.0f} %"

    def _sample(self, read: Reader) -> None:
        while not self._ended.wait(self.period):
            value = read()
            if value is not None:
                self.samples.append(value)


def watch_gpus(count: int) -> GpuUse:
    """Return the sampler of the first `count` GPUs that this process sees; on a CPU it samples nothing."""
    return GpuUse(nvml_reader(count) if on_accelerator() else None)


def nvml_reader(count: int) -> Reader | None:
    """Return a function that gives the mean use of the first `count` visible NVIDIA GPUs, 0 … 1.

    None where there is no library (package nvidia-ml-py), no driver or no such GPU.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        names = visible_gpus(pynvml.nvmlDeviceGetCount())[:count]
        gpus = [
            pynvml.nvmlDeviceGetHandleByIndex(int(name))
            if name.isdigit()
            else pynvml.nvmlDeviceGetHandleByUUID(name)
            for name in names
        ]
    except pynvml.NVMLError:
        return None

    def read() -> float | None:
        try:
            return sum(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu for gpu in gpus) / (
                100 * len(gpus)
            )
        except pynvml.NVMLError:  # a slice of a GPU, for one, has no use of its own
            return None

    return read if gpus else None


def visible_gpus(total: int) -> list[str]:
    """Return numbers or UUIDs of the GPUs of this process: CUDA_VISIBLE_DEVICES, else all `total`."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(total)) if chosen is None else chosen.split(",")
    return [name.strip() for name in names if name.strip()]


def _mean(samples: list[float]) -> float | None:
    return sum(samples) / len(samples) if samples else None
