"""The use of GPUs: right sums from a real thread, and silence where it cannot be known."""

import threading
from collections.abc import Iterator

import pytest

from onepass.extract.stream.gpu_use import RECENT, GpuUse, nvml_reader, visible_gpus, watch_gpus


class Values:
    """Gives known values, one a call, then None; `all_read` is set when they are used up."""

    def __init__(self, *values: float | None) -> None:
        self.rest: Iterator[float | None] = iter(values)
        self.all_read = threading.Event()

    def __call__(self) -> float | None:
        assert threading.current_thread().name == "gpu use"
        try:
            return next(self.rest)
        except StopIteration:
            self.all_read.set()
            return None


def test_mean_and_recent_are_those_of_the_samples_that_could_be_read() -> None:
    read = Values(*[0.0] * 5, None, *[0.9] * RECENT)
    with GpuUse(read, period=0.001) as use:
        assert read.all_read.wait(10)
    assert use.mean == pytest.approx(0.9 * RECENT / (RECENT + 5))
    assert use.recent == pytest.approx(0.9) and str(use) == "GPU 90 %"
    assert "gpu use" not in {thread.name for thread in threading.enumerate()}


def test_it_goes_on_when_it_is_entered_again() -> None:
    use = GpuUse(period=0.001)
    for value in (1.0, 0.5):
        use.read = read = Values(value)
        with use:
            assert read.all_read.wait(10)
    assert use.samples == [1.0, 0.5] and use.mean == 0.75


def test_without_a_gpu_there_is_no_figure_no_thread_and_no_word(capfd) -> None:
    with GpuUse() as use:
        assert "gpu use" not in {thread.name for thread in threading.enumerate()}
    assert use.mean is None and use.recent is None and str(use) == ""
    read = nvml_reader(1)
    if read is None:
        assert watch_gpus(1).read is None
    else:  # a machine with a GPU
        value = read()
        assert value is None or 0 <= value <= 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, ["0", "1", "2"]),
        ("2, 0", ["2", "0"]),
        ("GPU-8932f937", ["GPU-8932f937"]),
        ("", []),
    ],
)
def test_the_gpus_are_those_of_this_process(
    chosen: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus(3) == names
