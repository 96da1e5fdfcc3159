"""The lookups of one configuration: the records that deliveries need, found in the order of their keys; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from router.core.lookups.definitions import LookupDefinition
from router.core.lookups.dependencies import in_order
from router.core.lookups.finding import Answer, Finding, NoRecordError
from router.core.rendering.templates import Records
from router.engine.lookups.lookup import Lookup
from router.errors import TemplateError, TransientError
from router.events import Event

Found = Records | NoRecordError | TemplateError | TransientError
"""The records of one delivery, or the error because of which they are missing."""


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
        """Return the lookups of this set that the other set does not contain, so that they can be closed."""
        kept = set(map(id, other.lookups.values()))
        return [lookup for lookup in self.lookups.values() if id(lookup) not in kept]

    def check(self) -> None:
        """Notice changed files. Call it twice a second."""
        for lookup in self.lookups.values():
            lookup.check()

    async def close(self) -> None:
        """Close all lookups."""
        await asyncio.gather(*(lookup.close() for lookup in self.lookups.values()))

    async def find(self, events: Sequence[Event], wanted: Sequence[frozenset[str]], now: float) -> list[Found]:
        """Return the records of the lookups that each delivery wants; `now` is seconds since the epoch.

        The keys of a batch are fetched together. If the key of a lookup uses the record of another lookup, the other
        lookup is fetched first.
        """
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
"""The lookups of a configuration that has none."""
