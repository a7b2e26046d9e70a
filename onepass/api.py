"""The library's public functions: each is one stage, and what the command of that stage calls.

Every function takes the flags of its command as keyword arguments, with `_` for `-`: `--time-limit 8h`
is `time_limit=8 * 3600`. Where a flag takes several values, one value or a sequence will do.
`progress` is called with a `ProgressUpdate` now and then, from whichever thread does the work (in a notebook a bar
is shown where none is given); `stop` is a
`StopRequest` that another thread may ask. Errors are `onepass.cache.errors.OnepassError`; `remedy` of an
error names the step that mends it.
"""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onepass.cache.commandline.flags import StoreConfig
from onepass.cache.errors import UsageError
from onepass.cache.keras_settings import load_keras
from onepass.cache.notebook import notebook_bar
from onepass.cache.progress import ProgressCallback, progress_to
from onepass.cache.stopping import StopRequest
from onepass.data.dataset import ImageDataset

if TYPE_CHECKING:
    from onepass.classify.pipeline import ClassifyResult
    from onepass.data.features import LabelledFeatures
    from onepass.data.summary import Prepared
    from onepass.extract.pipeline import ExtractResult
    from onepass.finetune.session.result import FinetuneResult
    from onepass.predict.pictures.pipeline import PicturesResult
    from onepass.predict.predictor import Predictor
    from onepass.predict.split import PredictResult
    from onepass.report.page import PageResult

C = TypeVar("C")


def prepare_dataset(
    kind: str,
    *,
    progress: ProgressCallback | None = None,
    stop: StopRequest | None = None,
    **options: Any,
) -> "Prepared":
    """Decode every image of a source once and store it as a row of pixels: `onepass data prepare`.

    Args:
        kind: "folder", or a data set that Onepass knows, such as "solar-cells".
        progress: See the module.
        stop: See the module.
        **options: Fields of `onepass.data.config.PrepareConfig`, such as `source` and `name`.

    Returns:
        The data set's name, its numbers, and what was left out.
    """
    from onepass.data.config import PrepareConfig
    from onepass.data.prepare import prepare_dataset as prepare

    with progress_to(progress or notebook_bar()):
        return prepare(_config(PrepareConfig, {"kind": kind, **options}), stop)


def open_dataset(name: str, *, cache_dir: str | Path | None = None) -> ImageDataset:
    """Open a prepared data set; no pixel is read.

    Args:
        name: Its name in the store.
        cache_dir: The store (default: $ONEPASS_CACHE, else `cache/store` of the working directory).

    Returns:
        N images in a fixed order: `pixels` (N, H, W, C) uint8, `labels` (N,) int32.
    """
    from onepass.data.dataset import open_dataset as open_

    return open_(_config(StoreConfig, {"cache_dir": cache_dir}).store, name)


def extract_features(
    dataset: str,
    backbone: str | tuple[str, ...],
    *,
    progress: ProgressCallback | None = None,
    stop: StopRequest | None = None,
    **options: Any,
) -> "ExtractResult":
    """Store one pooled vector per image for each backbone, size, layer and view: `onepass extract`.

    Args:
        dataset: Name of a prepared data set.
        backbone: One or more names of backbones.
        progress: See the module.
        stop: See the module; the rows that are committed stay, and the same call resumes.
        **options: Fields of `onepass.extract.config.ExtractConfig`, such as `size` (px).

    Returns:
        What became of each feature file.
    """
    from onepass.extract.config import ExtractConfig
    from onepass.extract.pipeline import extract_features as extract

    config = _config(ExtractConfig, {"dataset": dataset, "backbone": backbone, **options})
    with progress_to(progress or notebook_bar()):
        return extract(config, stop)


def open_features(
    dataset: str, *keys: str, cache_dir: str | Path | None = None
) -> "LabelledFeatures":
    """Open stored feature vectors; several keys are put side by side.

    Args:
        dataset: Name of a prepared data set.
        *keys: Feature keys such as "efficientnet_lite0@128".
        cache_dir: The store (default: $ONEPASS_CACHE, else `cache/store` of the working directory).

    Returns:
        `X` (N, D) float16 or float32, row i being image i of the data set, with labels and splits.
    """
    from onepass.data.features import labelled_features

    return labelled_features(_config(StoreConfig, {"cache_dir": cache_dir}).store, dataset, keys)


