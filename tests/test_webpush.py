"""The webpush sink under the real daemon: a browser that is gone is suppressed, counted, and told to the app."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess

import pytest

from tests.support.browsers import Browser, authority, options, serving
from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.process import ROOT, run
from tests.support.sinks import make_event, validate

SOURCES = {"web-app": {"type": "pubsub", "channels": ["notification"]}}
LOOKUPS = {"user": {"type": "redis-hash", "key": "user:{{ payload.user_id }}"}}


async def test_each_browser_of_a_user_is_settled_alone(redis_server, tmp_path):
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    redis = redis_server.client()
    async with stand_in(serving()) as service:
        jane, phone, old = (Browser(service.url, name) for name in ("jane", "phone", "old"))
        service.rule = lambda seen: Reply(410) if seen.path == old.path else Reply(201)
        redis.hset("user:42", "browsers", json.dumps([each.subscription for each in (jane, phone, old)]))
        sink = options(
            type="webpush", subscriptions="{{ user.browsers }}", gone={"publish": "push:gone"}, allow_private=True
        )
        routes = [{"id": "all", "sinks": ["browsers"]}]
        config = {"sources": SOURCES, "lookups": LOOKUPS, "sinks": {"browsers": sink}, "routes": routes}
        with redis.pubsub() as app:
            app.subscribe("push:gone")
            assert app.get_message(timeout=30)["type"] == "subscribe"
            arguments = ("--log-level", "debug")
            ca = str(tmp_path / "ca.pem")
            async with daemon(redis_server, tmp_path, config, arguments=arguments, SSL_CERT_FILE=ca) as router:
                router.publish("notification", {"user_id": 42, "id": 7, "message": "hi"})
                told = json.loads((await asyncio.to_thread(app.get_message, timeout=30))["data"])
                await router.until(lambda: '"reason":"gone"' in router.process.err)
                shown = run("status", "--json", "-c", tmp_path / "config.yaml", cwd=tmp_path)
                assert await router.stop() == 0
        assert sorted(seen.path for seen in service.requests) == [jane.path, old.path, phone.path]
        assert {
            each.read(seen.body)["body"]
            for each in (jane, phone)
            for seen in service.requests
            if seen.path == each.path
        } == {"hi"}
    assert told["endpoint"] == old.endpoint
    assert told["event"]["payload"]["user_id"] == 42
    status = json.loads(shown.out)
    assert status["balanced"]
    book = status["books"]["sinks"]["browsers"]
    assert (book["accepted"], book["handed_over"], book["suppressed"]) == (2, 1, 1)
    assert book["by_reason"]["suppressed"] == {"gone": 1}
    [line] = [each for each in router.process.err.splitlines() if '"reason":"gone"' in each]
    line = json.loads(line)
    assert (line["outcome"], line["attempt"], line["error"]) == ("suppressed", 1, "HTTP 410")
    assert line["address"] == old.endpoint


async def test_the_bad_server_of_one_user_holds_up_nobody(redis_server, tmp_path):
    """Five failures in a row open the breaker of a sink, but not those of one user's browser."""
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    async with stand_in(serving()) as service:
        jane, eve = Browser(service.url, "jane"), Browser(service.url, "eve")
        service.rule = lambda seen: Reply(500) if seen.path == eve.path else Reply(201)
        sink = options(type="webpush", allow_private=True, retry={"initial": "1ms", "max_delay": "10ms", "attempts": 6})
        config = {
            "sources": SOURCES,
            "sinks": {"browsers": {**sink, "breaker": {"failures": 5, "reset": "1h"}}},
            "routes": [{"id": "all", "sinks": ["browsers"]}],
        }
        async with daemon(redis_server, tmp_path, config, SSL_CERT_FILE=str(tmp_path / "ca.pem")) as router:
            router.publish("notification", {"id": 1, "message": "hi", "browsers": [eve.subscription]})
            await router.until(lambda: [seen.path for seen in service.requests].count(eve.path) == 6)
            router.publish("notification", {"id": 2, "message": "hi", "browsers": [jane.subscription]})
            await router.until(lambda: jane.path in [seen.path for seen in service.requests])
            assert await router.stop() == 0
    assert "all deliveries of this sink wait" not in router.process.err


STUBS = """
const handlers = {}, shown = [], opened = [];
const self = {
  addEventListener: (name, handler) => { handlers[name] = handler; },
  registration: { showNotification: (title, options) => shown.push({ title, ...options }) },
  clients: { openWindow: (url) => opened.push(url) },
};
"""
EVENTS = """
const waitUntil = () => {};
handlers.push({ data: { json: () => (MESSAGE) }, waitUntil });
handlers.notificationclick({ notification: { ...shown[0], close: () => {} }, waitUntil });
console.log(JSON.stringify({ shown, opened }));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_service_worker_of_the_page_shows_what_is_sent():
    page = (ROOT / "docs" / "sinks" / "webpush.md").read_text()
    [worker] = [text for text in re.findall(r"^```js\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if '"push"' in text]
    sent = validate("webpush", options(title="News", text="hi")).notification("t-1", make_event({}, id="a/b"))
    script = STUBS + worker + EVENTS.replace("MESSAGE", sent.decode())
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    assert told["opened"] == ["/events/a%2Fb"]
    [notification] = told["shown"]
    assert (notification["title"], notification["body"], notification["tag"]) == ("News", "hi", "t-1")
