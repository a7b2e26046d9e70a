"""Looking at an image in several ways when it is predicted: the views of extraction, on a trained network."""

from collections.abc import Collection

import keras

from onepass.cache.errors import InvalidInputError
from onepass.data.views import VIEW_HELP, expand_views
from onepass.extract.backend import as_list
from onepass.extract.network.model import Resize
from onepass.extract.network.resize import random_seed, view_matrices


def views_to_average(views: tuple[str, ...], symmetries: Collection[str] | None) -> tuple[str, ...]:
    """Return single views, each once, the whole image first.

    Args:
        views: Their names.
        symmetries: Of the data set; see `expand_views`.

    Raises:
        InvalidInputError: One does not exist, or is drawn at random.
    """
    single = expand_views(("", *views), symmetries)
    for view in single:
        view_matrices(8, 8, 8, view)
        if random_seed(view) is not None:
            raise InvalidInputError(
                f"--views {view}: expected a view that is the same for every image: {VIEW_HELP}"
            )
    return single


def with_view(predictor: keras.Model, view: str) -> keras.Model:
    """Return the same network, with the same variables, that looks at the images in another way.

    Args:
        predictor: uint8 (B, H, W, C) → logits (B, K): layers "extractor" and "top", as
            `onepass.finetune.training.model.assemble` makes it.
        view: As `onepass.extract.network.resize.view_matrices` takes it.
    """
    if not view:
        return predictor
    extractor, top = predictor.get_layer("extractor"), predictor.get_layer("top")
    resize = extractor.get_layer("resize")
    behind = keras.Model(resize.output, extractor.output)
    pixels = keras.Input(predictor.input_shape[1:], dtype="uint8", name="pixels")
    x = as_list(behind(Resize(resize.size, view, name="resize")(pixels)))[0]
    name = "predictor_" + "".join(filter(str.isalnum, view))
    return keras.Model(pixels, top(x), name=name)
