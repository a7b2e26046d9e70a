"""The mix of classes in use, where it is another than that of the training images: `--prior`.

Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", Neural
Computation 14, 2002. It holds where the images of each class look the same, and only their number differs.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from onepass.cache.artifacts import record
from onepass.cache.errors import InvalidInputError, UsageError, unknown_name
from onepass.classify.heads.ensembles.ensembler import mixture_weights
from onepass.classify.metrics import SMALLEST, change_prior
from onepass.data.dataset import ImageDataset

SHARE = re.compile(r"(?P<name>.+?):(?P<share>[0-9]*\.?[0-9]+)(?:,|$)")
LEAST, LEAST_PER_CLASS = 50, 10  # images that a mix is estimated on
EXACT = 1e-3  # within which given shares have to add up to 1


@record
class Prior:
    """Which mix of classes the probabilities of a model are for, and which they are to be for.

    Attributes:
        learnt: Share of each class among the training images, (K,), above 0.
        used: Share of each class in use, (K,), together 1; () where it is to be estimated.
        estimated_on: Images that `used` was estimated on; 0 where it was given.
    """

    learnt: tuple[float, ...]
    used: tuple[float, ...]
    estimated_on: int = 0

    def settled(self, probabilities: np.ndarray) -> "Prior":
        """Return the prior with its mix in use, which is estimated where it was not given.

        It is the mix under which the images are most probable (Saerens et al., section 2.3).

        Args:
            probabilities: (n, K) of the images in use, for the mix of the training images.

        Raises:
            InvalidInputError: They are too few to estimate it.
        """
        if self.used:
            return self
        count, classes = probabilities.shape
        least = max(LEAST, LEAST_PER_CLASS * classes)
        if count < least:
            raise InvalidInputError(
                f"--prior estimate: expected at least {least:,} images to estimate the mix of {classes} classes "
                f"on, received {count:,}; give the shares, or predict more images at once"
            )
        likelihoods = np.maximum(probabilities, SMALLEST) / np.array(self.learnt)
        found = np.maximum(mixture_weights(likelihoods), SMALLEST)
        return Prior(self.learnt, tuple((found / found.sum()).tolist()), count)

    def corrected(self, probabilities: np.ndarray) -> np.ndarray:
        """Return probabilities (n, K) of the training mix for the mix in use."""
        if not len(probabilities):
            return probabilities
        return change_prior(probabilities, np.array(self.learnt), np.array(self.used))

    def odds(self, column: int) -> float:
        """Return what the odds of a class against all others are multiplied by.

        Raises:
            UsageError: That differs by image, as the others are in other proportions than in training.
        """
        ratios = np.array(self.used) / np.array(self.learnt)
        others = np.delete(ratios, column)
        if not np.allclose(others, others[0], rtol=1e-6):
            raise UsageError(
                "--prior: expected the share of the positive class alone, as an operating point needs the others in "
                "the proportions of the training images; leave their shares out, or add --at none"
            )
        return float(ratios[column] / others[0])


def training_shares(dataset: ImageDataset) -> np.ndarray:
    """Return the share of each class among the training images, (K,) float64."""
    labels = dataset.labels[dataset.rows("train")]
    return np.bincount(labels, minlength=len(dataset.class_ids)) / len(labels)


def parse_prior(
    text: str, class_ids: Sequence[str], class_names: Sequence[str], learnt: Sequence[float]
) -> Prior:
    """Return what `--prior` asks for.

    Args:
        text: CLASS:SHARE,…, by id or name. Classes that are not named have what is
            left of 1, in the proportions of the training images.
        class_ids, class_names: Of the K classes; either names one.
        learnt: Share of each class among the training images, (K,).

    Raises:
        UsageError: It is written in another way, or the shares do not make 1.
        UnknownNameError: There is no such class.
    """
    before = tuple(map(float, learnt))
    found = list(SHARE.finditer(text))
    known = {name: k for names in (class_names, class_ids) for k, name in enumerate(names)}
    if "".join(one[0] for one in found) != text or text.endswith(","):
        raise UsageError(
            f"--prior {text}: expected CLASS:SHARE,… such as {class_names[0]}:0.02, or estimate"
        )
    for one in found:
        if one["name"] not in known:
            raise unknown_name("class", one["name"], known)
    shares = {known[one["name"]]: float(one["share"]) for one in found}
    complete, total = len(shares) == len(before), sum(shares.values())
    adds_up = abs(total - 1) < EXACT if complete else total < 1
    if len(shares) < len(found) or min(shares.values()) <= 0 or not adds_up:
        raise UsageError(
            f"--prior {text}: expected each class once, shares above 0 that "
            + ("add up to 1" if complete else "leave some of 1 to the other classes")
        )
    return Prior(before, _filled_up(shares, before))


def _filled_up(shares: Mapping[int, float], before: Sequence[float]) -> tuple[float, ...]:
    """Return the share of every class, together 1; those that are not given keep their proportions."""
    total, rest = sum(shares.values()), 1 - sum(before[k] for k in shares)
    if len(shares) == len(before):
        return tuple(shares[k] / total for k in range(len(before)))
    return tuple(shares.get(k, share / rest * (1 - total)) for k, share in enumerate(before))
