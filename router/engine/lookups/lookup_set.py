"""The lookups of one configuration: the records that deliveries need, found in the order of their keys; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from router.core.lookups.definitions import LookupDefinition
from router.core.lookups.dependencies import in_order
from router.core.rendering.sandbox.lookup_records import ABSENT, Record
from router.core.rendering.templates import Records
from router.engine.lookups.lookup import Answer, Lookup
from router.errors import EventError, TemplateError, TransientError, text_of
from router.events import Event


class NoRecordError(EventError):
    """A record that is not there, or can't be had for this key.

    `suppresses` is True if the lookup says `missing: suppress`.
    """

    def __init__(self, detail: str, told: str, *, suppresses: bool = False) -> None:
        super().__init__(detail, told)
        self.suppresses = suppresses


Found = Records | NoRecordError | TemplateError | TransientError
"""The records of one delivery, or why it has not got them."""


class LookupSet:
    """The lookups of one configuration: their definitions, and the lookups themselves, by name."""

    def __init__(self, definitions: Mapping[str, LookupDefinition], lookups: Mapping[str, Lookup]) -> None:
        self.definitions = definitions
        self.lookups = lookups
        self._needs = {name: definition.needs for name, definition in definitions.items()}
        self._groups: dict[frozenset[str], tuple[tuple[str, ...], ...]] = {}

    @property
    def names(self) -> frozenset[str]:
        """The names of the lookups."""
        return frozenset(self.lookups)

    def replaced_by(self, other: LookupSet) -> list[Lookup]:
        """Return the lookups of this set that the other one does not go on with."""
        kept = set(map(id, other.lookups.values()))
        return [lookup for lookup in self.lookups.values() if id(lookup) not in kept]

    async def close(self) -> None:
        """Close all lookups."""
        await asyncio.gather(*(lookup.close() for lookup in self.lookups.values()))

    async def find(self, events: Sequence[Event], wanted: Sequence[frozenset[str]], now: float) -> list[Found]:
        """Return the records of the lookups that each delivery wants; `now` is seconds since the epoch.

        The keys of a batch are fetched together. A lookup whose key needs another one comes after that one.
        """
        finding = [_Finding(event, self._in_order(names)) for event, names in zip(events, wanted, strict=True)]
        for step in range(max((len(one.groups) for one in finding), default=0)):
            asked: dict[str, dict[str, list[_Finding]]] = {}
            for one in finding:
                for name in one.groups[step] if one.failure is None and step < len(one.groups) else ():
                    key = self._key(name, one, now)
                    if key is not None:
                        asked.setdefault(name, {}).setdefault(key, []).append(one)
            answers = await self._fetch(asked)
            for name, keys in asked.items():
                for key, waiting in keys.items():
                    for one in waiting:
                        self._take(name, key, answers[name][key], one)
        return [one.records if one.failure is None else one.failure for one in finding]

    def _in_order(self, names: frozenset[str]) -> tuple[tuple[str, ...], ...]:
        if names not in self._groups:
            self._groups[names] = in_order(self._needs, names)
        return self._groups[names]

    def _key(self, name: str, one: _Finding, now: float) -> str | None:
        """Return the key to ask for; None where none can be made, which `one` then says."""
        definition = self.definitions[name]
        if any(one.records[needed].absent for needed in definition.needs):
            self._missing(name, one, "the lookup that its key uses found no record")
            return None
        try:
            key = definition.key.render(one.event, now, one.records)
        except TemplateError as error:
            one.failure = error
            return None
        if not key:
            self._missing(name, one, "its key is empty")
            return None
        return key

    async def _fetch(self, asked: Mapping[str, Collection[str]]) -> dict[str, dict[str, Answer]]:
        if len(asked) == 1:
            return {name: await self.lookups[name].fetch(keys) for name, keys in asked.items()}
        found = await asyncio.gather(*(self.lookups[name].fetch(keys) for name, keys in asked.items()))
        return dict(zip(asked, found, strict=True))

    def _take(self, name: str, key: str, answer: Answer, one: _Finding) -> None:
        if isinstance(answer, Record):
            one.records[name] = answer
        elif answer is None:
            self._missing(name, one, f"there is no record with the key {key!r}", "there is no such record")
        elif isinstance(answer, TransientError):
            retry_after = answer.retry_after
            one.failure = TransientError(f"lookup {name}: {text_of(answer)}", retry_after=retry_after)
        else:
            why = text_of(answer)
            one.failure = NoRecordError(f"lookup {name}: {why} (key {key!r})", f"lookup {name}: {why}")

    def _missing(self, name: str, one: _Finding, why: str, told: str | None = None) -> None:
        policy = self.definitions[name].config.keys.missing
        if policy == "empty":
            one.records[name] = ABSENT
            return
        detail, told = f"lookup {name}: {why}", f"lookup {name}: {told or why}"
        one.failure = NoRecordError(detail, told, suppresses=policy == "suppress")


NO_LOOKUPS = LookupSet({}, {})
"""The lookups of a configuration that has none."""


class _Finding:
    """What was found so far for one delivery."""

    __slots__ = ("event", "failure", "groups", "records")

    def __init__(self, event: Event, groups: tuple[tuple[str, ...], ...]) -> None:
        self.event = event
        self.groups = groups
        self.records: dict[str, Record] = {}
        self.failure: NoRecordError | TemplateError | TransientError | None = None
