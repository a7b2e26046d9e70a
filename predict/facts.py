"""What is known of a model: how good it is, what it learnt from, whose licences apply. Facts only."""

from onepass.cache.artifacts import record
from onepass.cache.made_by import MadeBy
from onepass.classify.metrics import accuracy, confidence_interval, log_loss, log_probabilities
from onepass.classify.operating_points import OperatingPoint
from onepass.classify.prior import Prior, training_shares
from onepass.classify.text import operating_point_text, prior_text
from onepass.predict.pixel_classifier import PictureGeometry
from onepass.predict.pixel_models import VectorSpec
from onepass.predict.predictor import Predictor


@record
class Score:
    """How a model does on the validation split, which it was scored on once.

    Attributes:
        rows: Images.
        top1: Share that is right, 0 … 1.
        interval: Its 95 % interval.
        log_loss: In nats.
    """

    rows: int
    top1: float
    interval: tuple[float, float]
    log_loss: float


@record
class WeightsFact:
    """Weights that a network began with: backbone, identity, and licence ("" where it is not known)."""

    backbone: str
    identity: str
    licence: str


@record
class ModelFacts:
    """What is known of training and data.

    Attributes:
        dataset: Name of the data set.
        dataset_digest: Its state (hex).
        title: Its name for people.
        training_rows: Images that were learnt from.
        validation: None where the validation split was not scored for this model.
        weights: What the networks began with.
        data_licence: Of the images; "" where none is stated.
        citation: Publications to be cited.
        notes: What a reader of a result has to know.
        temperature: Divides the logarithms of the probabilities; it is inside.
        made_by: Who exported it, when and with what.
    """

    dataset: str
    dataset_digest: str
    title: str
    training_rows: int
    validation: Score | None
    weights: tuple[WeightsFact, ...]
    data_licence: str
    citation: tuple[str, ...]
    notes: tuple[str, ...]
    temperature: float
    made_by: MadeBy


@record
class About:
    """What a person or a program has to know to use a model.

    Attributes:
        name: DATASET/PROBE or DATASET/RUN; of an average, joined by " + ".
        description: What it is, in words.
        class_ids: Identity of the class of each column.
        class_names: Its name in words.
        geometry: What a picture becomes before a network sees it.
        facts: What is known of training and data.
        point: By which the classes of its answers are decided; None: the most probable class is the answer.
        shares: Share of each class among the training images; () where an earlier version exported it.
        prior: The mix of classes that its answers are for; None: that of the training images.
    """

    name: str
    description: str
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    geometry: PictureGeometry
    facts: ModelFacts
    point: OperatingPoint | None = None
    shares: tuple[float, ...] = ()
    prior: Prior | None = None


def about(predictor: Predictor, specs: list[VectorSpec]) -> About:
    """Return what has to be known of a predictor.

    Args:
        predictor: With its data set.
        specs: The vectors that its networks began with.
    """
    return About(
        name=predictor.name,
        description=predictor.description,
        class_ids=tuple(predictor.class_ids),
        class_names=tuple(predictor.class_names),
        geometry=predictor.on_pictures().geometry,
        facts=facts_of(predictor, specs),
        point=predictor.point,
        shares=tuple(training_shares(predictor.dataset).tolist()),
        prior=predictor.prior,
    )


def facts_of(predictor: Predictor, specs: list[VectorSpec]) -> ModelFacts:
    """Return what is known of a predictor.

    Args:
        predictor: With its data set.
        specs: The vectors that its networks began with.
    """
    from onepass.extract.backbones.registry import find_backbone

    dataset = predictor.dataset
    weights = {}
    for spec in specs:
        backbone = find_backbone(spec.backbone)
        known = spec.weights == backbone.weights
        weights[spec.backbone, spec.weights] = WeightsFact(
            spec.backbone, spec.weights, backbone.licence if known else ""
        )
    return ModelFacts(
        dataset=dataset.name,
        dataset_digest=predictor.learnt_from or dataset.digest,
        title=dataset.record.title,
        training_rows=len(dataset.rows("train")),
        validation=None if predictor.members else _score(predictor),
        weights=tuple(weights.values()),
        data_licence=dataset.record.licence,
        citation=tuple(dataset.record.citation),
        notes=(*dataset.record.notes, *filter(None, [predictor.note])),
        temperature=predictor.temperature,
        made_by=MadeBy.now(),
    )


def _score(predictor: Predictor) -> Score | None:
    """Return the score of a probe or a run, which were scored when they were made."""
    rows = predictor.dataset.rows("val")
    if not len(rows):
        return None
    # whose mix is that of training
    truth, probabilities = predictor.dataset.labels[rows], predictor.compute("val")
    best = probabilities.argmax(axis=1)
    return Score(
        len(rows),
        accuracy(truth, best),
        confidence_interval(best == truth),
        log_loss(truth, log_probabilities(probabilities)),
    )


def model_card(made: About) -> str:
    """Return `MODEL_CARD.md`: what is known, in sentences and lists; what is not known is said to be so."""
    facts, geometry = made.facts, made.geometry
    colours = "RGB" if geometry.channels == 3 else "grey"
    classes = ", ".join(_plain(name) for name in made.class_names)
    weights = "\n".join(
        f"- {one.backbone}: `{one.identity}`, licence {one.licence or 'not known'}"
        for one in facts.weights
    )
    cited = "\n".join(f"- {_plain(one)}" for one in facts.citation) or "- none stated"
    notes = "".join(f"- {_plain(one)}\n" for one in facts.notes)
    return f"""# {_plain(made.name)}

{_plain(made.description)}. Written by Onepass on {facts.made_by.created}.

## What it does

It gives each of {len(made.class_ids)} classes a probability: {classes}.

A picture is turned as its EXIF orientation says, laid over white where it is transparent, made {colours} of 8
bits, and brought to {geometry.side} x {geometry.side} px (fit: {geometry.fit}; bicubic). The probabilities are
scaled by a temperature of {facts.temperature:.3g}, which is inside.{_prior_text(made)}

## How good it is

{_score_text(facts.validation)}
{_point_text(made)}
It knows no class but these, and gives each picture one of them. What is unlike the training pictures has a
`novelty` near 1 where the model folder is used; other formats do not say so.

## What it learnt from

- data set: {_plain(facts.title or facts.dataset)} (`{facts.dataset}`, digest `{facts.dataset_digest[:16]}`)
- training images: {facts.training_rows:,}
- licence of the images: {_plain(facts.data_licence) or "none stated"}
{notes}
To be cited:

{cited}

Weights that the networks began with:

{weights}
"""


def _score_text(score: Score | None) -> str:
    if score is None:
        return "It was not scored on the validation split."
    low, high = score.interval
    return (
        f"Validation split ({score.rows:,} images): top-1 {score.top1:.1%} (95 % interval {low:.1%} to "
        f"{high:.1%}), log-loss {score.log_loss:.3f}."
    )


def _prior_text(made: About) -> str:
    """Return the sentence of the mix in use; "" where it is that of the training images."""
    return f" {_plain(prior_text(made.prior, made.class_names))}" if made.prior else ""


def _point_text(made: About) -> str:
    """Return the paragraph of the operating point; "" where there is none."""
    if made.point is None:
        return ""
    name = _plain(made.point.name)
    return f"""
## Operating point

{_plain(operating_point_text(made.point))}

The model folder answers by it: {name} from that probability on, below it the most probable of the other
classes. The other formats give probabilities, and leave the answer to their user.
"""


def _plain(text: str) -> str:
    """Return a text of others on one line, without what Markdown or HTML would take for a command."""
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#!" else c for c in flat)
