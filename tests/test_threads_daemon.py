"""Threads and updates under the real daemon: many events at once, with a service that fails now and then."""

from __future__ import annotations

import json
from itertools import count

from tests.support.chat import bot
from tests.support.chat_services import Telegram
from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.process import run
from tests.support.smtp import smtp_server

KEYS, EACH = ("a", "b", "c"), 8
RETRY = {"retry": {"initial": "1ms", "max_delay": "20ms"}, "concurrency": 8, "breaker": {"failures": 1000}}


class Recording(Telegram):
    """Notes every text in the order in which it is shown, and is out of order for every fifth request."""

    def __init__(self):
        super().__init__()
        self.texts = []
        self.requests = count(1)

    def answer(self, seen):
        if next(self.requests) % 5 == 0:
            return Reply(503)
        reply = super().answer(seen)
        self.texts.append(seen.json["text"])
        return reply


def setup(chat, box):
    mail = {"type": "email", "host": "127.0.0.1", "port": box.port, "tls": "none", "from": "shop@example.org", **RETRY}
    mail |= {"to": "{{ payload.mail }}", "text": "{{ payload.n }}", "thread": "{{ payload.order }}"}
    board = {"type": "chat", **bot(chat, "telegram", 42), "text": "{{ payload.order }} {{ payload.n }}", **RETRY}
    return {
        "sources": {"shop": {"type": "pubsub", "channels": ["orders"]}},
        "sinks": {"board": board, "mail": mail},
        "routes": [{"id": "all", "sinks": ["mail", {"sink": "board", "update": "{{ payload.order }}"}]}],
    }


async def test_every_key_has_one_message_with_the_newest_text_and_one_thread_of_mails(redis_server, tmp_path):
    service = Recording()

    def delivered(sink):
        return int(redis_server.do("HGET", f"{{event-router}}:books:{sink}", "delivered") or 0)

    async with smtp_server() as box, stand_in() as chat:
        service.attach(chat)
        box.data += [None, "451 later", None, "451 later"] * 3
        async with daemon(redis_server, tmp_path, setup(chat, box)) as router:
            payloads = [{"order": key, "n": n, "mail": f"{key}@example.org"} for n in range(EACH) for key in KEYS]
            router.publish("orders", *payloads)
            await router.until(lambda: delivered("board") == delivered("mail") == len(payloads))
            explained = run(
                "explain", "-c", "config.yaml", "--json", "--channel", "orders", json.dumps(payloads[0]), cwd=tmp_path
            )
            assert await router.stop() == 0
    assert sorted(each.text for each in service.shown.values()) == [f"{key} {EACH - 1}" for key in KEYS]
    for key in KEYS:
        assert [text for text in service.texts if text[0] == key] == [f"{key} {n}" for n in range(EACH)]
        mails = [mail for mail in box.taken if mail.recipients == [f"{key}@example.org"]]
        assert [int(mail.text()) for mail in mails] == list(range(EACH))
        first, *others = [mail.message for mail in mails]
        assert (first["In-Reply-To"], first["References"]) == (None, None)
        assert {(mail["In-Reply-To"], mail["References"]) for mail in others} == {(first["Message-ID"],) * 2}
        assert len({mail["Message-ID"] for mail in others}) == EACH - 1
    for sink in ("board", "mail"):
        assert redis_server.do("HLEN", f"{{event-router}}:thread:{sink}") == len(KEYS)
    rendered = {each["sink"]: each["rendered"] for each in json.loads(explained.out)["deliveries"]}
    assert (rendered["board"]["update"], rendered["mail"]["thread"]) == ("a", "a")
