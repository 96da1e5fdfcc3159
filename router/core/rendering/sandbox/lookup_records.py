"""The records that lookups give to templates; floor 2. The module does not import Jinja."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Record(dict[str, Any]):
    """The record of one lookup as templates see it.

    The mappings inside a record are records too. `absent` is true if the store has no such record and the lookup is
    configured with `missing: empty`. Then every field of the record is blank in every template.
    """

    __slots__ = ("absent",)

    def __init__(self, fields: Mapping[Any, Any] = {}, *, absent: bool = False) -> None:  # only read
        super().__init__((str(name), _inner(value)) for name, value in fields.items())
        self.absent = absent

    @classmethod
    def of_texts(cls, fields: Sequence[str]) -> Record:
        """Return the record with these fields.

        `fields` alternates between names and values: name, value, name, value.
        """
        record = cls.__new__(cls)
        each = iter(fields)
        record.update(zip(each, each, strict=True))
        record.absent = False
        return record


def _inner(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Record(value)
    if isinstance(value, list | tuple):
        return [_inner(item) for item in value]
    return value


ABSENT = Record(absent=True)
"""The empty record that replaces a missing record if the lookup is configured with `missing: empty`."""

Records = Mapping[str, Record]
"""The records of a delivery's lookups, by the names of the lookups."""

NO_RECORDS: Records = {}
"""The records of a delivery that needs no lookup."""
