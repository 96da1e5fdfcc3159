"""One lookup and sets of them: shared fetches, the cache's time, stores that are away, hang or break their contract."""

from __future__ import annotations

import asyncio

import pytest

from router.config.lookups import LookupConfig, RedisHashConfig
from router.core.lookups.definitions import LookupDefinition
from router.core.lookups.finding import NoRecordError
from router.core.lookups.lookup_key import LookupKey
from router.core.rendering import TemplateEnvironment
from router.core.rendering.sandbox.lookup_records import Record
from router.engine.lookups import lookup as module
from router.engine.lookups import store_call
from router.engine.lookups.lookup import Lookup
from router.engine.lookups.lookup_set import LookupSet
from router.errors import PermanentError, TemplateError, TransientError
from tests.support.engine import make_event
from tests.support.waiting import until


class HandClock:
    """A clock that only the test advances."""

    time = 1000.0

    def now(self):
        return self.time

    monotonic = now


class Store:
    """A store that answers by `answer(key)`, after `gate` is set."""

    def __init__(self, answer=lambda key: {"key": key}):
        self.answer = answer
        self.calls = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = 0

    async def fetch_many(self, keys):
        self.calls.append(list(keys))
        await self.gate.wait()
        return [self.answer(key) for key in keys]

    async def close(self):
        self.closed += 1


def made(store, clock=None, **keys):
    config = RedisHashConfig.model_validate({"type": "redis-hash", "key": "x", **keys})
    return Lookup("user", config, store, store, clock=clock or HandClock())


async def test_one_fetch_for_each_key_whoever_asks():
    store = Store()
    store.gate.clear()
    lookup = made(store)
    asking = [asyncio.create_task(lookup.fetch(keys)) for keys in (["1", "2"], ["2", "3"], ["1"])]
    await until(lambda: len(store.calls) == 2)
    assert store.calls == [["1", "2"], ["3"]]
    asking[0].cancel()  # who leaves takes nothing from the others
    await asyncio.wait([asking[0]])
    store.gate.set()
    second, third = await asyncio.gather(*asking[1:])
    assert second == {"2": {"key": "2"}, "3": {"key": "3"}}
    assert third == {"1": {"key": "1"}}
    assert await lookup.fetch(["1", "2", "3"]) == {key: {"key": key} for key in "123"}
    assert len(store.calls) == 2
    assert (lookup.status.hits, lookup.status.misses, lookup.status.size) == (3, 5, 3)


async def test_records_live_for_their_time_and_errors_not_at_all():
    clock, found = HandClock(), {"1": {"n": 1}, "2": None, "3": PermanentError("the key is not a hash")}
    store = Store(found.get)
    lookup = made(store, clock, ttl="60s")
    assert list((await lookup.fetch(["1", "2"])).values()) == [{"n": 1}, None]
    found.update({"1": {"n": 2}, "2": {"n": 3}})
    clock.time += 59.9
    assert list((await lookup.fetch(["1", "2"])).values()) == [{"n": 1}, None]
    clock.time += 0.1
    assert list((await lookup.fetch(["1", "2"])).values()) == [{"n": 2}, {"n": 3}]
    for _ in range(2):
        [answer] = (await lookup.fetch(["3"])).values()
        assert isinstance(answer, PermanentError)
    assert store.calls == [["1", "2"], ["1", "2"], ["3"], ["3"]]
    assert lookup.status.fault is None


async def test_five_hundred_keys_go_in_one_call():
    store = Store()
    await made(store).fetch([str(number) for number in range(1001)])
    assert sorted(map(len, store.calls)) == [1, 500, 500]


async def test_a_store_that_is_away_is_asked_once_a_second():
    clock = HandClock()

    def away(key):
        raise TransientError("connection refused")

    store = Store(away)
    lookup = made(store, clock)
    for _ in range(3):
        [answer] = (await lookup.fetch(["1"])).values()
        assert (type(answer), str(answer)) == (TransientError, "connection refused")
    assert len(store.calls) == 1
    assert lookup.status.fault.why == "connection refused"
    clock.time += 1
    store.answer = lambda key: {"key": key}
    assert await lookup.fetch(["1"]) == {"1": {"key": "1"}}
    assert lookup.status.fault is None


