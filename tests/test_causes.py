"""Twelve causes why nobody got a message, played on one daemon: for each of them one command names it.

The table of `docs/explain.md` is the list of the causes: its commands are executed, and print what stands there.
"""

import asyncio
import json
import re
import shlex

import pytest
from click.testing import CliRunner

from router.admin.admin_client import Client
from router.admin.sockets import default_address
from router.cli.main import cli
from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.process import ROOT
from tests.support.smtp import smtp_server

SECTION = (ROOT / "docs" / "explain.md").read_text().partition("\n## Why did nobody get it?\n")[2].partition("\n## ")[0]
_CELLS = re.findall(r"^\| (.+?) \| `event-router (.+?)` \| (`+)(.+?)\3 \|$", SECTION, re.MULTILINE)
ROWS = [(cause, command, printed.strip()) for cause, command, _, printed in _CELLS]
NEWS = {"user_id": 42, "kind": "news", "message": "hi"}
EVENTS = {
    "the payload does not fit its schema": ("notification", json.dumps({**NEWS, "user_id": 0})),
    "the payload is not JSON": ("notification", "{oops"),
    "no route takes the event": ("forgotten", json.dumps(NEWS)),
    "one condition of the route is not met": ("notification", json.dumps({**NEWS, "kind": "digest"})),
    "the user wants no mail": ("notification", json.dumps({**NEWS, "user_id": 43})),
    "the user has no address": ("notification", json.dumps({**NEWS, "user_id": 44})),
    "the user is not known": ("notification", json.dumps({**NEWS, "user_id": 45})),
}
"""The event of each cause that `explain` names: its channel and payload."""

OTHERS = {
    "the sink fails, and its breaker is open",
    "the delivery waits for a retry",
    "the delivery waits in Redis for a retry; the router need not run",
    "the queue was full",
    "the delivery was too late",
    "the service refused the message",
}


def telegram(url, token, **keys):
    bot = {"type": "chat", "service": "telegram", "token": token, "api": url, "allow_private": True}
    return bot | {"to": "{{ user.telegram }}", "text": "{{ payload.message }}", "breaker": {"reset": "10m"}} | keys


def configuration(bot, box):
    mail = {
        "type": "email",
        "host": "127.0.0.1",
        "port": box.port,
        "tls": "none",
        "from": "shop@example.org",
        "to": "{{ user.email }}",
        "subject": "News",
        "text": "{{ payload.message }}",
        "only_if": "on(user.wants_mail, true)",
        "retry": {"initial": "24h", "max_delay": "24h"},
    }
    routes = {
        "notify": {"channels": ["notification"], "match": {"kind": "news"}, "sinks": ["user-mail", "memory-mail"]},
        "chats": {"sinks": ["user-chat"]},
        "bulk": {"sinks": ["narrow"]},
        "refused": {"sinks": ["team"]},
        "codes": {"expires": "{{ payload.until }}", "sinks": ["audit"]},
    }
    return {
        "sources": {"web-app": {"type": "pubsub", "channels": ["notification", "forgotten", *list(routes)[1:]]}},
        "schemas": [{"channels": ["notification"], "file": "notification.json"}],
        "lookups": {"user": {"type": "redis-hash", "key": "user:{{ payload.user_id }}"}},
        "sinks": {
            "user-mail": mail,
            "memory-mail": {**mail, "queue": "memory"},
            "user-chat": telegram(bot.url, "100:refused"),
            "narrow": telegram(bot.url, "100:refused", queue={"type": "redis", "max_events": 2}),
            "team": telegram(bot.url, "200:known", to="4711"),
            "audit": {"type": "log", "path": "audit.jsonl"},
        },
        "routes": [{"id": name, "channels": [name], **route} for name, route in routes.items()],
    }


def answer(request):
    """Telegram's: one bot's token is refused, the other bot knows no chat."""
    if request.path.startswith("/bot100:"):
        return Reply(401, {"ok": False, "error_code": 401, "description": "Unauthorized"})
    return Reply(400, {"ok": False, "error_code": 400, "description": "Bad Request: chat not found"})


class Played:
    """A daemon in which every cause has come to pass, and the commands, as they run beside it."""

    def __init__(self, router):
        self.router = router
        self._env = {"XDG_STATE_HOME": str(router.folder / "state"), "HOME": str(router.folder), "NO_COLOR": "1"}
        self._said = {}
        self._status = Client(default_address(router.folder / "state" / "event-router", "default"))

    def play(self):
        users = {42: {"telegram": "1", "email": "busy@example.org"}, 43: {"email": "b@example.org", "wants_mail": "no"}}
        with self.router.server.client() as client:
            for user, fields in {**users, 44: {"telegram": "3"}}.items():
                client.hset(f"user:{user}", mapping=fields)
        for channel, payload in EVENTS.values():
            self.router.publish(channel, payload.encode())
        self.router.publish("notification", NEWS)
        self.router.publish("chats", *[NEWS] * 3)
        self.router.publish("bulk", *[NEWS] * 5)
        self.router.publish("refused", NEWS)
        self.router.publish("codes", {"until": "2020-01-01T00:00:00Z"})

    def over(self):
        told = self._status.get("/api/status")
        books, sinks = told["books"]["sinks"], told["sinks"]
        mails = [books["user-mail"], books["memory-mail"]]
        return (
            len(self.router.letters()) == 6
            and all(book["by_reason"]["suppressed"] == {"only_if": 1, "no_address": 1} for book in mails)
            and all(sinks[name]["delayed"] == 1 for name in ("user-mail", "memory-mail"))
            and all(sinks[name]["breaker_open"] for name in ("user-chat", "narrow"))
            and (books["user-chat"]["pending"], books["narrow"]["pending"]) == (3, 2)
        )

    def says(self, cause, command, *more):
        """What a command of the page prints about a cause, its holes filled in."""
        words = [*shlex.split(command), *more]
        if cause in EVENTS:
            words[words.index("CHANNEL")], words[words.index("PAYLOAD")] = EVENTS[cause]
        if "ID" in words:
            (words[words.index("ID")],) = [
                each["id"] for each in self.router.letters() if each["reason"] == "permanent"
            ]
        if words[0] != "status":
            words += ["-c", str(self.router.folder / "config.yaml")]
        if tuple(words) not in self._said:
            done = CliRunner().invoke(cli, words, standalone_mode=False, env=self._env)
            assert done.exception is None, (words, done.exception)
            self._said[*words,] = done.stdout
        return self._said[*words,]

    def facts(self, cause, command):
        return [json.loads(line) for line in self.says(cause, command, "--json").splitlines()]


