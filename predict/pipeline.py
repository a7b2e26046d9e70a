"""The command: answers for new pictures or for a split, as a file."""

from typing import TYPE_CHECKING

from onepass.predict.config import PredictConfig

if TYPE_CHECKING:
    from onepass.predict.pictures.pipeline import PicturesResult
    from onepass.predict.split import PredictResult


def write_predictions(config: PredictConfig) -> "PredictResult | PicturesResult":
    """Write the classes of new pictures where some are named, else those of a split of the data set."""
    config = config.parted()
    if config.images:
        from onepass.predict.pictures.pipeline import predict_pictures

        return predict_pictures(config)
    from onepass.predict.split import predict_split

    return predict_split(config)