async def test_a_store_that_asks_for_time_gets_it_whatever_other_answers_say():
    clock = HandClock()
    store = Store(lambda key: TransientError("HTTP 429", retry_after=30) if key == "1" else {"key": key})
    lookup = made(store, clock)
    found = await lookup.fetch(["1", "2"])
    assert (found["1"].retry_after, found["2"]) == (30, {"key": "2"})
    assert lookup.status.fault.why == "HTTP 429"
    clock.time += 20
    [answer] = (await lookup.fetch(["3"])).values()
    assert (str(answer), answer.retry_after) == ("HTTP 429", 10)
    assert await lookup.fetch(["2"]) == {"2": {"key": "2"}}, "the cache needs no store"
    assert len(store.calls) == 1
    clock.time += 10
    assert await lookup.fetch(["3"]) == {"3": {"key": "3"}}
    assert lookup.status.fault is None


async def test_an_answer_to_an_earlier_call_does_not_end_the_time_that_was_asked_for():
    store = Store(lambda key: TransientError("HTTP 503", retry_after=30) if key == "1" else {"key": key})
    store.gate.clear()
    lookup = made(store)
    asking = [asyncio.create_task(lookup.fetch([key])) for key in ("1", "2")]
    await until(lambda: len(store.calls) == 2)
    store.gate.set()
    await asyncio.wait(asking)
    assert asking[1].result() == {"2": {"key": "2"}}
    assert (await lookup.fetch(["3"]))["3"].retry_after == 30


async def test_one_key_that_fails_is_no_store_that_is_away():
    store = Store(lambda key: TransientError("HTTP 503") if key == "1" else {"key": key})
    lookup = made(store)
    found = await lookup.fetch(["1", "2"])
    assert isinstance(found["1"], TransientError)
    assert found["2"] == {"key": "2"}
    assert lookup.status.fault is None
    assert lookup.status.errors == 1


async def test_a_store_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(store_call, "PATIENCE", 0.01)
    store = Store()
    store.gate.clear()
    [answer] = (await made(store).fetch(["1"])).values()
    assert (type(answer), str(answer)) == (TransientError, "no answer within 0.01 s")


@pytest.mark.parametrize(
    ("result", "kind", "said"),
    [
        ([], PermanentError, "fetch_many returned 0 results for 1 key: return one result for each key"),
        ("x", PermanentError, "fetch_many returned a value of type str: return a list with one result for each key"),
        (
            None,
            PermanentError,
            "fetch_many returned a value of type NoneType: return a list with one result for each key",
        ),
        ([5], PermanentError, "the record must be a mapping, but it is a value of type int"),
        ([ZeroDivisionError("oops")], TransientError, "oops"),
    ],
)
async def test_a_store_that_breaks_its_contract_fails_its_keys(result, kind, said):
    class Broken(Store):
        async def fetch_many(self, keys):
            return result

    [answer] = (await made(Broken()).fetch(["1"])).values()
    assert type(answer) is kind
    assert said in str(answer)


async def test_a_closed_lookup_fails_what_waits_and_what_comes():
    store = Store()
    store.gate.clear()
    lookup = made(store)
    asking = asyncio.create_task(lookup.fetch(["1"]))
    await until(lambda: store.calls)
    await lookup.close()
    answers = [*(await asking).values(), *(await lookup.fetch(["2"])).values()]
    assert [type(answer) for answer in answers] == [TransientError, TransientError]
    assert store.closed == 2  # the store, and the context


ENVIRONMENT = TemplateEnvironment(lookups={"user", "company"}).with_lookups


def a_set(stores, keys, **policies):
    definitions, lookups = {}, {}
    for name, key in keys.items():
        config = RedisHashConfig.model_validate(
            {"type": "redis-hash", "key": key, "missing": policies.get(name, "dead-letter")}
        )
        compiled = LookupKey(key, ENVIRONMENT, f"lookups.{name}.key")
        needs = compiled.names & ENVIRONMENT.lookups
        definitions[name] = LookupDefinition(name, LookupConfig(keys=config), compiled, needs)
        lookups[name] = Lookup(name, config, stores[name], stores[name], clock=HandClock())
    return LookupSet(definitions, lookups)


KEYS = {"company": "c:{{ user.company }}", "user": "u:{{ payload.id }}"}


