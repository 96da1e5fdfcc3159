"""Checks of the section `tests`: the names must exist, and the payloads must be readable; floor 4."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from router.config.cases import START, Case, CaseConfig, CaseEvent, CaseStep, Expected, StepConfig, moment_of
from router.core.matching import glob
from router.core.wiring.reach import channels_of
from router.errors import SUPPRESSED
from router.files import UnreadableError, read_file
from router.ops.loading.draft import Draft
from router.ops.loading.reading import typed
from router.ops.loading.reading.nodes import (
    Entry,
    Mapping,
    Node,
    Scalar,
    find,
    items,
    plain,
    quoted,
    word,
    words,
)
from router.ops.loading.reading.problems import did_you_mean, unknown

REJECTIONS = ("too_large", "decode", "field", "schema")
"""The reasons why an event is rejected."""

DEAD_AT_ONCE = ("address", "expired", "lookup", "template")
"""The reasons why a delivery becomes a dead letter before any attempt."""

_BY_SINK = ("to", "text", "contains", "thread", "update", "suppressed", "dead")
_OF_DELIVERIES = ("sinks", *_BY_SINK)
_TRUTHS = ("true", "false")


def check_cases(draft: Draft) -> list[Case]:
    """Return the valid tests of a configuration; report the faults of invalid tests."""
    node = typed.sequence(draft.root.get("tests"), draft.problems)
    checker = _CaseChecker(draft)
    found = [checker.case(item) for item in (node.items if node is not None else ())]
    return [case for case in found if case is not None]


class _CaseChecker:
    """Checks tests against the configured sources, routes, sinks and lookups."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._problems = draft.problems
        self._sinks = list(draft.entries("sinks"))
        self._routes = [name for route in items(draft.root.get("routes")) if (name := word(find(route, "id")))]
        self._reads = {
            name: [(each, glob(each)) for each in channels_of(source)] for name, source in draft.sources.items()
        }
        self._first: dict[str, Node] = {}

    def case(self, item: Node) -> Case | None:
        """Return one test. Report its faults, and return None if there are any."""
        keys = typed.mapping(item, self._problems)
        if keys is None:
            return None
        checked = typed.check(CaseConfig, keys, self._problems, at=Entry(item.mark, item))
        name = keys.get("name")
        self._once(name)
        records = keys.get("lookups")
        self._lookups(records)
        steps: list[Node] = items(keys.get("steps")) if "steps" in keys.entries else [keys]
        for step in steps:
            self._expected(find(step, "expect"))
        if checked is None:
            return None
        found = self._steps(_entries(checked), steps, timed=checked.steps is not None)
        if len(found) < len(steps):
            return None
        given = {} if records is None else plain(records)
        return Case(checked.name, item.mark.file.name, item.mark.line, tuple(found), given)

    def _once(self, node: Node | None) -> None:
        name = word(node)
        if node is None or not name:
            return
        earlier = self._first.setdefault(name, node)
        if earlier is not node:
            where = f"{earlier.mark.file.name}:{earlier.mark.line}"
            self._problems.add(
                f"a test {quoted(name)} is already defined in {where}; give this test another name", node
            )

    def _lookups(self, node: Node | None) -> None:
        known = list(self._draft.entries("lookups"))
        for name, entry in (node.entries if isinstance(node, Mapping) else {}).items():
            if name not in known:
                self._problems.add(unknown("lookup", name, known), entry.mark, path=entry.node.path)

    def _steps(self, entries: list[StepConfig], nodes: list[Node], *, timed: bool) -> list[CaseStep]:
        """Return the valid steps of a test, with the times of its clock."""
        first = entries[0].at if timed else entries[0].event.at
        start = START if first is None or first.startswith("+") else moment_of(first, START)
        now = start
        found = []
        for entry, node in zip(entries, nodes, strict=True):
            event = find(node, "event")
            at = entry.at if timed else entry.event.at
            before, now = now, moment_of(at, start) if at is not None else now
            if now < before:
                self._problems.add(
                    "this time is before the time of the previous step; write the same time or a later one",
                    find(node, "at"),
                )
                continue
            came = now if entry.event.at is None else moment_of(entry.event.at, start)
            if came > now:
                message = "the event can't be received after the time of its step; give the step a later `at`"
                self._problems.add(message, find(event, "at"))
                continue
            step = self._step(entry.event, entry.expect, event, (came, now))
            if step is not None:
                found.append(step)
        return found

    def _step(
        self, event: CaseEvent, expect: Expected, node: Node | None, times: tuple[float, float]
    ) -> CaseStep | None:
        source, raw = self._source(event, node), self._raw(node)
        if source is None or raw is None:
            return None
        channel = event.channel.encode("utf-8", "surrogateescape")
        return CaseStep(channel, raw, source, event.headers, *times, expect)

    def _source(self, event: CaseEvent, node: Node | None) -> str | None:
        """Return the source that reads the channel of an event.

        If no source reads the channel, report this and return None.
        """
        channel = event.channel.encode("utf-8", "surrogateescape")
        known = list(self._draft.entries("sources"))
        readers = [name for name, globs in self._reads.items() if any(matches(channel) for _, matches in globs)]
        if event.source is not None and event.source not in known:
            self._problems.add(unknown("source", event.source, known), find(node, "source"))
        elif event.source is not None and event.source in self._reads and event.source not in readers:
            listed = ", ".join(each for each, _ in self._reads[event.source])
            message = f"the source {event.source} does not read the channel {quoted(event.channel)}; it reads {listed}"
            self._problems.add(message, find(node, "channel"))
        elif event.source is not None:
            return event.source
        elif not readers and len(self._reads) == len(known):
            names = [each for globs in self._reads.values() for each, _ in globs]
            meant = did_you_mean(event.channel, names)
            self._problems.add(f"no source reads the channel {quoted(event.channel)}{meant}", find(node, "channel"))
        return readers[0] if readers and event.source is None else None

    def _raw(self, node: Node | None) -> bytes | None:
        """Return the bytes of a test's payload, from the test or its file.

        If the bytes can't be read, report this and return None.
        """
        file, payload = find(node, "file"), find(node, "payload")
        if isinstance(file, Scalar):
            path = file.mark.file.folder / str(file.value)
            self._draft.files.add(path.absolute())
            try:
                return read_file(path)
            except UnreadableError as error:
                self._problems.add(f"can't read {quoted(str(file.value))}: {error}", file)
                return None
        if payload is None:
            return None
        values = plain(payload)
        try:
            if isinstance(values, str):
                return values.encode()
            return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            self._problems.add(
                "contains half of a surrogate pair, which is not valid text; write the bytes into a file, and its path as `file`",
                payload,
            )
        except ValueError:
            self._problems.add(
                "JSON has no infinite numbers and no .nan; to publish such a payload, write it as a string", payload
            )
        except RecursionError:
            self._problems.add("is nested too deeply; remove levels of nesting", payload)
        return None

    def _expected(self, node: Node | None) -> None:
        """Report unknown names and reasons in an expectation."""
        for key in ("sinks", "not_sinks"):
            self._known("sink", words(find(node, key)), self._sinks)
        self._known("route", words(find(node, "routes")), self._routes)
        wanted = {name for _, name in words(find(node, "sinks"))}
        for item, name in words(find(node, "not_sinks")):
            if name in wanted:
                self._problems.add(f"{quoted(name)} is also in `sinks`; remove it from one of the two lists", item)
        for key in _BY_SINK:
            below = find(node, key)
            for name, entry in (below.entries if isinstance(below, Mapping) else {}).items():
                if self._sinks and name not in self._sinks:
                    self._problems.add(unknown("sink", name, self._sinks), entry.mark, path=entry.node.path)
        self._together(node)
        self._reasons(find(node, "suppressed"), sorted(SUPPRESSED))
        self._reasons(find(node, "dead"), [*DEAD_AT_ONCE])
        rejected = find(node, "rejected")
        reason = word(rejected)
        if rejected is not None and reason is not None and reason not in REJECTIONS:
            self._problems.add(unknown("reason", reason, [*REJECTIONS, *_TRUTHS]), rejected)

    def _together(self, node: Node | None) -> None:
        """Report expectations that contradict the expectation `rejected` or `unmatched`."""
        entries = node.entries if isinstance(node, Mapping) else {}
        said = {key: plain(entry.node) for key, entry in entries.items() if plain(entry.node)}
        if "rejected" in said:
            end, others = "rejected", ("unmatched", "routes", *_OF_DELIVERIES)
            why = "a rejected event reaches no route and no sink"
        elif said.get("unmatched") is True:
            delivers = isinstance(self._draft.unmatched, list)
            end, others = "unmatched", ("routes", *(() if delivers else _OF_DELIVERIES))
            why = f"no route takes an unmatched event{'' if delivers else ', and no sink gets it'}"
        else:
            return
        wrong = [f"`{key}`" for key in others if key in said]
        if wrong:
            self._problems.add(f"{why}; remove either `{end}` or {', '.join(wrong)}", entries[end].node)

    def _reasons(self, node: Node | None, allowed: list[str]) -> None:
        values = (entry.node for entry in node.entries.values()) if isinstance(node, Mapping) else ()
        self._known("reason", ((each, reason) for each in values if (reason := word(each)) is not None), allowed)

    def _known(
        self, kind: str, named: Iterable[tuple[Node, str]] | Iterator[tuple[Node, str]], known: list[str]
    ) -> None:
        for item, name in named:
            if known and name not in known:
                self._problems.add(unknown(kind, name, known), item)


def _entries(case: CaseConfig) -> list[StepConfig]:
    """Return the steps of a test. A test without `steps` is a single step."""
    if case.steps is not None:
        return case.steps
    assert case.event is not None
    assert case.expect is not None
    return [StepConfig(event=case.event, expect=case.expect)]
