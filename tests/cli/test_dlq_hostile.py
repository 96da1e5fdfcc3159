"""`event-router dlq` on letters that whoever shares the Redis, or a producer, made to do harm."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_dlq import Desk, letter
from tests.support.daemon import DEAD
from tests.support.process import run

UNSAFE = {chr(code) for code in (*range(9), *range(11, 0x20), *range(0x7F, 0xA0))}
UNSAFE |= {chr(code) for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}
HARM = "[red]x[/] \x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\u2028\u2066\u200f"
DEEP = "[" * 100_000

COMMANDS = ["list", "purge --dry-run", "replay --dry-run"]


@pytest.fixture
def desk(redis_server, tmp_path):
    return Desk(redis_server, tmp_path)


@pytest.mark.parametrize("command", [*COMMANDS, "show l-1"])
@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_in_a_letter_steers_a_terminal(desk, command, as_json):
    everywhere = ("detail", "source", "channel", "pattern", "route", "sink", "address", "key")
    desk.put(letter(1, payload={"a" + HARM: HARM}, headers=json.dumps({HARM: HARM}), **dict.fromkeys(everywhere, HARM)))
    done = desk.dlq(*command.split(), *(["--json"] if as_json else []))
    assert done.code == 0, done.err
    assert not UNSAFE & {*done.out, *done.err}
    for line in done.out.splitlines() if as_json else ():
        json.loads(line)
    assert "[red]x[/] " in done.out + done.err


JUNK = [
    {"attempts": "9" * 5000},
    {"failed_at": "0001-01-01T00:00:00"},
    {"failed_at": "0001-01-01T00:00:00+14:00", "received_at": "9999-12-31T23:59:59-14:00"},
    {"failed_at": "yesterday", "received_at": "\xff"},
    {"headers": DEEP},
    {"headers": "{"},
    {"event_id": "a\r\nBcc: b"},
    {"reason": None},
    {"payload": b"", "source": None},
]
NEWER = [{"version": "9" * 5000}, {"version": "x"}]
READABLE = [
    {"detail": DEEP, "reason": "schema"},
    {"detail": '[{"pointer": [[]]}]', "reason": "schema"},
    {"payload": DEEP.encode()},
    {"payload": b"[" * 900 + b"]" * 900},
    {"payload": b"\xff\xfe"},
    {"payload": b'{"n": ' + b"9" * 5000 + b"}"},
]


@pytest.mark.parametrize("command", [*COMMANDS, "list --where payload.user_id==1", "list --since 1h"])
@pytest.mark.parametrize("as_json", [False, True])
def test_letters_that_can_not_be_read_are_shown_as_that_and_the_others_are_dealt_with(desk, command, as_json):
    desk.put(letter(1), {"foo": "bar"}, *[letter(10, **one) for one in (*JUNK, *NEWER, *READABLE)], letter(2))
    done = desk.dlq(*command.split(), *(["--json"] if as_json else []))
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    if command == "list" and not as_json:
        assert done.out.count(" unreadable ") == 1 + len(JUNK)
    if command == "list" and as_json:
        found = [json.loads(line) for line in done.out.splitlines()]
        assert sum(line.get("unreadable", False) for line in found) == 1 + len(JUNK)
        assert {"l-1", "l-2"} <= {line["id"] for line in found if not line.get("unreadable")}
    if command.startswith("replay"):
        assert f"{1 + len(JUNK)} dead letters that can't be read will not be replayed" in done.err
        assert "warning: 2 dead letters of a newer event-router will not be replayed" in done.err
        assert f"would replay {2 + len(READABLE)} dead letters" in done.err


def test_they_can_be_shown_one_by_one_and_removed(desk):
    desk.put({"foo": "bar"}, *[letter(10, **one) for one in (JUNK[0], *READABLE[:3])])
    with desk.server.client() as client:
        entries = [entry.decode() for entry, _ in client.xrange(DEAD)]
    for entry in entries:
        done = desk.dlq("show", entry)
        assert done.code == 0, done.err
    assert "This entry is not a dead letter of event-router" in desk.dlq("show", entries[0]).out
    assert desk.dlq("purge", "--yes").code == 0
    assert desk.ids() == []


def test_a_command_is_told_of_a_queue_with_records_it_can_not_read(desk):
    """It names their number, and moves the others."""
    stream = "{event-router}:queue:gone"
    for record in (b"\xc1", b"\x91" * 5000, b""):
        desk.server.do("XADD", stream, "*", "d", record)
    desk.server.do("XADD", stream, "*", "x", "y")
    desk.server.do("ZADD", "{event-router}:later:gone", 1, "no-space")
    for words in (["list"], ["list", "--json"], ["dead-letter", "gone", "--yes"]):
        done = run("queue", *words, cwd=desk.folder)
        assert done.code == 0, done.err
    assert "5 deliveries were left in the queue, because this version of event-router can't read them" in done.err


def test_the_summary_of_what_would_be_done_is_one_line(desk):
    desk.put(letter(1, reason="schema\nremoved 0 dead letters"))
    lines = [line for line in desk.dlq("purge", "--dry-run").err.splitlines() if "would " in line]
    assert len(lines) == 1
    assert "schema\\nremoved 0 dead letters" in lines[0]


def test_letters_are_listed_where_the_key_of_replays_is_something_else(desk):
    desk.put(letter(1))
    desk.server.do("SET", "{event-router}:replay", "x")
    done = desk.dlq("list")
    assert done.code == 0
    assert "l-1" in done.out
    assert "warning: the letters to be replayed ({event-router}:replay) can't be counted: " in done.err
