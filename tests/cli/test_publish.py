"""`event-router publish`: what is refused, what is sent, and to whom it went."""

import pytest

from tests.support.process import run
from tests.support.waiting import PATIENCE

GOOD = '{"user_id": 42, "message": "Your order is on its way!"}'


@pytest.fixture
def env(server):
    return {"REDIS_URL": server.url}


@pytest.fixture
def listener(server):
    """A subscriber to everything; `next()` gives (channel, bytes) of the next message."""
    with server.client() as client, client.pubsub() as pubsub:
        pubsub.psubscribe("*")
        assert pubsub.get_message(timeout=PATIENCE)["type"] == "psubscribe"

        def take():
            message = pubsub.get_message(timeout=PATIENCE)
            return (message["channel"], message["data"]) if message else None

        yield take


def test_a_good_payload_is_published_as_it_is(folder, env, listener):
    done = run("publish", "notification", GOOD, cwd=folder, env=env)
    assert done.code == 0, done.err
    assert "1 subscriber received it" in done.out
    assert done.err == ""
    assert listener() == (b"notification", GOOD.encode())


def test_nobody_there_is_a_warning(folder, env):
    done = run("publish", "notification", GOOD, cwd=folder, env=env)
    assert done.code == 0
    assert "0 subscribers" in done.out
    assert "warning: no subscriber received this event" in done.err


def test_every_violation_is_named_and_nothing_published(folder, env, listener):
    done = run("publish", "notification", '{"user_id": "42"}', cwd=folder, env=env)
    assert done.code == 1
    assert "/user_id type:" in done.err
    assert "/message required:" in done.err
    assert "--no-check" in done.err
    assert done.out == ""
    done = run("publish", "notification", GOOD, cwd=folder, env=env)
    assert listener() == (b"notification", GOOD.encode())


@pytest.mark.parametrize(
    ("channel", "payload", "said"),
    [
        ("notification", "{not json", "decode: not JSON"),
        ("notification", "", "decode: not JSON: the payload is empty"),
        ("command", "x" * 101, "too_large: the payload has 101 bytes"),
    ],
)
def test_what_the_router_would_not_take_is_refused(folder, env, channel, payload, said):
    done = run("publish", channel, payload, cwd=folder, env=env)
    assert done.code == 1
    assert said in done.err


def test_no_check_publishes_anything(folder, env, listener):
    done = run("publish", "notification", "{not json", "--no-check", cwd=folder, env=env)
    assert done.code == 0
    assert listener() == (b"notification", b"{not json")


def test_a_schema_that_warns_warns(folder, env, listener):
    done = run("publish", "orders.7", '{"user_id": "42"}', cwd=folder, env=env)
    assert done.code == 0
    assert "/user_id type:" in done.err
    assert listener() == (b"orders.7", b'{"user_id": "42"}')


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_payload_of_stdin_loses_its_last_newline(folder, env, listener, ending):
    done = run("publish", "command", "-", cwd=folder, env=env, stdin="whoami" + ending)
    assert done.code == 0, done.err
    assert listener() == (b"command", b"whoami")


def test_a_channel_that_no_source_reads_is_a_warning(folder, env, listener):
    done = run("publish", "elsewhere", "{}", cwd=folder, env=env)
    assert done.code == 0
    assert "/config.yaml reads the channel 'elsewhere'" in done.err
    assert listener() == (b"elsewhere", b"{}")


def test_it_goes_to_the_server_of_the_source(folder, server, listener):
    text = (folder / "config.yaml").read_text()
    text = text.replace("channels: [command]", f"channels: [command], url: '{server.url}'")
    (folder / "config.yaml").write_text(text)
    done = run("publish", "command", "whoami", cwd=folder, env={"REDIS_URL": "redis://127.0.0.1:1"})
    assert done.code == 0, done.err
    assert listener() == (b"command", b"whoami")


def test_no_redis_is_69(folder):
    done = run("publish", "notification", GOOD, cwd=folder, env={"REDIS_URL": "redis://:s3cret@127.0.0.1:1"})
    assert done.code == 69
    assert "redis://127.0.0.1:1" in done.err
    assert "s3cret" not in done.err


def test_no_embedded_server_is_69_and_says_what_to_do(folder):
    done = run("publish", "notification", GOOD, cwd=folder, env={"REDIS_URL": "embedded"})
    assert done.code == 69
    assert "event-router run" in done.err


def test_a_wrong_password_is_78(folder, tmp_path_factory):
    from tests.support.redis import RedisServer

    guarded = RedisServer("valkey", tmp_path_factory.mktemp("guarded"), options={"requirepass": "right"}).start()
    try:
        url = f"redis://:wrong-password@127.0.0.1:{guarded.port}"
        done = run("publish", "notification", GOOD, cwd=folder, env={"REDIS_URL": url})
    finally:
        guarded.kill()
    assert done.code == 78
    assert "password" in done.err
    assert "wrong-password" not in done.err


@pytest.mark.parametrize(
    ("source", "said", "found"),
    [
        (
            "{type: stream, streams: [work], payload_field: data}",
            "added to the stream work",
            ["XRANGE", "work", "-", "+"],
        ),
        ("{type: list, keys: [work]}", "pushed to the list work", ["LRANGE", "work", "0", "-1"]),
    ],
)
def test_an_event_goes_where_its_source_reads(tmp_path, server, source, said, found):
    (tmp_path / "config.yaml").write_text(
        f"version: 1\nredis: {{url: '{server.url}'}}\nsources: {{s: {source}}}\n"
        "sinks: {audit: {type: log, path: x}}\nroutes: [{id: r, sinks: [audit]}]\n"
    )
    done = run("publish", "work", '{"n": 1}', cwd=tmp_path)
    assert (done.code, said in done.out) == (0, True), done.err
    [one] = server.do(*found)
    assert one == b'{"n": 1}' or one[1] == {b"data": b'{"n": 1}'}


def test_what_each_source_promises_is_printed(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "version: 1\n"
        "sources: {a: {type: pubsub, channels: [a]}, b: {type: stream, streams: [b]}, c: {type: list, keys: [c]}}\n"
        "sinks: {audit: {type: log, path: x}}\nroutes: [{id: r, sinks: [audit]}]\n"
    )
    done = run("check", cwd=tmp_path)
    assert done.code == 0, done.err
    for line in ("a: pubsub, a", "at most once", "b: stream, b", "c: list, c", "at least once"):
        assert line in done.out
