"""The comparison of the expectations of a test with the simulated result of its event; floor 4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from router.config.cases import Expected
from router.config.models import RouteConfig
from router.core.conditions.route_checks import Check
from router.errors import Reason
from router.ops.simulation import Ending, SimulatedDelivery, Simulation


class Miss(msgspec.Struct, frozen=True):
    """An expectation that is not met: its key, the expected value, the actual value, and the reasons, one per line."""

    key: str
    wanted: Any
    got: Any
    why: tuple[str, ...] = ()


def misses(expect: Expected, found: Simulation, routes: Sequence[RouteConfig]) -> list[Miss]:
    """Return every expectation that is not met.

    `routes` are the configured routes, which explain why a sink got no delivery.
    """
    return list(_Comparison(expect, found, routes).misses())


class _Comparison:
    """The comparison of the simulated result of one event with the expectations."""

    def __init__(self, expect: Expected, found: Simulation, routes: Sequence[RouteConfig]) -> None:
        self._expect = expect
        self._found = found
        self._routes = routes

    def misses(self) -> Iterator[Miss]:
        """Yield each expectation that is not met.

        If the event is rejected unexpectedly, or not rejected as expected, yield only this difference. All other
        differences follow from it.
        """
        rejected = self._rejected()
        if rejected is not None:
            yield rejected
            return
        expect, found = self._expect, self._found
        is_unmatched = found.ending == Ending.UNMATCHED
        if expect.unmatched is not None and expect.unmatched != is_unmatched:
            yield Miss("unmatched", expect.unmatched, is_unmatched, self._near() if is_unmatched else ())
        taken = [route.id for route in found.routes if route.matched]
        if expect.routes is not None and Counter(expect.routes) != Counter(taken):
            why = [self._why_not(route) for route in expect.routes if route not in taken]
            yield Miss("routes", expect.routes, taken, tuple(why))
        yield from self._sinks()
        for sink, wanted in (expect.to or {}).items():
            yield from self._to(sink, _listed(wanted))
        for sink, wanted in (expect.text or {}).items():
            yield from self._text(sink, wanted)
        for sink, wanted in (expect.contains or {}).items():
            yield from self._contains(sink, _listed(wanted))
        for option, keys in (("thread", expect.thread), ("update", expect.update)):
            for sink, wanted in (keys or {}).items():
                yield from self._keys(option, sink, wanted)
        yield from self._refused("suppressed", expect.suppressed or {})
        yield from self._refused("dead", expect.dead or {})
        yield from self._failures()

    def _rejected(self) -> Miss | None:
        """Return a miss if the event is rejected unexpectedly, or if an expected rejection is missing."""
        wanted, rejection = self._expect.rejected, self._found.rejected
        reason = False if rejection is None else str(rejection.reason)
        holds = bool(reason) == bool(wanted) if not isinstance(wanted, str) else wanted == reason
        if holds:
            return None
        why = () if rejection is None else (rejection.told or rejection.detail,)
        return Miss("rejected", bool(wanted) if wanted is None else wanted, reason, why)

    def _sinks(self) -> Iterator[Miss]:
        expect = self._expect
        delivering = [delivery.sink for delivery in self._found.deliveries if delivery.delivers]
        if expect.sinks is not None and Counter(expect.sinks) != Counter(delivering):
            absent = Counter(expect.sinks) - Counter(delivering)
            surplus = Counter(delivering) - Counter(expect.sinks)
            why = [line for sink in absent for line in self._absent(sink)]
            why += [line for sink in surplus for line in self._present(sink)]
            yield Miss("sinks", expect.sinks, delivering, tuple(why))
        found = [sink for sink in expect.not_sinks or () if sink in delivering]
        if found:
            why = [line for sink in found for line in self._present(sink)]
            yield Miss("not_sinks", expect.not_sinks, found, tuple(why))

    def _of(self, sink: str) -> list[SimulatedDelivery]:
        """Return the deliveries to a sink that are sent or printed."""
        return [delivery for delivery in self._found.deliveries if delivery.sink == sink and delivery.delivers]

    def _to(self, sink: str, wanted: list[str]) -> Iterator[Miss]:
        got = [address for delivery in self._of(sink) for address in delivery.to]
        if Counter(got) != Counter(wanted):
            yield Miss(f"to {sink}", wanted, got, () if self._of(sink) else self._absent(sink))

    def _text(self, sink: str, wanted: str | list[str]) -> Iterator[Miss]:
        got = [delivery.text for delivery in self._of(sink)]
        holds = wanted in got if isinstance(wanted, str) else Counter(got) == Counter(wanted)
        if not holds:
            yield Miss(f"text {sink}", wanted, got[0] if len(got) == 1 else got, self._of_text(sink))

    def _contains(self, sink: str, wanted: list[str]) -> Iterator[Miss]:
        got = [delivery.text for delivery in self._of(sink)]
        if not any(all(part in text for part in wanted) for text in got):
            yield Miss(f"contains {sink}", wanted, got[0] if len(got) == 1 else got, self._of_text(sink))

    def _keys(self, option: str, sink: str, wanted: str | list[str]) -> Iterator[Miss]:
        got = [delivery.keys.get(option, "") for delivery in self._of(sink)]
        holds = wanted in got if isinstance(wanted, str) else Counter(got) == Counter(wanted)
        if not holds:
            why = () if self._of(sink) else self._absent(sink)
            yield Miss(f"{option} {sink}", wanted, got[0] if len(got) == 1 else got, why)

    def _of_text(self, sink: str) -> tuple[str, ...]:
        deliveries = self._of(sink)
        if not deliveries:
            return self._absent(sink)
        return tuple(
            f"the JSON line of the event replaces the text, because the text can't be rendered: {each.degraded}"
            for each in deliveries
            if each.degraded
        )

    def _refused(self, key: str, wanted: dict[str, str]) -> Iterator[Miss]:
        for sink, reason in wanted.items():
            got = [_reason(delivery, key) for delivery in self._found.deliveries if delivery.sink == sink]
            if reason not in got:
                others = [each for each in got if each is not None]
                why = self._present(sink) if self._of(sink) else self._absent(sink)
                yield Miss(f"{key} {sink}", reason, others[0] if others else None, why)

    def _failures(self) -> Iterator[Miss]:
        """Yield the unexpected dead letters and failed texts.

        Each of them fails a test, even if the test does not mention the sink.
        """
        expect = self._expect
        for delivery in self._found.deliveries:
            if delivery.dead is not None and delivery.sink not in (expect.dead or {}):
                yield Miss(f"dead {delivery.sink}", None, str(delivery.dead), (_refusal(delivery),))
            texts = {**(expect.text or {}), **(expect.contains or {})}
            if delivery.degraded is not None and delivery.sink not in texts:
                why = f"route {delivery.route}: {delivery.degraded}"
                yield Miss(f"text {delivery.sink}", "the rendered text", "the JSON line of the event", (why,))

    def _absent(self, sink: str) -> tuple[str, ...]:
        """Return the reasons why a sink does not get the event, with one line for each route to the sink."""
        refused = [each for each in self._found.deliveries if each.sink == sink and not each.delivers]
        if refused:
            return tuple(_refusal(delivery) for delivery in refused)
        leading = [route.id for route in self._routes if any(each.sink == sink for each in route.sinks)]
        return tuple(map(self._why_not, leading)) or (f"no route sends events to the sink {sink}",)

    def _present(self, sink: str) -> tuple[str, ...]:
        """Return the routes from which a sink gets the event, as lines of text."""
        found = [delivery for delivery in self._found.deliveries if delivery.sink == sink and delivery.delivers]
        return tuple(
            f"{sink} gets the event from the {'routes' if each.merged else 'route'} {' and '.join([each.route, *each.merged])}"
            for each in found
        )

    def _why_not(self, route: str) -> str:
        """Return why a route does not take the event."""
        verdict = next((each for each in self._found.routes if each.id == route), None)
        decided = None if verdict is None else verdict.decided_by
        if decided is None:
            return f"route {route} takes the event" if verdict is not None else f"route {route} {self._not_evaluated()}"
        return f"route {route} {_told(decided)}"

    def _not_evaluated(self) -> str:
        """Return why there is no result of a route: the event was rejected, or the route is not configured."""
        rejected = self._found.rejected is not None
        return "was not evaluated, because the event was rejected" if rejected else "is not in the configuration"

    def _near(self) -> tuple[str, ...]:
        nearest = self._found.nearest
        return () if nearest is None else (self._why_not(nearest.id),)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _reason(delivery: SimulatedDelivery, key: str) -> str | None:
    reason: Reason | None = delivery.suppressed if key == "suppressed" else delivery.dead
    return None if reason is None else str(reason)


def _refusal(delivery: SimulatedDelivery) -> str:
    refused = delivery.refused
    assert refused is not None
    kind = "suppressed" if delivery.suppressed is not None else "dead letter"
    return f"route {delivery.route}: {kind} {refused.reason}: {refused.detail}"


def _told(check: Check) -> str:
    place = f", at {check.place}" if check.place else ""
    return f"does not take the event: wanted {check.clause}, got {check.saw}{place}"
