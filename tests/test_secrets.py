"""A secret shows nowhere, whoever says it: a plugin, its errors, the other side's answers."""

from __future__ import annotations

import json
import signal

from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.process import run

PLUGIN = """
import builtins
from router.api import Secret, SinkError, SinkOptions, Template, hookimpl

class Options(SinkOptions):
    key: Secret
    header: Template = ""

async def talker(event, options, context):
    '''Says everything it knows, and what it knew before a reload.'''
    known = builtins.event_router_test_keys = [*getattr(builtins, "event_router_test_keys", [])]
    known += [options.key.get_secret_value(), options.header]
    context.log.warning("talks", known=known)
    error = SinkError if event.payload.get("fault") else RuntimeError
    raise error(f"talks of {known}")

@hookimpl
def register_sinks(register):
    register("talker", talker, options=Options, queue="memory")
"""
QUICK = {"retry": {"initial": "10ms", "attempts": 2}, "breaker": {"failures": 1, "reset": "50ms"}}


async def test_no_secret_in_logs_letters_and_status(redis_server, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "talker.py").write_text(PLUGIN)
    for name, value in (("key", "first-secret"), ("header", "second-secret")):
        (tmp_path / name).write_text(value)
    async with stand_in() as chat:
        chat.default = Reply(status=400, body=b'{"ok": false, "error": "no", "said": "/hooks/third-secret"}')
        sinks = {
            "talker": {"type": "talker", "key": "${file:key}", "header": "${file:header}", **QUICK},
            "hook": {
                "type": "chat",
                "service": "discord",
                "url": f"{chat.url}/hooks/third-secret",
                "text": "hi",
                "allow_private": True,
                "queue": "memory",
                **QUICK,
            },
        }
        config = {
            "sources": {"web": {"type": "pubsub", "channels": ["a"]}},
            "sinks": sinks,
            "routes": [{"id": "all", "sinks": list(sinks)}],
            "shutdown": {"drain": "1s"},
        }
        shown = []
        async with daemon(redis_server, tmp_path, config) as router:
            router.publish("a", {})
            await router.until(lambda: len(router.letters()) == 2)
            router.publish("a", {"fault": True})
            await router.until(lambda: "the fault is in the sink" in router.process.err)
            (tmp_path / "key").write_text("fourth-secret")
            router.process.signal(signal.SIGHUP)
            await router.until(lambda: "the new configuration has taken effect" in router.process.err)
            router.publish("a", {})
            await router.until(lambda: len(router.letters()) >= 4)
            shown = [run("status", *more, cwd=tmp_path).out for more in ((), ("--json",))]
            assert all("talks of" in text for text in shown)
            letters = router.letters()
        text = "\n".join([router.process.err, router.process.out, json.dumps(letters), *shown])
    assert {letter["sink"]: letter["reason"] for letter in letters} == {"talker": "plugin", "hook": "permanent"}
    assert "talks of ['***', '***']" in text
    for secret in ("first", "second", "third", "fourth"):
        assert f"{secret}-secret" not in text
