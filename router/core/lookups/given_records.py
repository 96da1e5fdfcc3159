"""The records of lookups, taken from results that are already known; pure.

The commands that simulate deliveries use this module in place of the engine, which fetches and caches records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from router.core.lookups.definitions import LookupDefinition
from router.core.lookups.dependencies import in_order
from router.core.lookups.finding import Answer, Finding
from router.core.rendering.sandbox.lookup_records import NO_RECORDS, Record, Records
from router.events import Event


class NotGiven:
    """The type of `NOT_GIVEN`."""


NOT_GIVEN: Final = NotGiven()
"""The result for a key if it is not known yet whether the key has a record."""

Given = Callable[[str, str], Answer | NotGiven]
"""A function that returns the result of a lookup, by the lookup's name and a rendered key."""

_MARK = "qzlookupfieldz"  # only letters, because no sink escapes letters
_MAILBOX = "@lookup.invalid"
_MARKS = re.compile(rf"{_MARK}(\d{{1,6}})z(?:{re.escape(_MAILBOX)})?", re.IGNORECASE)


class RecordNotGivenError(Exception):
    """The error for a record that is not known yet."""


class GivenRecords:
    """The finder of records for deliveries, with the lookups of a configuration.

    Every result comes from `given`. `asked` are the keys for which `given` returned `NOT_GIVEN`, by lookup.
    """

    def __init__(self, definitions: Mapping[str, LookupDefinition], given: Given) -> None:
        self._definitions = definitions
        self._needs = {name: definition.needs for name, definition in definitions.items()}
        self._given = given
        self.asked: dict[str, set[str]] = {}

    def find(self, event: Event, names: frozenset[str], now: float) -> Records:
        """Return the records of these lookups, and of the lookups that their keys use.

        Raises `NoRecordError`, `TemplateError` or `TransientError` if a lookup fails, and `RecordNotGivenError` if a
        record is not known yet.
        """
        wanted = names & self._definitions.keys()
        if not wanted:
            return NO_RECORDS
        finding = Finding(event, in_order(self._needs, wanted))
        for name in (name for group in finding.groups for name in group):
            definition = self._definitions[name]
            key = finding.key(definition, now)
            if key is not None:
                answer = self._given(name, key)
                if isinstance(answer, NotGiven):
                    self.asked.setdefault(name, set()).add(key)
                    raise RecordNotGivenError
                finding.take(definition, key, answer)
            if finding.failure is not None:
                raise finding.failure
        return finding.records


def from_mapping(records: Mapping[str, Mapping[str, Mapping[str, Any] | None]]) -> Given:
    """Return a function that finds records in this mapping, by lookup and key. A missing key has no record."""

    def given(name: str, key: str) -> Answer:
        found = records.get(name, {}).get(key)
        return None if found is None else Record(found)

    return given


class NamedRecords:
    """A finder that fetches no values.

    It shows the name of each field, such as `{{ user.email }}`, in place of a value. While templates are rendered, the
    value of each field is a placeholder. Afterwards, `named` replaces the placeholders with the names of the fields. If
    `mailboxes` is true, each placeholder is a valid mail address.
    """

    def __init__(self, definitions: Mapping[str, LookupDefinition], *, mailboxes: bool = False) -> None:
        self._names = definitions.keys()
        self._mailboxes = mailboxes
        self._fields: list[str] = []

    def find(self, event: Event, names: frozenset[str], now: float) -> Records:  # noqa: ARG002  # as `GivenRecords`
        """Return a record for each of these lookups."""
        return {name: _Named(name, self._mark) for name in names & self._names}

    def _mark(self, field: str) -> str:
        self._fields.append(field)
        return f"{_MARK}{len(self._fields) - 1}z{_MAILBOX if self._mailboxes else ''}"

    def named(self, value: Any) -> Any:
        """Return a copy of a value in which the name of its field replaces each placeholder."""
        if isinstance(value, str):
            return _MARKS.sub(self._name, value)
        if isinstance(value, Mapping):
            return {key: self.named(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.named(each) for each in value]
        return value

    def _name(self, mark: re.Match[str]) -> str:
        place = int(mark[1])
        # A string of the event may look like a placeholder.
        return f"{{{{ {self._fields[place]} }}}}" if place < len(self._fields) else mark[0]


class _Named(Record):
    """A record that has every field. The value of a field is a placeholder."""

    __slots__ = ("_lookup", "_mark")

    def __init__(self, lookup: str, mark: Callable[[str], str]) -> None:
        super().__init__()
        self._lookup = lookup
        self._mark = mark

    def __missing__(self, field: object) -> str:
        return self._mark(f"{self._lookup}.{field}")