def run_probes(
    dataset: str, *, progress: ProgressCallback | None = None, **options: Any
) -> "ClassifyResult":
    """Try heads on the stored features and rank them: `onepass classify`.

    Args:
        dataset: Name of a prepared data set.
        progress: See the module.
        **options: Fields of `onepass.classify.config.ClassifyConfig`, such as `head`.

    Returns:
        The ranked probes, the best by selection accuracy first, and the winner.
    """
    from onepass.classify.config import ClassifyConfig
    from onepass.classify.pipeline import run_probes as run

    with progress_to(progress or notebook_bar()):
        return run(_config(ClassifyConfig, {"dataset": dataset, **options}))


def finetune_network(
    dataset: str,
    *,
    progress: ProgressCallback | None = None,
    stop: StopRequest | None = None,
    **options: Any,
) -> "FinetuneResult":
    """Train the winning backbone end to end, from its probe: `onepass finetune`.

    Args:
        dataset: Name of a prepared data set with a leaderboard.
        progress: See the module.
        stop: See the module; the run ends with a checkpoint, and the same call resumes.
        **options: Fields of `onepass.finetune.config.FinetuneConfig`, such as `epochs`.

    Returns:
        The run: its history, its accuracy on the validation split and the test against the probe.
    """
    from onepass.finetune.config import FinetuneConfig

    load_keras()
    from onepass.finetune.pipeline import run_finetune

    with progress_to(progress or notebook_bar()):
        return run_finetune(_config(FinetuneConfig, {"dataset": dataset, **options}), stop)


def load_predictor(*models: str, **options: Any) -> "Predictor":
    """Load what won, to predict with it: the models of `onepass predict`.

    `predictor(["a.jpg", pixels, image])` gives the probabilities (n, K) float32 of new pictures, with their
    class names; `predictor.predict_split("val")` those of every image of a split of the data set. It may be
    kept, and called from several threads.

    Args:
        *models: Each a data set, whose leaderboard's winner is taken, DATASET#LINE, DATASET/PROBE,
            DATASET/HEAD or DATASET/RUN; several of one data set are averaged.
        **options: Fields of `onepass.predict.config.ModelsConfig`: `views`, `weights`, `temperature`,
            `batch_size` (1 answers a single picture soonest), `at` and `positive` (an operating point, such as
            "sensitivity=0.95"), `prior` (the mix of classes in use, such as "defective:0.02"), `cache_dir`, `runs_dir`.

    Returns:
        The predictor: a probe, an ensemble, a fine-tuned run, or an average of several.
    """
    from onepass.predict.config import ModelsConfig
    from onepass.predict.models import load_predictor as load

    return load(_config(ModelsConfig, {"models": models, **options}))


def write_predictions(
    *models: str, progress: ProgressCallback | None = None, **options: Any
) -> "PredictResult | PicturesResult":
    """Write answers to a file: `onepass predict`.

    Args:
        *models: As for `load_predictor`.
        progress: See the module.
        **options: Fields of `onepass.predict.config.PredictConfig`: `images` for new pictures, else `split`
            ("test" or "val"); `format`, `header` and `out`, such as format="kaggle", out="submission.csv".

    Returns:
        Where the answers lie, and what made them.
    """
    from onepass.predict.config import PredictConfig
    from onepass.predict.pipeline import write_predictions as write

    with progress_to(progress or notebook_bar()):
        return write(_config(PredictConfig, {"models": models, **options}))


def write_report(dataset: str, **options: Any) -> "PageResult":
    """Write one self-contained HTML page of a data set's results: `onepass report`.

    Args:
        dataset: Name of a data set with a leaderboard.
        **options: Fields of `onepass.report.config.ReportConfig`.

    Returns:
        Where the page and its figures lie.
    """
    from onepass.report.config import ReportConfig
    from onepass.report.page import write_page

    return write_page(_config(ReportConfig, {"dataset": dataset, **options}))


def _config(kind: type[C], options: Mapping[str, Any]) -> C:
    """Return a command's configuration from keyword arguments."""
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(options.keys() - known):
        raise UsageError(
            f"{unknown[0]}: expected one of {', '.join(sorted(known))}, received another keyword"
        )
    return kind(**{name: _fit(name, hints[name], value) for name, value in options.items()})


def _fit(name: str, hint: Any, value: Any) -> Any:
    """Return a value in the type of its flag; a single value becomes a tuple of one where several may be given."""
    from pydantic import TypeAdapter, ValidationError

    if typing.get_origin(hint) is tuple and not isinstance(value, list | tuple):
        value = (value,)
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        expected = hint.__name__ if isinstance(hint, type) else str(hint)
        raise UsageError(f"{name}: expected {expected}, received {value!r}") from error
