"""The records that lookups give to templates, and the values of fields that a record lacks; floor 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router.core.rendering.sandbox.values import Missing


class Record(dict[str, Any]):
    """The record of one lookup as templates see it; the mappings inside it are records too.

    `absent` means that the store has no such record, and that the lookup has `missing: empty`: then every field of it
    is blank in every template.
    """

    __slots__ = ("absent",)

    def __init__(self, fields: Mapping[Any, Any] = {}, *, absent: bool = False) -> None:  # only read
        super().__init__((str(name), _inner(value)) for name, value in fields.items())
        self.absent = absent

    @classmethod
    def of_texts(cls, fields: Sequence[str]) -> Record:
        """Return the record with these names and values, in turn: name, value, name, value."""
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
"""The empty record in place of a record that does not exist, for `missing: empty`."""


class Blank(Missing):
    """The value of a field that a record lacks, if this is not an error: an empty string and list, false, and replaced by `default`."""

    __slots__ = ()

    def __str__(self) -> str:  # type: ignore[override]  # its base raises
        return ""

    def __bool__(self) -> bool:  # type: ignore[override]  # its base raises
        return False

    def __len__(self) -> int:  # type: ignore[override]  # as above
        return 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # as above
        return iter(())

    def __eq__(self, other: object) -> bool:  # type: ignore[override]  # as above
        return isinstance(other, Blank)

    def __ne__(self, other: object) -> bool:  # type: ignore[override]  # as above
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # because the class defines `__eq__`

    def child(self, name: Any) -> Missing:
        """Return the attribute or item of a missing field, which is missing too."""
        return Blank(obj=self._undefined_obj, name=self._undefined_name, names=(*self.names, name))
