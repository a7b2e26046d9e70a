"""What is known of a data set besides its rows; stored with them and with the vectors made from them."""

from dataclasses import field

from onepass.cache.artifacts import record

# Changes of an image that leave its class what it is, named as the augmentation that makes them.
SYMMETRIES = ("flip", "vertical_flip", "quarter_turns")


@record
class PublishedResult:
    """A result that others published.

    Attributes:
        method: What they did.
        accuracy: On a test or validation split (%).
        source: Where it is published.
        stage: Which of our results it is comparable to: "frozen", "fine-tuned", "ensemble", or "".
    """

    method: str
    accuracy: float
    source: str
    stage: str = ""


@record
class SkippedImage:
    """An image that could not be used and was left out, and why."""

    name: str
    why: str


@record
class HeldOutImage:
    """An image that is held out of the data set, and lies in its folder of held-out pictures.

    Attributes:
        file: Its name there, which says nothing of its class.
        name: Its name in the source.
        class_id: Its class.
        source: Digest of its encoded file (hex), by which it is known again.
    """

    file: str
    name: str
    class_id: str
    source: str


@record
class Origin:
    """Where images of a data set came from.

    Attributes:
        place: Folder, file, address or package, whatever the working directory of whoever reads it.
        digest: What tells the same files elsewhere; "" where nothing does.
    """

    place: str
    digest: str = ""


@record
class DatasetRecord:
    """What is known of a data set besides its rows.

    Attributes:
        title: Its name for people.
        licence: Of the images; "" where none is stated.
        citation: Publications to be cited.
        published: Results of others.
        notes: What a reader of a result has to know.
        kind: Name of its source, one of `onepass.data.sources.SOURCES`.
        source: Files, folders or package that it was read from, for people.
        origins: The same, each for itself.
        seed: Of its validation split; None where the source has one of its own.
        group_column: Which column says what belongs together; "" for none.
        group_pattern: Which part of a file name does, as a regular expression; "" for none.
        shared: How many images of a split lie in another as well, such as {"val in train": 12}.
        geometry: Side (px), channels, fit and native size (px) of its pixel rows.
        geometry_note: What may surprise in the size of the rows; "" for nothing.
        skipped: Images that cannot be used and were left out.
        left_out: How many files of the source are no rows, by kind, these images among them.
        held_out: Images that are no rows, so that no model sees them before it is asked what they are.
        symmetries: Which of `SYMMETRIES` leave every image's class what it is; None where nobody said.
    """

    title: str = ""
    licence: str = ""
    citation: list[str] = field(default_factory=list)
    published: list[PublishedResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kind: str = ""
    source: str = ""
    origins: list[Origin] = field(default_factory=list)
    seed: int | None = None
    group_column: str = ""
    group_pattern: str = ""
    shared: dict[str, int] = field(default_factory=dict)
    geometry: dict[str, int | str] = field(default_factory=dict)
    geometry_note: str = ""
    skipped: list[SkippedImage] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    symmetries: list[str] | None = None
    held_out: list[HeldOutImage] = field(default_factory=list)
