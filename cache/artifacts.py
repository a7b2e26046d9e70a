"""JSON files with a type: each is a frozen dataclass with a format number, written and read here only.

A room that leaves a JSON file declares an `Artifact`; whoever reads the file imports that class. To
change an artifact's fields, raise its `FORMAT`, and teach `upgrade` the format before unless `SAME_SINCE` will do.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

from onepass.cache.errors import CorruptFileError, MissingFileError
from onepass.cache.files import read_json, write_json
from onepass.cache.provenance import digest_json

T = TypeVar("T")
DIGEST = "file_digest"  # of all else in the file; not "digest", which is a field of some


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass that may stand in a JSON file; readers refuse unknown fields and NaN."""
    made = dataclass(frozen=True, slots=True)(cls)
    made.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[attr-defined]
    return made


def optional() -> Any:
    """Return the default of a field that a file has only where it says something: None."""
    return dataclasses.field(default=None, metadata={"optional": True})


class Artifact:
    """Base of the dataclasses that are JSON files of their own; subclasses are made by `@record`.

    Attributes:
        FORMAT: Number of the file's format, written into it as "format".
        SAME_SINCE: The first format whose files are read as they are, since what they lack has a default; None:
            only those of `FORMAT` are.
    """

    __slots__ = ()
    FORMAT: ClassVar[int] = 1
    SAME_SINCE: ClassVar[int | None] = None

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Return a file of a format before `SAME_SINCE` as one of this format; 0 is a file without a number.

        Raises:
            CorruptFileError: That format cannot be read any more; the message says how to mend it.
        """
        raise CorruptFileError(f"expected format {cls.FORMAT}, received format {found}")

    def write(self, path: Path) -> None:
        """Write the file, atomically."""
        write_json(path, self.sealed())

    def sealed(self) -> dict[str, Any]:
        """Return the file's JSON object: the fields, the format, and a digest of both."""
        value = {"format": self.FORMAT, **to_json(self)}
        return {**value, DIGEST: digest_json(value)}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            MissingFileError: There is none.
            CorruptFileError: It is not this artifact, or not what was written: the message names the
                file and the fields that are unknown, missing or of another type.
        """
        value = read_json(path)
        try:
            return cls.unsealed(value)
        except CorruptFileError as error:
            raise CorruptFileError(f"{path}: {error}") from error

    @classmethod
    def unsealed(cls, value: Any) -> Self:
        """Return the artifact that a file's JSON value holds; files from before the digest have none.

        Raises:
            CorruptFileError: As for `read`, without the file's name.
        """
        if not isinstance(value, dict):
            raise CorruptFileError("expected a JSON object")
        if DIGEST in value:
            digest = value.pop(DIGEST)
            try:
                check_digest(value, digest)
            except CorruptFileError as error:
                raise CorruptFileError(
                    f"{error}. Put back a copy of it, or delete it and run again what made it"
                ) from error
        # format 0 may use the word for itself; bool is an int to Python, but no number
        numbered = isinstance(value.get("format"), int | float)
        found = value.pop("format") if numbered else 0
        if type(found) is not int or found < 0:
            raise CorruptFileError(f"format: expected a number from 1, received {found!r}")
        if found > cls.FORMAT:
            raise CorruptFileError(
                f"expected format {cls.FORMAT} or earlier, received format {found} of a later Onepass"
            )
        same = cls.FORMAT if cls.SAME_SINCE is None else cls.SAME_SINCE
        return from_json(cls, value if found >= same else cls._upgraded(value, found))

    @classmethod
    def _upgraded(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Return what `upgrade` makes of a file, whose fields may be missing or of another type."""
        try:
            return cls.upgrade(value, found)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise CorruptFileError(
                f"expected the fields of {cls.__name__} in format {found}; received another "
                f"({type(error).__name__}: {error})"
            ) from error

    @classmethod
    def read_optional(cls, path: Path) -> Self | None:
        """Read the file, or return None where there is none; a file that is wrong is an error."""
        try:
            return cls.read(path)
        except MissingFileError:
            return None


def check_digest(value: Any, digest: Any) -> None:
    """Compare a JSON value with the digest that was written beside it.

    Raises:
        CorruptFileError: It is another value.
    """
    try:
        now = digest_json(value)
    except (ValueError, RecursionError):  # a lone surrogate, brackets without end
        now = "none"
    if digest != now:
        raise CorruptFileError(
            "its bytes are not those that were written: expected the digest "
            f"{str(digest)[:8]}, received {now[:8]}; it was damaged, or edited by hand"
        )


def from_json(kind: type[T], value: Any) -> T:
    """Return a JSON value as an instance of a class made by `record`.

    Raises:
        CorruptFileError: Fields are unknown, missing or of another type; each is named.
    """
    from pydantic import ValidationError  # 0.2 s that `--help` need not pay

    try:
        return _adapter(kind).validate_json(json.dumps(value), strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = []
        for problem in error.errors(include_url=False):
            field = ".".join(map(str, problem["loc"])) or "the value"
            words = {"missing": "missing", "unexpected_keyword_argument": "unknown"}
            wrong.append(f"{field}: {words.get(problem['type'], problem['msg'])}")
        raise CorruptFileError(
            f"expected the fields of {kind.__name__}; received {'; '.join(wrong)}"
        ) from error
    except (OverflowError, RecursionError) as error:  # huge numbers, brackets without end
        raise CorruptFileError(
            f"expected the fields of {kind.__name__}; received more than they hold ({error})"
        ) from error


@cache
def _adapter(kind: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def to_json(value: Any) -> Any:
    """Return a result as plain JSON values: dataclasses become objects, arrays lists, paths text.

    JSON has no NaN and no infinity: both become null.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            field.name: to_json(item)
            for field, item in fields.items()
            if item is not None or not field.metadata.get("optional")
        }
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return to_json(value.tolist()) if hasattr(value, "tolist") else value
