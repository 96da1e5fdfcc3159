"""The log sink: what its options take and refuse, and what its lines look like."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from tests.support.sinks import all_written, make_event, open_sink, sink_type, validate


def test_is_registered_as_a_local_memory_sink_of_one_worker():
    registered = sink_type("log")
    assert (registered.queue, registered.concurrency, registered.local) == ("memory", 1, True)


@pytest.mark.parametrize(
    "values",
    [
        {"path": "a.log"},
        {"target": "stdout"},
        {"target": "stderr", "template": "x"},
        {"target": "journald"},
        {"target": "syslog", "socket": f"/{'x' * 106}"},
    ],
)
def test_takes(values):
    assert values.items() <= validate("log", values).model_dump(mode="json").items()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "either `path` (a file) or `target`"),
        ({"path": "a.log", "target": "stdout"}, "either `path` (a file) or `target`"),
        ({"path": ""}, "at least 1 character"),
        ({"path": "{{ event.channel }}.log"}, "can't contain a template"),
        ({"path": "a\0b"}, "NUL"),
        ({"path": "a.log", "target": "journald"}, "either `path` (a file) or `target`"),
        ({"target": "systemd"}, "'stdout', 'stderr', 'journald' or 'syslog'"),
        (
            {"path": "a.log", "socket": "/dev/log"},
            "`socket` can be used only with `target: journald` or `target: syslog`",
        ),
        (
            {"target": "stdout", "socket": "/dev/log"},
            "`socket` can be used only with `target: journald` or `target: syslog`",
        ),
        ({"target": "syslog", "socket": "log"}, "must be an absolute path"),
        ({"target": "syslog", "socket": "/run/{{ event.channel }}"}, "`socket` is the same for all events"),
        ({"target": "syslog", "socket": "/a\0b"}, "NUL"),
        ({"target": "syslog", "socket": f"/{'ü' * 54}"}, "more than 107 bytes"),
        ({"path": 5}, "valid string"),
        ({"path": "a.log", "format": "json"}, "not permitted"),
    ],
)
def test_refuses(values, says):
    with pytest.raises(ValidationError) as caught:
        validate("log", values)
    (problem,) = caught.value.errors()
    assert says in problem["msg"]


async def lines(tmp_path, values, *events) -> list[str]:
    """What stands in the file, split at newlines alone."""
    async with open_sink("log", {"path": "out.log", **values}, base=tmp_path) as sink:
        assert all_written(await sink.deliver_batch(events))
    content = (tmp_path / "out.log").read_bytes().decode()
    assert content.endswith("\n")
    return content[:-1].split("\n")


async def test_the_default_is_the_json_line_with_the_payload_as_published(tmp_path):
    event = make_event(raw=b'{"n": 12345678901234567890123.10, "m":"\xc3\xbc"}', pattern="not*")
    expected = (
        '{"id":"e-1","source":"web-app","channel":"notification","pattern":"not*",'
        '"received_at":"2026-05-04T03:02:01.123456Z","route":"notify",'
        '"payload":{"n": 12345678901234567890123.10, "m":"ü"}}'
    )
    assert await lines(tmp_path, {}, event) == [expected]


@pytest.mark.parametrize(
    "event",
    [
        make_event(raw=b'{\n  "a": 1,\r\n  "b": "x\\ny"\n}'),
        make_event("two\nlines\r\nand \x1b[31mred\x1b[0m \x00", format="text"),
        make_event({"a": 'b\n{"id":"forged"}'}),
        make_event({}, channel="chan\nnel", id="i\nd"),
        make_event("", format="text"),
        make_event(raw='{"a": "\x7f\x9b31m\u2028\u202e\u2066\u200f\u061c"}'.encode()),
        make_event({"\u202e": "\x85"}, channel="chan\x9b\u2028nel", source="\u202e"),
    ],
)
async def test_one_event_is_one_json_line(tmp_path, event):
    (line,) = await lines(tmp_path, {}, event)
    found = json.loads(line)
    assert (found["id"], found["channel"], found["payload"]) == (event.id, event.channel, event.payload)
    assert not {"\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u202e", "\u2066", "\u200f", "\u061c"} & {*line}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\n2026-01-01 forged", r"a\r\n2026-01-01 forged"),
        ("a\x0bb\x0cc", r"a\u000bb\u000cc"),
        ("a\x85b\u2028c\u2029d", r"a\u0085b\u2028c\u2029d"),
        ("\x1b[2J\x1b]0;title\x07", r"\u001b[2J\u001b]0;title\u0007"),
        ("\x9b31mred", r"\u009b31mred"),
        ("back\b\b\b\x7f", r"back\u0008\u0008\u0008\u007f"),
        ("nul\0", r"nul\u0000"),
        ("\u202egnp.exe\u202c", r"\u202egnp.exe\u202c"),
        ("tab\tstays, ünï 😀 \\n too", "tab\tstays, ünï 😀 \\n too"),
        ("", ""),
    ],
)
async def test_one_event_is_one_line_of_text(tmp_path, value, shown):
    values = {"template": "{{ event.id }} {{ payload.text }}."}
    found = await lines(tmp_path, values, make_event({"text": value}), make_event({"text": "next"}, id="e-2"))
    assert found == [f"e-1 {shown}.", "e-2 next."]
    assert ("\n".join(found)).splitlines() == found  # nor a line for those who know more line breaks


async def test_an_empty_line_is_a_line(tmp_path):
    values = {"template": "{{ payload.text }}"}
    events = [make_event({"text": text}) for text in ("", "a", "", "")]
    assert await lines(tmp_path, values, *events) == ["", "a", "", ""]


async def test_a_template_without_values_is_written_for_each_event(tmp_path):
    assert await lines(tmp_path, {"template": "tick"}, make_event({}), make_event({})) == ["tick", "tick"]


async def test_a_batch_may_mix_lines_of_routes_with_and_without_a_template(tmp_path):
    async with open_sink("log", {"path": "out.log"}, base=tmp_path) as sink:
        plain, text = validate("log", {"path": "out.log"}), validate("log", {"path": "out.log", "template": "text"})
        batch = [(make_event({}, id=str(n)), text if n % 2 else plain) for n in range(4)]
        assert all_written(await sink.sink.deliver_batch(batch))
    found = (tmp_path / "out.log").read_text().splitlines()
    assert [line if line == "text" else json.loads(line)["id"] for line in found] == ["0", "text", "2", "text"]
