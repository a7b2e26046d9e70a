"""How the winner is trained: one frozen dataclass a recipe."""

from dataclasses import dataclass
from typing import Any

from finetune.augmentation import Augmentation


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides how training goes, besides the data and the seed.

    Attributes:
        epochs: Passes over the training rows.
        batch: Images a step.
        learning_rate: Adam's, constant (Kingma & Ba, arXiv 1412.6980).
        dropout: Share of the pooled vector dropped before the head.
        augmentation: How the training images are changed at random.
    """

    epochs: int
    batch: int
    learning_rate: float
    dropout: float
    augmentation: Augmentation

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Recipe":
        """Return the recipe that `dataclasses.asdict` made this of."""
        return cls(**{**value, "augmentation": Augmentation(**value["augmentation"])})


# All layers at once, in small steps from where the probe left off (LP-FT: Kumar et al., ICLR 2022).
RECIPES = {
    "default": Recipe(
        epochs=5,
        batch=32,
        learning_rate=1e-5,
        dropout=0.0,
        augmentation=Augmentation(flip=True),
    )
}
