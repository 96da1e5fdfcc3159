"""The search for the records of one delivery, key by key; pure. The caller fetches the records."""

from __future__ import annotations

from router.core.lookups.definitions import LookupDefinition
from router.core.rendering.sandbox.lookup_records import ABSENT, Record
from router.errors import EventError, TemplateError, TransientError, text_of
from router.events import Event

Answer = Record | Exception | None
"""The result of a lookup for one key: the record, None if the record does not exist, or the error of fetching it."""


class NoRecordError(EventError):
    """The error for a delivery without a record: the record does not exist, or can't be fetched because of its key.

    `suppresses` is True if the lookup is configured with `missing: suppress`.
    """

    def __init__(self, detail: str, told: str, *, suppresses: bool = False) -> None:
        super().__init__(detail, told)
        self.suppresses = suppresses


class Finding:
    """The records found so far for one delivery.

    `groups` are the lookups to query, in the order of `in_order`. `failure` is the error that ended the search, or None.
    """

    __slots__ = ("event", "failure", "groups", "records")

    def __init__(self, event: Event, groups: tuple[tuple[str, ...], ...]) -> None:
        self.event = event
        self.groups = groups
        self.records: dict[str, Record] = {}
        self.failure: NoRecordError | TemplateError | TransientError | None = None

    def key(self, definition: LookupDefinition, now: float) -> str | None:
        """Return the key for a lookup.

        If there is no key, return None, and store the empty record in `records` or the error in `failure`.
        """
        if definition.needs and any(self.records[needed].absent for needed in definition.needs):
            self._missing(definition, "the key needs the record of another lookup, which found no record")
            return None
        try:
            key = definition.key.render(self.event, now, self.records)
        except TemplateError as error:
            self.failure = error
            return None
        if not key:
            self._missing(definition, "the key is empty")
            return None
        return key

    def take(self, definition: LookupDefinition, key: str, answer: Answer) -> None:
        """Store the result of a lookup for a key."""
        name = definition.name
        if isinstance(answer, Record):
            self.records[name] = answer
        elif answer is None:
            self._missing(definition, f"there is no record with the key {key!r}", "there is no such record")
        elif isinstance(answer, TransientError):
            retry_after = answer.retry_after
            self.failure = TransientError(f"lookup {name}: {text_of(answer)}", retry_after=retry_after)
        else:
            why = text_of(answer)
            self.failure = NoRecordError(f"lookup {name}: {why} (key {key!r})", f"lookup {name}: {why}")

    def _missing(self, definition: LookupDefinition, why: str, told: str | None = None) -> None:
        policy, name = definition.config.keys.missing, definition.name
        if policy == "empty":
            self.records[name] = ABSENT
            return
        detail, told = f"lookup {name}: {why}", f"lookup {name}: {told or why}"
        self.failure = NoRecordError(detail, told, suppresses=policy == "suppress")
