"""onepass doctor: what this machine has for the work, what it lacks and why, and what that means in hours."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from onepass.cache.artifacts import record
from onepass.cache.commandline.advice import onepass_command
from onepass.cache.commandline.command import Command
from onepass.cache.commandline.flags import RunsConfig, flag, parse_duration
from onepass.cache.commandline.table import table
from onepass.cache.errors import UsageError
from onepass.cache.file_system import FileSystem, try_file_system
from onepass.cache.keras_settings import load_keras
from onepass.cache.made_by import own_version, versions
from onepass.cache.progress import counted, human_bytes, human_seconds

if TYPE_CHECKING:
    from onepass.extract.backbones.spec import BackboneSpec

DRIVER = Path("/proc/driver/nvidia/version")
CUDA_PACKAGES = ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "jax-cuda12-plugin", "jax-cuda13-plugin")
SIZE_CLASSES = (25.0, 100.0, 400.0)  # MB of weights up to which a backbone is of that class
SIDE, NOISE = 96, 64  # px and count of the images of noise that are timed
LARGE_BATCH = (
    8  # of a backbone of the two largest classes on a CPU, so that it does not take minutes
)
USUAL_IMAGES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorConfig(RunsConfig):
    """What is looked at."""

    images: int = flag(
        0, "for how many images the time is told (default: those of the data sets in the store)"
    )
    seconds: float = flag(
        20.0, "how long each size of backbone is timed, once its network is built", metavar="T", parse=parse_duration
    )  # fmt: skip
    quick: bool = flag(False, "measure no rates")

    def __post_init__(self) -> None:
        if self.images < 0 or not self.seconds > 0:
            raise UsageError(
                f"--images {self.images} --seconds {self.seconds:g}: expected 0 or more images, and a time above 0"
            )


@record
class Rate:
    """How fast a backbone of one size class is here.

    Attributes:
        backbone: Its name; the smallest of its class that is at hand.
        stands_for: Others at hand of its class.
        size: Side of the images it sees, its native one (px).
        engine: What computes it, and in which numbers.
        why: What speaks for that.
        rate: Images per second of all devices, decoding apart.
        timed: How long that was measured (s).
        seconds: For the images that were asked about.
    """

    backbone: str
    stands_for: tuple[str, ...]
    size: int
    engine: str
    why: str
    rate: float
    timed: float
    seconds: float


@record
class Checkup:
    """What `onepass doctor` found.

    Attributes:
        versions: Of Onepass, Python and the packages that numbers may depend on.
        backend: What Keras runs on: "tensorflow" or "jax".
        devices: What it computes on.
        device: Their kind, in words.
        no_gpu: Why there is no GPU among them; "" where there is one.
        store: The file system of the store.
        runs: That of the results.
        engine: What keeps OpenVINO from computing in bfloat16 here; "" for nothing.
        weights: Backbones whose weights are at hand.
        images: For how many the time is told.
        rates: One for each size class of these backbones.
        leftovers: How many things killed runs left.
    """

    versions: dict[str, str]
    backend: str
    devices: tuple[str, ...]
    device: str
    no_gpu: str
    store: FileSystem
    runs: FileSystem
    engine: str
    weights: tuple[str, ...]
    images: int
    rates: tuple[Rate, ...]
    leftovers: int


def check_machine(config: DoctorConfig) -> Checkup:
    """Look at devices, packages, file systems, weights and, unless it is to be quick, at the speed."""
    load_keras()
    import keras

    from onepass.cache.doctor import DoctorConfig as LeftoversConfig
    from onepass.cache.doctor import examine
    from onepass.extract.backbones.registry import all_backbones
    from onepass.extract.backend import device_kind, device_names, on_accelerator
    from onepass.extract.engines.engine import FASTEST_ON_CPU, Engine

    backend = keras.backend.backend()
    driver = DRIVER.read_text(encoding="utf-8").splitlines()[0] if DRIVER.exists() else ""
    at_hand = sorted(
        (spec for spec in all_backbones() if spec.offline), key=lambda spec: spec.weights_mb
    )
    images = config.images or _stored_images(config) or USUAL_IMAGES
    return Checkup(
        versions={"onepass": own_version(), **versions()},
        backend=backend,
        devices=tuple(device_names()),
        device=device_kind(),
        no_gpu="" if on_accelerator() else why_no_gpu(backend, driver, os.environ, _packages()),
        store=try_file_system(config.store.path),
        runs=try_file_system(config.runs),
        engine=Engine.of(FASTEST_ON_CPU).obstacle,
        weights=tuple(spec.name for spec in at_hand),
        images=images,
        rates=() if config.quick else tuple(_rates(at_hand, images, config.seconds)),
        leftovers=len(examine(LeftoversConfig(cache_dir=config.store.path, runs_dir=config.runs))),
    )


def why_no_gpu(
    backend: str, driver: str, environment: Mapping[str, str], packages: Iterable[str]
) -> str:
    """Return why Keras found no GPU.

    Args:
        backend: That Keras runs on.
        driver: What the NVIDIA driver says of itself; "" where none is loaded.
        environment: Its variables.
        packages: Installed ones with CUDA in them.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if not driver:
        return f"no NVIDIA driver is loaded ({DRIVER} is not there)"
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides all GPUs; unset it"
    extra = {"tensorflow": "cuda", "jax": "jax-cuda"}[backend]
    if not any((backend == "jax") == package.startswith("jax") for package in packages):
        return f'{backend} is installed without CUDA; run: pip install "onepass[{extra}]"'
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES={visible!r} names none that {backend} can use ({driver})"
    return f"{backend} cannot use the GPU, though driver and packages are there ({driver})"


