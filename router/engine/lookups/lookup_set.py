"""The lookups of one configuration. They find the records that deliveries need; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from router.core.lookups.definitions import LookupDefinition
from router.core.lookups.dependencies import in_order
from router.core.lookups.finding import Answer, Finding, NoRecordError
from router.core.rendering.sandbox.lookup_records import Record, Records
from router.errors import TemplateError, TransientError
from router.events import Event

if TYPE_CHECKING:
    from router.engine.lookups.lookup import Lookup

Found = Records | NoRecordError | TemplateError | TransientError
"""The records of one delivery, or the error that explains why they are missing."""


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
        """Return the lookups of this set that are not in the set `other`. The caller can close them."""
        kept = set(map(id, other.lookups.values()))
        return [lookup for lookup in self.lookups.values() if id(lookup) not in kept]

    def check(self) -> None:
        """Check whether files of lookups have changed. Call this method twice a second."""
        for lookup in self.lookups.values():
            lookup.check()

    async def close(self) -> None:
        """Close all lookups."""
        await asyncio.gather(*(lookup.close() for lookup in self.lookups.values()))

    async def find(self, events: Sequence[Event], wanted: Sequence[frozenset[str]], now: float) -> list[Found]:
        """Return the records for each delivery.

        `wanted` are the names of the lookups that each delivery needs. `now` is in seconds since the epoch. The keys of
        a batch are fetched together. If the key of a lookup uses the record of another lookup, that record is fetched
        first.
        """
        sole = self._sole(wanted)
        if sole is not None:
            return await self._find_one(sole, events, now)
        finding = [Finding(event, self._in_order(names)) for event, names in zip(events, wanted, strict=True)]
        for step in range(max((len(one.groups) for one in finding), default=0)):
            asked: dict[str, dict[str, list[Finding]]] = {}
            for one in finding:
                for name in one.groups[step] if one.failure is None and step < len(one.groups) else ():
                    key = one.key(self.definitions[name], now)
                    if key is None:
                        continue
                    keys = asked.setdefault(name, {})
                    if key in keys:
                        keys[key].append(one)
                    else:
                        keys[key] = [one]
            answers = await self._fetch(asked)
            for name, keys in asked.items():
                definition, answered = self.definitions[name], answers[name]
                for key, waiting in keys.items():
                    for one in waiting:
                        one.take(definition, key, answered[key])
        return [one.records if one.failure is None else one.failure for one in finding]

    def _sole(self, wanted: Sequence[frozenset[str]]) -> LookupDefinition | None:
        """Return the definition of the only lookup that all deliveries need, or None.

        The result is None if deliveries need different lookups or several lookups. It is also None if the key of the
        only lookup uses the record of another lookup.
        """
        names = wanted[0] if wanted else frozenset[str]()
        if len(names) != 1 or wanted.count(names) != len(wanted):
            return None
        (name,) = names
        return None if self._needs[name] else self.definitions[name]

    async def _find_one(self, definition: LookupDefinition, events: Sequence[Event], now: float) -> list[Found]:
        """Return the records of a single lookup.

        The method does the work of `find`, without the steps that only several lookups need.
        """
        name, plain = definition.name, definition.key.plain
        keys = [plain(event) for event in events]
        slow: dict[int, Finding] = {}
        for place in [place for place, key in enumerate(keys) if not key]:
            one = slow[place] = Finding(events[place], ())
            keys[place] = one.key(definition, now)
        asked = {key: None for key in keys if key}
        answers = await self.lookups[name].fetch(asked) if asked else {}
        found: list[Found] = []
        for place, key in enumerate(keys):
            answer = answers[key] if key else None
            if type(answer) is Record:
                found.append({name: answer})
                continue
            one = slow.get(place) or Finding(events[place], ())
            if key:
                one.take(definition, key, answer)
            found.append(one.records if one.failure is None else one.failure)
        return found

    def _in_order(self, names: frozenset[str]) -> tuple[tuple[str, ...], ...]:
        if names not in self._groups:
            self._groups[names] = in_order(self._needs, names)
        return self._groups[names]

    async def _fetch(self, asked: Mapping[str, Collection[str]]) -> dict[str, dict[str, Answer]]:
        if len(asked) == 1:
            return {name: await self.lookups[name].fetch(keys) for name, keys in asked.items()}
        found = await asyncio.gather(*(self.lookups[name].fetch(keys) for name, keys in asked.items()))
        return dict(zip(asked, found, strict=True))


NO_LOOKUPS = LookupSet({}, {})
"""The lookups of a configuration without lookups."""
