"""The URL of a Redis server, judged and shown without a server."""

import pytest

from router.config import redis_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache", "redis://cache:6379"),
        (f"redis://:{SECRET}@cache:6380/3", "redis://cache:6380/3"),
        (f"rediss://user:{SECRET}@cache/?ssl_password={SECRET}", "rediss://cache:6379"),
        (f"redis://[::1]:7000/0?password={SECRET}", "redis://[::1]:7000/0"),
        (f"unix:///run/redis.sock?db=2&password={SECRET}", "unix:///run/redis.sock"),
        (f"redis://:{SECRET}/x@cache", "…"),
        (f"redis://:{SECRET}#x@cache", "redis://…"),
        (f"http://{SECRET}", "…"),
    ],
)
def test_an_address_is_shown_without_credentials(url, shown):
    assert redis_url.shown(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://cache:6380/3?socket_timeout=2.5",
        f"redis://user:{SECRET}@[::1]:7000/0",
        f"redis://:{SECRET}@x@cache",
        f"redis://cache?password={SECRET}&username=user",
        "rediss://cache?ssl_ca_certs=ca.pem&ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=2",
        f"unix://:{SECRET}@/run/redis.sock",
    ],
)
def test_a_sound_url_has_no_fault(url):
    assert redis_url.fault(url) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"http://{SECRET}", "begin with redis://, rediss:// or unix://"),
        (f"{SECRET}:6379", "begin with redis://, rediss:// or unix://"),
        (f"redis://:{SECRET}#x@cache", "a `#` in the user name or the password as %23"),
        (f"redis://:a{SECRET}@cache#", "`#` is written %23"),
        (f"redis://:{SECRET}/x@cache", "a `/` in the user name or the password as %2F"),
        (f"redis://:12/{SECRET}@cache", "a `/` in the user name or the password as %2F"),
        (f"redis://:{SECRET}?x@cache", "a `?` in the user name or the password as %3F"),
        (f"redis://:{SECRET}[x@cache", "a `[` in the user name or the password as %5B"),
        (f"redis://us]er:{SECRET}@cache:6379/0", "a `]` in the user name or the password as %5D"),
        (f"redis://:{SECRET}\u2100x@cache", "percent-encode all characters"),
        (f"redis://:{SECRET}@cache:port", "a number from 1 to 65535"),
        (f"redis://:{SECRET}@cache:0", "a number from 1 to 65535"),
        (f"redis://:{SECRET}@cache:65536", "a number from 1 to 65535"),
        (f"redis://:{SECRET}@[::1", "write an IPv6 address in brackets"),
        (f"redis://:{SECRET}@", "the host is missing"),
        (f"redis://:{SECRET}@cache/first", "the number of the database must follow the `/`"),
        (f"redis://:{SECRET}@cache?db=-1", "`db` must be the number of the database"),
        (f"redis://:{SECRET}@cache?db=", "`db` must be the number of the database"),
        (f"redis://:{SECRET}@cache?socket_timeout=5s", "a number of seconds"),
        (f"redis://:{SECRET}@cache?sokcet_timeout=3", "unknown option 'sokcet_timeout'"),
        (f"redis://:{SECRET}@cache?ssl_ca_certs=x", "unknown option 'ssl_ca_certs'"),
        (f"redis://:{SECRET}@cache?db=1&db=2", "twice"),
        ("unix://", "the path of the socket is missing"),
    ],
)
def test_a_fault_is_named_without_the_password(url, said):
    told = redis_url.fault(url) or ""
    assert said in told
    assert SECRET not in told
