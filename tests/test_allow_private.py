"""The host key `allow_private`: the cure that a refusal prints, carried out."""

import json

import pytest
import yaml

from tests.support.daemon import daemon
from tests.support.http import stand_in
from tests.support.process import run

POSTER = """
from router.api import Sink, SinkOptions, check_response, hookimpl

class Options(SinkOptions):
    url: str

class Poster(Sink):
    def __init__(self, options):
        self.options = options

    async def open(self, context):
        self.context = context

    async def deliver(self, event, options):
        answer = await self.context.http.request("POST", options.url, json=event.payload)
        check_response(answer, now=self.context.clock.now())

@hookimpl
def register_sinks(register):
    register("poster", Poster, options=Options, queue="memory")
"""
CURE = {"allow_private": True}  # set `allow_private: true` on the sink


def setup(sink):
    return {
        "version": 1,
        "sources": {"web-app": {"type": "pubsub", "channels": ["notification"]}},
        "sinks": {"s": sink},
        "routes": [{"id": "notify", "sinks": ["s"]}],
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "poster.py").write_text(POSTER)
    return tmp_path


async def test_a_plugin_that_speaks_http_reaches_a_private_address_by_the_printed_cure(redis_server, folder):
    async with stand_in() as server:
        sink = {"type": "poster", "url": server.url}
        async with daemon(redis_server, folder, setup(sink)) as router:
            router.publish("notification", {"a": 1})
            await router.until(router.letters)
            assert await router.stop() == 0
        (letter,) = router.letters()
        assert letter["detail"] == "127.0.0.1 is a private address; set `allow_private: true` on the sink"
        assert server.requests == []
        async with daemon(redis_server, folder, setup(sink | CURE)) as router:
            router.publish("notification", {"a": 2})
            await router.until(lambda: server.requests)
            assert await router.stop() == 0
    assert [request.json for request in server.requests] == [{"a": 2}]


CHAT = {"type": "chat", "service": "slack", "url": "http://127.0.0.1:8065/hooks/${HOOK:-x}", "text": "x"}
BOT = {
    "type": "chat",
    "service": "mattermost",
    "token": "${TOKEN:-x}",
    "to": "1",
    "api": "http://10.0.0.5",
    "text": "x",
}


@pytest.mark.parametrize("sink", [CHAT, BOT])
def test_the_cure_that_check_prints_for_a_chat(folder, sink):
    (folder / "config.yaml").write_text(json.dumps(setup(sink)))
    done = run("check", "config.yaml", cwd=folder)
    assert done.code == 78
    assert "a private address; set `allow_private: true` on the sink" in done.err + done.out
    (folder / "config.yaml").write_text(json.dumps(setup(sink | CURE)))
    assert run("check", "config.yaml", cwd=folder).code == 0
    (folder / "config.yaml").write_text(json.dumps(setup(sink) | {"defaults": {"all": CURE}}))
    assert run("check", "config.yaml", cwd=folder).code == 0


def test_defaults_may_hold_a_private_url_that_the_sink_allows(folder):
    whole = setup({"type": "chat", **CURE}) | {"defaults": {"chat": {k: v for k, v in CHAT.items() if k != "type"}}}
    (folder / "config.yaml").write_text(json.dumps(whole))
    assert run("check", "config.yaml", cwd=folder).code == 0


def test_a_route_may_override_the_text_of_such_a_sink(folder):
    whole = setup(CHAT | CURE)
    whole["routes"][0]["sinks"] = [{"sink": "s", "text": "{{ payload.a }}"}]
    (folder / "config.yaml").write_text(json.dumps(whole))
    assert run("check", "config.yaml", cwd=folder).code == 0


def test_the_effective_configuration_and_the_schema_know_the_key(folder):
    (folder / "config.yaml").write_text(json.dumps(setup({"type": "poster", "url": "http://127.0.0.1", **CURE})))
    assert yaml.safe_load(run("config", cwd=folder).out)["sinks"]["s"]["allow_private"] is True
    assert '"allow_private"' in run("config", "schema", cwd=folder).out
