"""One published event is one event of a source: which subscription's copy counts. Checked against real servers too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.broker.pubsub.subscriptions import PSUBSCRIBE, REMEMBERED, SUBSCRIBE, Remembered, Subscriptions
from router.core.matching import glob, is_glob
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("names", "globs", "channel", "winner"),
    [
        (["a"], ["*", "a*"], b"a", None),
        (["a"], ["*", "a*"], b"ab", b"*"),
        (["a"], ["a*", "*"], b"ab", b"a*"),
        (["a"], ["a*", "*"], b"b", b"*"),
        ([], ["x?", "[xy]*", "x*"], b"xyz", b"[xy]*"),
        ([], ["x?", "[xy]*", "x*"], b"x1", b"x?"),
        ([], [r"a\*", "a*"], b"a*", rb"a\*"),
        ([], [r"a\*", "a*"], b"ab", b"a*"),
        ([], ["?", "??"], "é".encode(), b"??"),
        ([], ["[^a]*", "*"], b"a", b"*"),
        ([], ["*"], b"\xff\x00\n", b"*"),
    ],
)
def test_an_exact_name_wins_else_the_first_glob_in_config_order(names, globs, channel, winner):
    assert Subscriptions(names, globs).winner(channel) == winner


def test_what_wins_is_subscribed_first_and_once():
    wanted = Subscriptions(["b", "a", "b"], ["z*", "a*", "z*"]).wanted
    assert wanted == ((SUBSCRIBE, b"b"), (SUBSCRIBE, b"a"), (PSUBSCRIBE, b"z*"), (PSUBSCRIBE, b"a*"))


def test_the_memory_of_winners_is_bounded():
    remembered = Remembered(lambda _channel: b"*")
    for number in range(REMEMBERED + 50):
        assert remembered[b"%d" % number] == b"*"
        assert len(remembered) <= REMEMBERED
    assert b"%d" % (REMEMBERED + 49) in remembered


PARTS = st.sampled_from(["a", "b", ".", "*", "?", "[ab]", "\\*", "\\a"])


@given(
    st.lists(st.text("ab.", min_size=1, max_size=3), max_size=2),
    st.lists(st.lists(PARTS, max_size=4).map("".join).filter(is_glob), max_size=4),
    st.lists(st.text("ab.*", max_size=4), min_size=1, max_size=5),
)
def test_a_glob_that_is_not_asked_about_a_channel_would_have_won(names, globs, channels):
    subscriptions = Subscriptions(names, globs)
    for channel in channels:
        for pattern in globs:
            if pattern.encode() in subscriptions.unrivalled and glob(pattern)(channel.encode()):
                assert subscriptions.winner(channel.encode()) == pattern.encode()


def test_globs_that_begin_differently_are_not_asked():
    assert Subscriptions(["c"], ["a.*", "b*", "a.b*", "c*"]).unrivalled == {b"a.*", b"b*"}


def test_a_very_long_channel_name_is_not_remembered_and_has_its_winner_each_time():
    asked = []
    remembered = Remembered(lambda channel: asked.append(channel) or b"*")
    for _ in range(2):
        assert remembered[b"x" * 1_000_000] == b"*"
        assert remembered[b"short"] == b"*"
    assert list(remembered) == [b"short"]
    assert len(asked) == 3


NAMES = ["notification", "orders.new"]
GLOBS = ["orders.*", "noti?ication", "*", r"lite\*al", "[no]*", "[^a]*"]


async def test_every_event_comes_once_whatever_matches(redis_server, source, recorder):
    web = source(redis_server.url, NAMES, GLOBS)
    await web.start()
    channels = [b"notification", b"orders.new", b"orders.old", b"lite*al", b"other", b"\xff\xfe\r\n", "é".encode()]
    channels = [channel for channel in channels for _ in range(3)] + channels
    copies = 0
    with redis_server.client() as redis:
        for number, channel in enumerate(channels):
            copies += redis.publish(channel, number)
    await until(lambda: len(recorder.payloads) + web.duplicates >= copies)
    chosen = Subscriptions(NAMES, GLOBS)
    assert recorder.events == [(c, chosen.winner(c), b"%d" % number) for number, c in enumerate(channels)]
    assert web.duplicates == copies - len(channels) > 0


async def test_events_of_one_channel_travel_together(redis_server, source, recorder):
    web = source(redis_server.url, ["a"], ["a*", "b*"])
    await web.start()
    with redis_server.client() as redis, redis.pipeline(transaction=True) as pipe:
        for channel in ["a"] * 3 + ["b1"] * 2 + ["a"]:
            pipe.publish(channel, channel)
        pipe.execute()
    await until(lambda: len(recorder.payloads) == 6)
    assert [(b.channel, b.pattern, len(b.payloads)) for b in recorder.batches] == [
        (b"a", None, 3),
        (b"b1", b"b*", 2),
        (b"a", None, 1),
    ]
    assert recorder.calls == 1
    assert web.duplicates == 4
