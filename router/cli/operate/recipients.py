"""The number of recipients that a replay would reach under the current configuration; floor 7."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from router.errors import AddressError, Reason, TemplateError
from router.ops.loading.reading.placeholders import WORD
from router.wording import counted

if TYPE_CHECKING:
    from router.events import DeadLetter, Event
    from router.ops.loading import Loaded

MOST = 1_000_000
"""The number of recipients at which the count stops."""


class Recipients:
    """A counter of different recipients.

    Each address of each sink counts once. A sink without addresses, such as a log, counts as one recipient.
    """

    def __init__(self, loaded: Loaded, now: float) -> None:
        self._routing = loaded.routing()
        self._loaded = loaded
        self._now = now
        self._found: set[tuple[str, str]] = set()
        self._nowhere = 0
        self._suppressed: Counter[Reason] = Counter()
        self._looked_up: Counter[tuple[str, str]] = Counter()
        """The number of deliveries that depend on lookups, by sink and lookups. Their recipients are unknown, because
        counting fetches no records."""
        self._unknown: set[str] = set()
        """Sinks whose addresses depend on values that are not known here."""

    def add(self, letter: DeadLetter) -> None:
        """Count the recipients of this letter."""
        from router.core.accounts.dead_letter_filter import event_of

        event = event_of(letter)
        if letter.sink:
            ways = [(letter.sink, letter.route or "")]
        else:
            event, ways = self._targets(letter, event)
        reached = [self._reach(event, sink, route) for sink, route in ways]
        if not any(reached):
            self._nowhere += 1

    def _targets(self, letter: DeadLetter, event: Event) -> tuple[Event, list[tuple[str, str]]]:
        """Return the replayed event and its targets. There are no targets if the event would be rejected again."""
        from router.core.decoding import SourceFormat
        from router.core.verdict import Rejected, judge, opened

        source = self._loaded.config.sources.get(letter.source)
        if source is None:
            return event, []
        plan = self._routing.plan(letter.source, letter.channel.encode("utf-8", "surrogateescape"))
        verdict = judge(event, SourceFormat.of(letter.source, source), plan, self._now)
        if isinstance(verdict, Rejected):
            return event, []
        return opened(event, verdict.message), [(target.sink, target.route) for target in verdict.deliveries]

    def _reach(self, event: Event, sink: str, route: str) -> bool:
        """Count the recipients of one delivery; return False if it would reach nobody."""
        import msgspec

        from router.core.delivery.preparation import overriding_route

        delivery = msgspec.structs.replace(event, sink=sink, route=route)
        templates, overrides = self._loaded.templates, (sink, overriding_route(delivery))
        template = templates.get(overrides) or templates.get((sink, None))
        if template is None:
            return False
        only_if = self._loaded.only_if.get(overrides) or self._loaded.only_if.get((sink, None))
        asked = template.names | (frozenset() if only_if is None else only_if.names)
        lookups = sorted(asked & self._loaded.lookups.keys())
        if lookups:
            self._looked_up[sink, ", ".join(lookups)] += 1
            return True
        try:
            if only_if is not None and not only_if.holds(delivery, self._now):
                self._suppressed[Reason.ONLY_IF] += 1
                return False
            rendered = template.render(delivery, self._now)
        except (TemplateError, AddressError):
            return False
        if rendered.suppressed:
            self._suppressed[rendered.suppressed] += 1
            return False
        addresses = rendered.addresses or ("",)
        if self._loaded.unknown and any(WORD in address for address in addresses):
            self._unknown.add(sink)
        if len(self._found) < MOST:
            self._found.update((sink, address) for address in addresses)
        return True

    def summary(self) -> str:
        """Return a summary in words: the number of recipients, and of letters that would reach nobody."""
        number = len(self._found)
        text = f"to {number} or more recipients" if number >= MOST else f"to {counted(number, 'recipient')}"
        if self._unknown:
            text += f" (not certain: addresses of {', '.join(sorted(self._unknown))} depend on values that are not set here)"
        for (sink, lookups), times in sorted(self._looked_up.items()):
            depends = counted(times, "delivery depends", "deliveries depend")
            text += f"; {sink}: {depends} on {lookups}, whose records this command does not fetch"
        if self._nowhere:
            text += f"; {counted(self._nowhere, 'letter')} would reach nobody"
        if self._suppressed:
            text += f"; suppressed: {', '.join(f'{reason} ({n})' for reason, n in sorted(self._suppressed.items()))}"
        return text
