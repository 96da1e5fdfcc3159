"""The options of the redis sink."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from router.options import RedisTarget
from tests.support.sinks import sink_type, validate


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "needs one of `publish`, `xadd`, `lpush` and `rpush`"),
        ({"publish": "a", "xadd": "b"}, "not `publish` and `xadd`"),
        ({"publish": ""}, "must not be empty"),
        ({"lpush": "{% if payload.x %}a{% endif %}"}, "begins with a template"),
        ({"rpush": "{{ payload.x }}"}, 'begin with a literal text, such as "inbox:{{ payload.user_id }}"'),
        ({"publish": "a", "maxlen": 5}, "`maxlen` can be used only with `xadd`"),
        ({"xadd": "a", "maxlen": 0}, "greater than or equal to 1"),
        ({"xadd": "a", "url": "localhost"}, "begin with redis://"),
    ],
)
def test_what_is_refused(values, said):
    with pytest.raises(ValidationError) as raised:
        validate("redis", values)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("values", "target"),
    [
        ({"publish": "a"}, RedisTarget("channel", "a", "publish")),
        ({"xadd": "a:{{ payload }}"}, RedisTarget("key", "a:{{ payload }}", "xadd")),
        ({"lpush": "a", "url": "redis://b"}, RedisTarget("key", "a", "lpush", "redis://b")),
    ],
)
def test_what_it_writes_to(values, target):
    assert list(validate("redis", values).redis_targets) == [target]


def test_its_defaults_keep_the_order_of_a_source():
    kind = sink_type("redis")
    assert (kind.queue, kind.concurrency, kind.local) == ("redis", 1, False)