def pattern(printed):
    """The printed text as a pattern: ages and what `…` stands for are different each time, spaces are alike."""
    text = re.escape(" ".join(printed.split()))
    for written, any_such in (
        (r"\d+\\ [dhms](\\ \d+\\ [hms])?", r"\d+ [dhms]( \d+ [hms])?"),
        (r"\d+[dhms]\b", r"\d+[dhms]"),
    ):
        text = re.sub(written, lambda _, any_such=any_such: any_such, text)
    return text.replace("…", r"\S.*?")


def delivery(facts):
    (found,) = [each for each in facts["deliveries"] if each["sink"] == "user-mail"]
    return found["suppressed"], found["detail"]


def carried(cause, facts):
    """Whether the JSON of a command names the cause too."""
    first = facts[0]
    match cause:
        case "the payload does not fit its schema":
            return [(each["pointer"], each["keyword"]) for each in first["schema"]["errors"]] == [
                ("/user_id", "minimum")
            ]
        case "the payload is not JSON":
            return (first["outcome"], first["schema"]["errors"][0]["keyword"]) == ("rejected", "decode")
        case "no route takes the event":
            return (first["outcome"], first["deliveries"]) == ("unmatched", [])
        case "one condition of the route is not met":
            return first["routes"][0]["why"] == [{"clause": 'kind == "news"', "held": False, "saw": '"digest"'}]
        case "the user wants no mail":
            return delivery(first) == ("only_if", "only_if is false: on(user.wants_mail, true)")
        case "the user is not known":
            return delivery(first) == ("lookup", "lookup user: there is no record with the key 'user:45'")
        case "the user has no address":
            return delivery(first) == ("no_address", "no address in `to`")
        case "the sink fails, and its breaker is open":
            sink, book = first["sinks"]["user-chat"], first["books"]["sinks"]["user-chat"]
            left = sink["next_attempt"] - sink["fault"]["since"]
            return (
                sink["breaker_open"]
                and sink["fault"]["why"] == "HTTP 401: Unauthorized"
                and left > 500
                and book["pending"]
            )
        case "the delivery waits for a retry":
            sinks = [first["sinks"][name] for name in ("user-mail", "memory-mail")]
            return all(each["next_attempt"] > each["last_failure"]["at"] for each in sinks) and all(
                (each["delayed"], "451" in each["last_failure"]["why"]) == (1, True) for each in sinks
            )
        case "the delivery waits in Redis for a retry; the router need not run":
            (queue,) = [each for each in facts if each["sink"] == "user-mail"]
            return (
                queue["next_due"]["attempts"] >= 1 and "451" in queue["next_due"]["error"] and queue["next_due"]["at"]
            )
        case "the queue was full":
            sink, book = first["sinks"]["narrow"], first["books"]["sinks"]["narrow"]
            told = (sink["max_events"], sink["when_full"], book["by_reason"]["dropped"], sink["dropped_by_channel"])
            return told == (2, "block", {"full": 3}, {"bulk": 3})
        case "the delivery was too late":
            return [(each["reason"], each["route"], each["sink"]) for each in facts] == [("expired", "codes", "audit")]
        case "the service refused the message":
            return (first["reason"], first["sink"], first["attempts"]) == ("permanent", "team", 1)
    return False


def test_the_page_names_each_cause():
    assert {cause for cause, _, _ in ROWS} == EVENTS.keys() | OTHERS
    assert len(ROWS) == 13


@pytest.mark.parametrize(
    ("printed", "real", "same"),
    [
        ("next attempt in 28 m 3 s", "next attempt in 9 h 59 m", True),
        ("kept 20s in 28m", "kept 3s in 9h", True),
        ("from … for", "from there for", True),
        ("from … for", "from for", False),
        ("1 of 2 conditions", "2 of 2 conditions", False),
    ],
)
def test_only_times_and_gaps_of_the_page_are_open(printed, real, same):
    assert bool(re.search(pattern(printed), real)) is same


async def test_one_command_names_each_cause(redis_server, tmp_path):
    async with stand_in() as bot, smtp_server() as box:
        bot.rule = answer
        box.recipients["busy@example.org"] = ["451 4.2.1 mailbox busy, try again later"] * 10
        async with daemon(redis_server, tmp_path, configuration(bot, box)) as router:
            played = Played(router)
            played.play()
            await router.until(played.over, "for everything to come to pass")
            for cause, command, printed in ROWS:
                text = " ".join((await asyncio.to_thread(played.says, cause, command)).split())
                assert re.search(pattern(printed), text), f"{cause}: {printed!r} in {text}"
                assert carried(cause, await asyncio.to_thread(played.facts, cause, command)), cause
