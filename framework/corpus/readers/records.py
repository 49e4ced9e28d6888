"""Records with named fields, whatever file they are from: JSON lines, Parquet, Arrow."""

from dataclasses import dataclass
from typing import Any

from framework.corpus.documents import Document
from framework.errors import UserError


@dataclass(frozen=True)
class Fields:
    """What the fields are called that hold text and score."""

    text: str = "text"
    score: str = "score"

    @property
    def wanted(self) -> list[str]:
        """Every field that is looked at."""
        return [self.text, "id", "title", "url", self.score]


def read_record(record: Any, fields: Fields, default_id: str, place: str) -> Document:
    """The document of a record.

    Args:
        record: an object with the text, and optionally `id`, `title`, `url` and the score (a number); other
            fields are ignored.
        fields: names of the fields.
        default_id: for a record without one.
        place: file and record, for messages.

    Raises:
        UserError: it is no such object.
    """
    return Document(
        id=str(_field(record, "id", (str, int), place) or default_id),
        text=_text(record, fields.text, place),
        title=_field(record, "title", (str,), place) or "",
        url=_field(record, "url", (str,), place) or "",
        score=_field(record, fields.score, (int, float), place),
    )


def _text(record: Any, name: str, place: str) -> str:
    if not isinstance(record, dict) or name not in record:
        raise UserError(f"{place}: has no field `{name}`; every record needs it, or set the corpus's text_field")
    if not isinstance(record[name], str):
        raise UserError(f"{place}: field `{name}` is no string; every record needs one")
    return record[name]


def _field(record: Any, name: str, types: tuple[type, ...], place: str) -> Any:
    """The optional field `name`; null counts as absent."""
    value = record.get(name) if isinstance(record, dict) else None
    if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
        wanted = " or ".join(kind.__name__ for kind in types)
        raise UserError(f"{place}: field `{name}` is {value!r}, not {wanted}; mend or remove the field")
    return value
