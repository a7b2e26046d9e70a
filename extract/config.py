"""The flags of `onepass extract`. Imports next to no module, so that `--help` answers at once."""

import os
from dataclasses import dataclass
from pathlib import Path

from onepass.cache.commandline.flags import ClusterConfig, flag, parse_bytes, parse_duration
from onepass.cache.errors import UsageError
from onepass.data.views import VIEW_HELP

# What each engine computes in; "auto" takes the first that this machine has, but with Keras
PRECISIONS_OF = {
    "keras": ("float32", "mixed_bfloat16", "mixed_float16"),
    "openvino": ("bfloat16", "float32"),
}
ENGINES = ("auto", *PRECISIONS_OF)
PRECISIONS = ("auto", "float32", "bfloat16", "mixed_bfloat16", "mixed_float16")
POOLINGS = ("avg", "max", "gem", "avg+max", "token", "patches")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractConfig(ClusterConfig):
    """What to extract, from what, and how; each field is the flag of the same name."""

    dataset: str = flag("", "name of a prepared data set")
    backbone: tuple[str, ...] = flag(
        (), "one or more backbones of --list-backbones, or handles hf://USER/PRESET", metavar="NAME"
    )
    size: tuple[int, ...] = flag(
        (), "height and width the backbone sees, px (default: its native size)", metavar="PX"
    )
    layer: tuple[str, ...] = flag(
        ("",), "layers to take the features from (default: the last); `list` prints their names"
    )
    view: tuple[str, ...] = flag(
        ("",),
        f"views of the image: {VIEW_HELP}, random:SEED (default: as it is)",
    )
    pooling: tuple[str, ...] = flag(
        ("avg",),
        "of a feature map: avg, max, gem or avg+max; of a vision transformer, whose class token and mean of patches "
        "otherwise stand side by side: token or patches, for one of them",
    )
    dtype: str = flag("float16", "type of the stored numbers", choices=("float16", "float32"))
    engine: str | None = flag(
        None,
        "what computes the backbone: keras; openvino, on a CPU; or auto: openvino where the processor has bfloat16 "
        "and it agrees, is faster and pays, but what stored vectors were computed by goes on (default: "
        "$ONEPASS_ENGINE, else auto)",
        choices=ENGINES,
    )
    precision: str = flag(
        "auto",
        "arithmetic of the backbone; auto, with keras: float32 on a CPU, mixed_bfloat16 on an accelerator; with "
        "openvino: bfloat16 where the processor has it, else float32",
        choices=PRECISIONS,
    )
    logits: bool = flag(False, "also keep the backbone's own 1000 ImageNet logits")
    weights: str = flag(
        "imagenet",
        "imagenet, none (random), or a local weights file or preset folder",
        metavar="FILE",
    )
    weights_sha256: str | None = flag(None, "what the SHA-256 of that file must be", metavar="HEX")
    seed: int = flag(0, "for random weights")
    batch: int = flag(0, "batch size (default: 64 on a CPU, 256 on an accelerator)")
    shard_rows: int = flag(
        2048, "rows of a shard, fewer where they fill 16 MB: what a kill can cost at most"
    )
    time_limit: float | None = flag(
        None, "stop cleanly after this long, such as 8h45m", metavar="T", parse=parse_duration
    )
    dry_run: bool = flag(False, "measure a few batches, print the plan, and stop")
    list_backbones: bool = flag(False, "print every backbone and stop")
    offline: bool = flag(False, "of the list: only those whose weights are on this machine")
    fits: float | None = flag(
        None, "of the list: only those whose weights are no larger, such as 500MB", metavar="SIZE", parse=parse_bytes
    )  # fmt: skip
    licence: str = flag(
        "", "of the list: only those whose weights have this licence, such as apache-2.0"
    )

    def __post_init__(self) -> None:
        if not self.list_backbones:
            self._check()

    def _check(self) -> None:
        """Refuse flags that do not fit one another."""
        if self.offline or self.fits is not None or self.licence:
            raise UsageError("--offline, --fits, --licence: expected --list-backbones beside them")
        for name in ("dataset", "backbone"):
            if not getattr(self, name):
                raise UsageError(f"--{name}: expected a name, received none")
        counts = [("--batch", self.batch, 0), ("--shard-rows", self.shard_rows, 1)]
        counts += [("--size", size, 1) for size in self.size]
        for name, value, least in counts:
            if value < least:
                raise UsageError(f"{name} {value}: expected a whole number, at least {least}")
        self.check_cluster()
        if unknown := set(self.pooling) - set(POOLINGS):
            raise UsageError(f"--pooling {' '.join(unknown)}: expected {', '.join(POOLINGS)}")
        precisions = PRECISIONS_OF.get(self.chosen_engine, PRECISIONS)
        if self.precision not in ("auto", *precisions):
            raise UsageError(
                f"--precision {self.precision}: expected {', '.join(precisions)} with --engine {self.chosen_engine}"
            )
        if len(self.backbone) > 1 and Path(self.weights).suffix:
            raise UsageError(
                f"--weights {self.weights}: a weights file is for one --backbone, received {len(self.backbone)}"
            )

    @property
    def chosen_engine(self) -> str:
        """The engine asked for."""
        return choose_engine(self.engine)


def choose_engine(named: str | None) -> str:
    """Return the engine that the flag names, else the environment: "auto" or one of `PRECISIONS_OF`.

    Raises:
        UsageError: The environment names another.
    """
    engine = named or os.environ.get("ONEPASS_ENGINE") or "auto"
    if engine not in (known := ("auto", *PRECISIONS_OF)):
        raise UsageError(f"ONEPASS_ENGINE={engine}: expected {', '.join(known)}")
    return engine
