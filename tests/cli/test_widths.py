"""What commands show on terminals of 80 and of 120 columns: nothing that is copied is broken over lines."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
from collections import Counter
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from rich.console import Console

from router.cli.first_steps.demo import CONFIG as DEMO
from router.cli.operate.status import drawn
from router.cli.tables import Cell, Column, Table
from router.core.accounts.records import pack
from router.core.accounts.snapshot import document
from router.core.ids import Ids
from router.events import timestamp
from tests.support.engine import make_event
from tests.support.process import ROOT, run
from tests.support.status import SINK, SNAPSHOT
from tests.support.terminal import Terminal

WIDTHS = [80, 120]
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LONG = "billing-notifications-of-the-customer-portal-in-the-eu-west-zone"
CONFIG = {
    "version": 1,
    "sources": {"web-app": {"type": "pubsub", "channels": ["notification", "orders.*"]}},
    "sinks": {LONG: {"type": "log", "path": "audit.jsonl", "queue": "redis"}},
    "routes": [{"id": "notify-the-customer-and-the-team", "sinks": [LONG]}],
}


def shown_on(columns, *words, cwd):
    """The lines that a command shows on a terminal, and its exit code."""
    terminal = Terminal(*words, cwd=cwd, columns=columns)
    code = terminal.end()
    return ANSI.sub("", terminal.shown.decode()).replace("\r", "").splitlines(), code


@pytest.fixture
def folder(tmp_path, redis_server):
    (tmp_path / "config.yaml").write_text(json.dumps({**CONFIG, "redis": {"url": redis_server.url}}))
    return tmp_path


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_ids_of_dead_letters_are_whole(folder, redis_server, columns):
    ids = Ids(os.urandom(5).hex())
    at = timestamp(datetime.now(UTC))
    letters = [
        {
            "version": "1",
            "id": ids.next(time.time()),
            "event_id": "e-1",
            "reason": "permanent",
            "detail": "the other side refused the message, for it holds a word that it does not take: 550 5.7.1",
            "source": "web-app",
            "channel": f"orders.customers.{number}.created",
            "route": "notify-the-customer-and-the-team",
            "sink": "mail-of-customers",
            "address": "somebody.with.a.long.name@customers.example.org",
            "attempts": 3,
            "received_at": at,
            "failed_at": at,
            "payload": "{}",
        }
        for number in range(3)
    ]
    with redis_server.client() as client:
        for letter in letters:
            client.xadd("{event-router}:dead", letter)
    lines, code = shown_on(columns, "dlq", "list", cwd=folder)
    assert code == 0
    header, rule, *rows = lines[: 2 + len(letters)]
    assert header.split()[:3] == ["id", "age", "reason"]
    assert set(rule) == {"─"}
    assert [row.split()[0] for row in rows] == [letter["id"] for letter in letters]
    assert {row.split()[2] for row in rows} == {"permanent"}
    assert max(map(len, [header, rule, *rows])) <= columns
    assert any(line.startswith("note: ") and "not fit: " in line and "source" in line for line in lines)
    copied = run("dlq", "show", rows[0].split()[0], cwd=folder)
    assert copied.code == 0
    piped = run("dlq", "list", cwd=folder).out
    assert "somebody.with.a.long.name@customers.example.org" in piped


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_names_of_queues_are_whole(folder, redis_server, columns):
    with redis_server.client() as client:
        for record in pack([make_event(b"{}")]):
            client.xadd("{event-router}:queue:" + LONG, {"d": record})
    lines, code = shown_on(columns, "queue", "list", cwd=folder)
    assert code == 0
    assert lines[2].split()[:2] == [LONG, "ok"]
    assert max(map(len, lines[:3])) <= max(columns, len(LONG) + len("  state  waiting"))


@pytest.mark.parametrize("columns", WIDTHS)
def test_plugins_are_one_line_each(folder, columns):
    lines, code = shown_on(columns, "plugins", cwd=folder)
    assert code == 0
    listed = json.loads(run("plugins", "--json", cwd=folder).out)
    assert [line.split()[0] for line in lines[2:]] == [plugin["name"] for plugin in listed]
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_options_of_a_type_are_whole(folder, columns):
    lines, code = shown_on(columns, "plugins", "email", cwd=folder)
    assert code == 0
    assert max(map(len, lines)) <= columns
    [email] = json.loads(run("plugins", "email", "--json", cwd=folder).out)
    rows = [line.split()[0] for line in lines if line[:1].strip()]
    assert rows[:4] == ["sink", "option", rows[2], "host"]
    assert [name for name in rows if name in {option["name"] for option in email["options"]}] == [
        option["name"] for option in email["options"]
    ]
    shown = Counter(re.findall(r"[^\s─]+", " ".join(lines)))
    words = Counter(word for option in email["options"] for word in option["description"].split())
    assert words - shown == Counter(), "every word of a meaning is shown"
    assert "allow_private" in lines[-1]


@pytest.mark.parametrize("columns", WIDTHS)
def test_what_check_says_breaks_between_words(folder, columns):
    shutil.copytree(ROOT / "schemas", folder / "schemas")
    good, code = shown_on(columns, "check", str(ROOT / "config.example.yaml"), cwd=folder)
    assert code == 0
    (folder / "bad.yaml").write_text((ROOT / "config.example.yaml").read_text().replace("path: audit", "pth: audit"))
    bad, code = shown_on(columns, "check", "bad.yaml", cwd=folder)
    assert code == 78
    for lines, words in ((good, ["check", str(ROOT / "config.example.yaml")]), (bad, ["check", "bad.yaml"])):
        assert [line for line in lines if len(line) > columns and " " in line.strip()] == []
        piped = run(*words, cwd=folder).out
        assert " ".join(" ".join(lines).split()) == " ".join(piped.split())


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("busy", [False, True])
def test_status_keeps_names_and_numbers_whole(columns, busy):
    sink = SINK
    if busy:
        reasons = {"exhausted": 1_234_567, "permanent": 7_654_321, "template": 23_456}
        sink = replace(
            SINK, pending=10_000, delayed=9_000, delivered=123_456_789, dead_lettered=reasons, breaker_open=True
        )
    told = document(replace(SNAPSHOT, sinks={LONG[:24]: sink, "audit": SINK}))
    screen = Console(width=columns, force_terminal=True, color_system=None, file=io.StringIO())
    with screen.capture() as captured:
        screen.print(drawn(told))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= columns
    (row,) = [line for line in text.splitlines() if line.startswith(LONG[:24])]
    if busy:
        assert "breaker open" in row
        assert "123,456,789" in row
        assert "8,912,344" in row


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_demo_shows_its_whole_configuration(tmp_path, columns):
    lines, code = shown_on(columns, "demo", cwd=tmp_path)
    assert code == 0
    shown = [line.rstrip() for line in lines]
    for line in DEMO.splitlines():
        assert line.rstrip() in shown
        assert len(line) < min(WIDTHS)
    said = [line for line in lines if len(line) > columns]
    assert [line for line in said if not line.strip().startswith("{")] == []


def test_columns_give_way_by_rank_and_numbers_are_never_cut():
    columns = (
        Column("id"),
        Column("note", rank=1, least=6),
        Column("count", rank=2, number=True),
        Column("far", rank=3),
    )
    table = Table(columns, [("a" * 20, "some words of a note", Cell("1,000: many 1,000", "", "1,000"), "away")])

    def lines(width):
        return ["  ".join(cell.text for cell in line) for line in table.lines(width)]

    assert lines(None)[1] == f"{'a' * 20}  some words of a note  1,000: many 1,000  away"
    assert lines(45)[1] == f"{'a' * 20}  some word…  1,000  away"
    assert lines(36)[1] == f"{'a' * 20}  some w…  1,000"
    assert table.missing(36) == ["far"]
    assert lines(30)[1] == f"{'a' * 20}  some wo…"
    assert lines(10)[1] == "a" * 20
    assert table.missing(10) == ["note", "count", "far"]


def test_wide_characters_take_two_columns():
    table = Table((Column("name", rank=1, least=4), Column("end")), [("日本語の名前", "x"), ("é" * 12, "y")])
    assert [[cell.text for cell in line] for line in table.lines(None)][1:] == [["日本語の名前", "x"], ["é" * 12, "y"]]
    assert [cell.text for cell in list(table.lines(9))[1]] == ["日… ", "x"]