def _packages() -> list[str]:
    return [name for name in CUDA_PACKAGES if _version(name)]


def _version(package: str) -> str:
    """Return the version of an installed package, else ""."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _stored_images(config: DoctorConfig) -> int:
    from onepass.cache.inventory import ListConfig, list_entries

    entries = list_entries(ListConfig(cache_dir=config.store.path, read_from=config.read_from))
    return sum(entry.rows for entry in entries if entry.key.endswith("/pixels"))


def by_size_class(specs: Sequence["BackboneSpec"]) -> list[list["BackboneSpec"]]:
    """Return backbones by the size of their weights, smallest first; classes without one are left out."""
    groups: dict[int, list[BackboneSpec]] = {}
    for spec in sorted(specs, key=lambda spec: spec.weights_mb):
        groups.setdefault(sum(spec.weights_mb > most for most in SIZE_CLASSES), []).append(spec)
    return list(groups.values())


def _rates(specs: Sequence["BackboneSpec"], images: int, seconds: float) -> Iterable[Rate]:
    """Time the smallest backbone of each size class on images of noise, by the engine that `extract` would take."""
    import numpy as np

    from onepass.extract.backend import default_precision, on_accelerator
    from onepass.extract.config import ExtractConfig
    from onepass.extract.engines.engine import Engine
    from onepass.extract.jobs import ExtractionJob, asked_precision
    from onepass.extract.network.model import PUBLISHED
    from onepass.extract.stream.extractor import Extractor, settle_engine

    noise = np.random.default_rng(0).integers(0, 256, (NOISE, SIDE, SIDE, 3), dtype=np.uint8)
    asked = asked_precision(ExtractConfig(dataset="-", backbone=("-",)))
    for first, *others in by_size_class(specs):
        job = ExtractionJob(
            first, first.native_size, "", (("", "avg"),), (), asked or default_precision(),
            PUBLISHED, "as asked for" if asked else "the accelerator's own", open=not asked,
        )  # fmt: skip
        large = first.weights_mb > SIZE_CLASSES[1] and not on_accelerator()
        extractor = Extractor.build(job, noise, LARGE_BATCH if large else 0)
        if job.open and not on_accelerator():
            job, extractor = settle_engine(job, extractor, noise, images)
        rate = extractor.sustained_rate(noise, seconds, f"{first.name} at {job.size} px")
        names = tuple(spec.name for spec in others)
        engine = str(Engine.of(job.precision))
        yield Rate(first.name, names, job.size, engine, job.why, rate, seconds, images / rate)


def checkup_text(found: Checkup) -> str:
    """Return what was found as lines for a person."""
    installed = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    lines = [
        ("versions", installed),
        ("device", f"{found.device} ({', '.join(found.devices)}), {os.cpu_count()} cores"),
        ("GPU", f"none: {found.no_gpu}" if found.no_gpu else "found"),
        ("store", _place(found.store)),
        ("results", _place(found.runs)),
        ("engine", _engine(found)),
        ("weights", f"at hand: {', '.join(found.weights) or 'none'}"),
        *(("rate", _rate(rate, found.images)) for rate in found.rates),
        ("leftovers", _leftovers(found.leftovers)),
    ]
    return "\n".join(table(lines))


def _place(place: FileSystem) -> str:
    able = place.problem or "locks and memory maps work"
    return (
        f"{place.path} on {place.kind or platform.system()}, {human_bytes(place.free)} free: {able}"
    )


def _engine(found: Checkup) -> str:
    if not found.no_gpu:
        return f"Keras on {found.backend}"
    if found.engine:
        return f"Keras on {found.backend}: {found.engine}"
    return "OpenVINO in bfloat16, where that is faster and agrees, else Keras"


def _rate(rate: Rate, images: int) -> str:
    others = f" (of its size: {', '.join(rate.stands_for)})" if rate.stands_for else ""
    return (
        f"{rate.backbone} at {rate.size} px: {rate.rate:,.0f} images/s by {rate.engine}, over {human_seconds(rate.timed)}; "
        f"{counted(images, 'image')} in {human_seconds(rate.seconds)}{others}"
    )


def _leftovers(count: int) -> str:
    if not count:
        return "none of killed runs"
    return f"{count} of killed runs; see them with: {onepass_command('cache', 'doctor')}"


COMMANDS = [
    Command(
        "",
        "Say what this machine has for the work and what it lacks: GPU, disk, engine, weights, rates. What killed "
        "runs left is listed by `onepass cache doctor`.",
        DoctorConfig,
        check_machine,
        checkup_text,
        examples=("onepass doctor --images 100000 --seconds 2", "onepass doctor --quick --json"),
    )
]
