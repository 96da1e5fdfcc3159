"""`check` notes the routes that send an event to one sink twice, unless no event is taken by both."""

import pytest

from router.ops.loading import load
from router.testing import RecordingRouter

HEAD = """
version: 1
sources:
  web: {type: pubsub, channels: ["orders.*", users]}
  shop: {type: pubsub, channels: [shop]}
sinks:
  audit: {type: log, path: audit.jsonl}
  other: {type: log, path: other.jsonl}
routes:
"""


def notes(tmp_path, routes):
    path = tmp_path / "config.yaml"
    path.write_text(HEAD.lstrip() + "".join(f"  - {{{route}}}\n" for route in routes))
    loaded = load(path, environ={})
    return [(p.line, p.message) for p in loaded.problems if "twice" in p.message and p.severity == "note"]


OVERRIDES = "sinks: [{sink: audit, template: x}]"


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("sinks: [audit]", f"{OVERRIDES}", "b overrides `template`"),
        (OVERRIDES, OVERRIDES, "a overrides `template` and b overrides `template`"),
        ("sinks: [audit]", "sinks: [{sink: audit, only_if: payload.vip}]", "b overrides `only_if`"),
        ("sinks: [audit]", "sinks: [audit], expires: 5m", "the two routes have a different `expires`"),
        ('channels: ["orders.*"], sinks: [audit]', f"channels: [orders.new], {OVERRIDES}", "b overrides `template`"),
        ("match: {n: 1}, sinks: [audit]", f"match: {{m: 2}}, {OVERRIDES}", "b overrides `template`"),
        ("match: {n: [1, 2]}, sinks: [audit]", f"match: {{n: 2}}, {OVERRIDES}", "b overrides `template`"),
        ("match: {n.*: 1}, sinks: [audit]", f"match: {{n.*: 2}}, {OVERRIDES}", "b overrides `template`"),
    ],
)
def test_a_pair_that_makes_two_is_noted_with_the_key_that_differs(tmp_path, first, second, why):
    (line, message), *rest = notes(tmp_path, [f"id: a, {first}", f"id: b, {second}"])
    assert not rest
    assert (line, message) == (10, f"an event that the routes a and b both take goes to audit twice: {why}")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sinks: [audit]", "sinks: [audit]"),
        ("sinks: [other]", OVERRIDES),
        ("sinks: [audit], final: true", OVERRIDES),
        ("sinks: [audit], enabled: false", OVERRIDES),
        ("sinks: [audit], expires: 5m", "sinks: [audit], expires: 300s"),
        ("sources: [web], sinks: [audit]", f"sources: [shop], {OVERRIDES}"),
        ("channels: [users], sinks: [audit]", f'channels: ["orders.*"], {OVERRIDES}'),
        ("match: {n: 1}, sinks: [audit]", f"match: {{n: [2, 3]}}, {OVERRIDES}"),
        ("match: {n: 1}, sinks: [audit]", f"match: {{n: true}}, {OVERRIDES}"),
    ],
)
def test_one_that_makes_one_is_not(tmp_path, first, second):
    assert notes(tmp_path, [f"id: a, {first}", f"id: b, {second}"]) == []


async def test_a_fallback_that_the_route_names_too_gets_two_deliveries_with_one_key():
    config = {
        "version": 1,
        "sources": {"web": {"type": "pubsub", "channels": ["orders"]}},
        "sinks": {
            "mail": {"type": "log", "path": "mail.jsonl", "template": "{{ payload.missing.x }}", "fallback": ["audit"]},
            "audit": {"type": "log", "path": "audit.jsonl"},
        },
        "routes": [{"id": "all", "sinks": ["mail", "audit"]}],
    }
    async with RecordingRouter(config) as router:
        router.publish("orders", {"n": 1})
        await router.settled()
        keys = [attempt.event.key for attempt in router.attempts("audit")]
    assert len(keys) == 2
    assert len(set(keys)) == 1
