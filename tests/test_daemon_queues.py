"""Redis queues under the real daemon: what was accepted outlives it."""

from __future__ import annotations

import signal
from typing import Any

from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in

SOURCE = {"type": "pubsub", "channels": ["notification"]}


def telegram(url: str, **keys: Any) -> dict[str, Any]:
    bot = {"type": "chat", "service": "telegram", "token": "none", "api": url, "allow_private": True}
    return {**bot, "to": "{{ payload.user_id }}", "text": "{{ payload.message }}", **keys}


def setup(sinks: dict[str, Any]) -> dict[str, Any]:
    return {"sources": {"web": SOURCE}, "sinks": sinks, "routes": [{"id": "all", "sinks": list(sinks)}]}


async def test_a_chat_service_that_is_down_and_a_kill_in_between_lose_nothing(redis_server, tmp_path):
    total = 200
    async with stand_in() as bot:
        bot.default = Reply(status=503)
        chat = telegram(
            bot.url, retry={"initial": "50ms", "max_delay": "200ms"}, breaker={"failures": 3, "reset": "1s"}
        )
        config = setup({"chat": chat})
        async with daemon(redis_server, tmp_path, config) as router:
            router.publish("notification", *[{"user_id": n + 1, "message": f"m{n}"} for n in range(total)])
            await router.until(lambda: bot.requests)
            await router.until(
                lambda: redis_server.do("HGET", "{event-router}:books:chat", "accepted") == b"%d" % total
            )
            router.process.signal(signal.SIGKILL)
            router.process.wait()
        down = len(bot.requests)
        bot.default = Reply(json={"ok": True})
        async with daemon(redis_server, tmp_path, config) as router:
            await router.until(
                lambda: redis_server.do("HGET", "{event-router}:books:chat", "delivered") == b"%d" % total
            )
            assert await router.stop() == 0
        arrived = {request.json["text"] for request in bot.requests[down:]}
    assert arrived == {f"m{n}" for n in range(total)}
    assert redis_server.do("XLEN", "{event-router}:queue:chat") == 0


async def test_a_route_that_is_gone_leaves_an_orphan_only_where_it_had_options_of_its_own(redis_server, tmp_path):
    async with stand_in() as bot:
        bot.default = Reply(status=503)
        chat = telegram(bot.url, retry={"initial": "50ms", "max_delay": "200ms"})
        config = setup({"chat": chat})
        own = {"sink": "chat", "text": "URGENT {{ payload.message }}"}
        routes = [{"id": "plain", "sinks": ["chat"]}, {"id": "own", "sinks": [own]}]
        async with daemon(redis_server, tmp_path, {**config, "routes": routes}) as router:
            router.publish("notification", {"user_id": 1, "message": "m"})
            await router.until(lambda: redis_server.do("HGET", "{event-router}:books:chat", "accepted") == b"2")
            assert await router.stop() == 0
        bot.default = Reply(json={"ok": True})
        down = len(bot.requests)
        async with daemon(redis_server, tmp_path, config) as router:
            await router.until(lambda: router.letters() and len(bot.requests) > down)
            assert await router.stop() == 0
        (letter,) = router.letters()
    assert (letter["reason"], letter["route"]) == ("orphaned", "own")
    assert [request.json["text"] for request in bot.requests[down:]] == ["m"]
    assert redis_server.do("XLEN", "{event-router}:queue:chat") == 0