async def test_a_batch_is_fetched_lookup_by_lookup_in_the_order_of_their_keys():
    users = {"u:1": {"company": 7}, "u:2": {"company": 7}, "u:3": {"company": 8}, "u:4": None}
    stores = {"user": Store(users.get), "company": Store(lambda key: {"name": key})}
    events = [make_event(b'{"id": %d}' % number) for number in (1, 2, 3, 4)] + [
        make_event(b"{}"),
        make_event(b'{"id": 1}'),
    ]
    wanted = [frozenset({"company"})] * 5 + [frozenset({"user"})]
    found = await a_set(stores, KEYS).find(events, wanted, 0.0)
    assert stores["user"].calls == [["u:1", "u:2", "u:3", "u:4"]]
    assert stores["company"].calls == [["c:7", "c:8"]]
    assert [one["company"]["name"] for one in found[:3]] == ["c:7", "c:7", "c:8"]
    assert isinstance(found[3], NoRecordError)
    assert (str(found[3]), found[3].told) == (
        "lookup user: there is no record with the key 'u:4'",
        "lookup user: there is no such record",
    )
    assert isinstance(found[4], TemplateError)
    assert found[5] == {"user": {"company": 7}}


async def test_a_lookup_whose_key_needs_a_record_that_is_not_there_has_none_either():
    stores = {"user": Store(lambda _key: None), "company": Store()}
    lookups = a_set(stores, KEYS, user="empty", company="suppress")
    [found] = await lookups.find([make_event(b'{"id": 1}')], [frozenset({"company"})], 0.0)
    assert isinstance(found, NoRecordError)
    assert found.suppresses
    assert str(found) == "lookup company: the key needs the record of another lookup, which found no record"
    assert not stores["company"].calls


async def test_an_empty_key_has_no_record():
    stores = {"user": Store()}
    lookups = a_set(stores, {"user": "{{ payload.id }}"}, user="empty")
    [found] = await lookups.find([make_event(b'{"id": null}')], [frozenset({"user"})], 0.0)
    assert found["user"].absent
    assert not stores["user"].calls


def test_a_record_is_read_only_where_it_came_from():
    inner = {"a": [{"b": 1}]}
    record = Record(inner)
    assert isinstance(record["a"][0], Record)
    assert record == inner


async def test_a_key_that_always_fails_holds_up_no_other():
    store = Store(lambda key: TransientError("HTTP 500") if key == "5" else {"key": key})
    lookup = made(store)
    for number in range(10, 30):
        assert isinstance((await lookup.fetch(["5"]))["5"], TransientError)
        assert await lookup.fetch([str(number)]) == {str(number): {"key": str(number)}}
        assert lookup.status.fault is None


async def test_a_store_that_answers_nobody_is_away_after_a_few_keys_and_back_with_the_first_answer():
    clock, store = HandClock(), Store(lambda _: TransientError("HTTP 500"))
    lookup = made(store, clock)
    for key in ("1", "2", "3"):
        assert lookup.status.fault is None
        await lookup.fetch([key])
    assert lookup.status.fault.why == "HTTP 500"
    await lookup.fetch(["4"])
    assert store.calls == [["1"], ["2"], ["3"]], "it is not asked for a second"
    clock.time += module.PAUSE
    store.answer = lambda key: {"key": key}
    assert await lookup.fetch(["4"]) == {"4": {"key": "4"}}
    assert lookup.status.fault is None


@pytest.mark.parametrize("missing", ["dead-letter", "suppress", "empty"])
async def test_deliveries_that_all_want_one_lookup_find_what_each_finds_beside_others(missing):
    records = {"u:1": {"name": "Ada"}, "u:2": None, "u:3": PermanentError("no"), "u:4": {"name": "Eve"}}
    payloads = [b"1", b"2", b"3", b'""', b"null", b"[]", b'"%b"' % (b"x" * 5_000), b"1", b"4"]
    events = [make_event(b'{"id": %b}' % payload) for payload in payloads] + [make_event(b"{}")]
    alone, beside = (
        a_set(
            {"user": Store(records.get), "other": Store()}, {"user": "u:{{ payload.id }}", "other": "o"}, user=missing
        )
        for _ in range(2)
    )
    user, both = frozenset({"user"}), frozenset({"user", "other"})
    found = await alone.find(events, [user] * len(events), 0.0)
    expected = await beside.find([*events, events[0]], [*[user] * len(events), both], 0.0)
    assert [_shown(one) for one in found] == [_shown(one) for one in expected[:-1]]
    assert alone.lookups["user"].status == beside.lookups["user"].status


def _shown(found):
    return (type(found), str(found), getattr(found, "told", None), getattr(found, "suppresses", None))
