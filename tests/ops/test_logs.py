"""The log lines: their forms, what they hide, and that writing them never harms."""

import fcntl
import json
import logging
import os
import pty
import threading
import warnings

import pytest
import structlog

from router.ops import logs
from tests.support.waiting import PATIENCE, wait_until


class Capture:
    """A pipe whose reading end collects what is logged into the other."""

    def __init__(self):
        self.reader, self.writer = os.pipe()

    def text(self, active):
        assert active.flush(PATIENCE)
        os.set_blocking(self.reader, False)
        chunks = []
        while True:
            try:
                chunk = os.read(self.reader, 65536)
            except BlockingIOError:
                break
            if not chunk:
                break
            chunks.append(chunk)
        return b"".join(chunks).decode()

    def lines(self, active):
        return [json.loads(line) for line in self.text(active).splitlines()]

    def close(self):
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def capture():
    made = Capture()
    yield made
    logs.configure(environ={}, descriptor=2)
    made.close()


def configure(capture, **options):
    return logs.configure(**{"environ": {}, "descriptor": capture.writer, **options})


def logger(name="router.test"):
    return structlog.stdlib.get_logger(name)


def test_a_line_is_json_with_time_level_and_sentence_first(capture):
    active = configure(capture)
    logger().warning("a sink is full", sink="audit", waiting=3)
    (line,) = capture.lines(active)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "a sink is full",
        "sink": "audit",
        "waiting": 3,
        "logger": "router.test",
    }


def test_stdlib_loggers_and_warnings_take_the_same_way(capture):
    with warnings.catch_warnings():
        logging.captureWarnings(False)
        active = configure(capture, secrets=["hunter2"])
        logging.getLogger("some.plugin").error("no %s for %s", "answer", "hunter2", extra={"sink": "pager"})
        warnings.simplefilter("always")
        warnings.warn("old and hunter2", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    error, warning = capture.lines(active)
    assert (error["event"], error["sink"], error["logger"]) == ("no answer for ***", "pager", "some.plugin")
    assert "old and ***" in warning["event"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["d", "i", "w", "e"]), ("info", ["i", "w", "e"]), ("warning", ["w", "e"]), ("error", ["e"])],
)
def test_levels(capture, level, expected):
    active = configure(capture, level=level)
    log = logger()
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert [line["event"] for line in capture.lines(active)] == expected


def test_libraries_speak_from_warning_on(capture):
    active = configure(capture)
    logging.getLogger("redis.asyncio").info("chatter")
    logging.getLogger("aiohttp.client").warning("heard")
    assert [line["event"] for line in capture.lines(active)] == ["heard"]


SECRET = 'pa"ss w/örd\n1'


@pytest.mark.parametrize(
    "fields",
    [
        {"text": f"before {SECRET} after"},
        {"url": "https://h/?t=pa%22ss%20w%2F%C3%B6rd%0A1"},
        {"url": "https://h/?t=pa%22ss+w%2F%C3%B6rd%0A1"},
        {"nested": {"list": [{"deep": SECRET}], SECRET: 1}},
        {"error": ValueError(SECRET)},
        {"quoted": repr(SECRET)},
        {"document": json.dumps({"x": SECRET})},
        {"raw_bytes": SECRET.encode()},
        {"pair": (1, SECRET)},
        {"path": type("Odd", (), {"__repr__": lambda self: f"<{SECRET}>"})()},
    ],
)
def test_no_form_of_a_secret_is_logged(capture, fields):
    active = configure(capture, secrets=[SECRET])
    logger().warning("it happened", **fields)
    text = capture.text(active)
    assert "***" in text
    for part in ("pa%22ss", 'pa\\"ss', 'pa"ss', "w/ö", "w/\\u00f6"):
        assert part not in text


def test_a_secret_in_the_sentence_and_in_an_exception_is_hidden(capture):
    active = configure(capture, secrets=["s3cret-token"])
    try:
        raise RuntimeError("POST /bots3cret-token/send failed")
    except RuntimeError:
        logger().exception("s3cret-token failed")
    (line,) = capture.lines(active)
    assert line["event"] == "*** failed"
    assert "RuntimeError: POST /bot***/send failed" in line["exception"]
    assert "s3cret-token" not in json.dumps(line)


def test_hide_replaces_the_secrets(capture):
    active = configure(capture, secrets=["old-one"])
    active.hide(["new-one", ""])
    logger().info("old-one new-one")
    (line,) = capture.lines(active)
    assert line["event"] == "old-one ***"


def test_payloads_stay_out_above_debug(capture):
    active = configure(capture, level="debug")
    log = logger()
    log.info("got it", payload={"a": 1}, raw=b"{}", rendered="text")
    log.debug("got it", payload={"a": 1})
    above, debug = capture.lines(active)
    assert set(above) == {"timestamp", "level", "event", "logger"}
    assert debug["payload"] == {"a": 1}


@pytest.mark.parametrize(
    "value",
    ["sur\ud800rogate", float("nan"), 10**400, {1: {2: 3}}, object(), {"x"}, "new\nline \x1b[31m \u2028", ["\udc80"]],
    ids=lambda value: type(value).__name__,
)
def test_any_value_is_one_line_of_json(capture, value):
    active = configure(capture)
    logger().info("odd", value=value)
    text = capture.text(active)
    assert text.count("\n") == 1
    assert json.loads(text)["event"] == "odd"


def test_an_endless_value_costs_its_own_line_only(capture):
    active = configure(capture)
    endless = []
    endless.append(endless)
    logger().info("endless", value=endless)
    logger().info("after")
    broken, after = capture.lines(active)
    assert "could not be rendered" in broken["event"]
    assert after["event"] == "after"


def stream(descriptor):
    found = os.fstat(descriptor)
    return f"{found.st_dev}:{found.st_ino}"


@pytest.mark.parametrize(
    ("level", "prefix"), [("debug", "<7>"), ("info", "<6>"), ("warning", "<4>"), ("error", "<3>"), ("critical", "<2>")]
)
def test_the_journal_gets_priorities(capture, level, prefix):
    active = configure(capture, level="debug", environ={"JOURNAL_STREAM": stream(capture.writer)})
    getattr(logger(), level)("hello")
    text = capture.text(active)
    assert text.startswith(prefix + "{")
    assert json.loads(text.removeprefix(prefix))["level"] == level


@pytest.mark.parametrize("value", ["", "1:2", "nonsense", "1:2:3"])
def test_another_stream_is_not_the_journal(capture, value):
    active = configure(capture, environ={"JOURNAL_STREAM": value})
    logger().info("hello")
    assert capture.text(active).startswith("{")


class Terminal:
    def __init__(self):
        self.reader, self.writer = pty.openpty()

    def text(self, active):
        assert active.flush(PATIENCE)
        os.set_blocking(self.reader, False)
        return os.read(self.reader, 65536).decode().replace("\r\n", "\n")


@pytest.fixture
def terminal():
    made = Terminal()
    yield made
    logs.configure(environ={}, descriptor=2)
    os.close(made.reader)
    os.close(made.writer)


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_a_terminal_gets_console_lines(terminal, environ, coloured):
    active = logs.configure(environ=environ, descriptor=terminal.writer)
    logger().info("hello", sink="audit")
    text = terminal.text(active)
    assert ("\x1b[" in text) is coloured
    assert "hello" in text
    assert not text.startswith("{")


def test_no_event_can_forge_a_line_of_a_terminal(terminal):
    active = logs.configure(environ={"NO_COLOR": "1"}, descriptor=terminal.writer)
    logger().info("channel", channel="x\n22:00:00 [error] forged\x1b[2J\x9b0m\u2028\u202e\u2066")
    text = terminal.text(active)
    assert text.count("\n") == 1
    assert not {"\x1b", "\x9b", "\u2028", "\u202e", "\u2066"} & set(text)


def test_json_on_a_terminal_when_asked(terminal):
    active = logs.configure(environ={}, descriptor=terminal.writer, format="json")
    logger().info("hello")
    assert json.loads(terminal.text(active))["event"] == "hello"


def test_a_stalled_reader_never_blocks_and_loses_by_number(capture):
    """The pipe is full, no one reads, and thirty thousand lines are logged all the same."""
    active = configure(capture)
    fcntl.fcntl(capture.writer, fcntl.F_SETPIPE_SZ, 4096)
    log = logger()
    for number in range(30_000):
        log.info("line", number=number)
    seen, reported = 0, 0
    found = []
    reader = os.fdopen(os.dup(capture.reader))

    def read():
        found.extend(json.loads(line) for line in reader)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert active.flush(PATIENCE)
    log.info("the end")
    wait_until(lambda: any(line["event"] == "the end" for line in list(found)), "the last line")
    seen = sum(line["event"] == "line" for line in found)
    reported = sum(line.get("lines", 0) for line in found)
    assert seen < 30_000
    assert seen + reported == 30_000
    logs.configure(environ={}, descriptor=2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), capture.writer)
    thread.join(PATIENCE)
    reader.close()


def test_a_full_disk_loses_lines_and_says_so_later(capture):
    full = os.open("/dev/full", os.O_WRONLY)
    active = logs.configure(environ={}, descriptor=full)
    logger().info("lost")
    assert active.flush(PATIENCE)
    os.dup2(capture.writer, full)
    logger().info("kept")
    lines = capture.lines(active)
    assert [line["event"] for line in lines][:1] == ["kept"]
    assert lines[1]["lines"] == 1
    os.close(full)


def test_a_closed_stderr_harms_nobody():
    reader, writer = os.pipe()
    active = logs.configure(environ={}, descriptor=writer)
    os.close(reader)
    logger().info("nobody reads")
    assert active.flush(PATIENCE)
    os.close(writer)
    logger().info("nobody is there")
    assert active.flush(PATIENCE)
    logs.configure(environ={}, descriptor=2)


def test_a_non_blocking_terminal_loses_nothing(capture):
    os.set_blocking(capture.writer, False)
    active = configure(capture)
    log = logger()
    expected = 2_000
    found = []
    reader = os.fdopen(os.dup(capture.reader))
    thread = threading.Thread(target=lambda: found.extend(reader), daemon=True)
    thread.start()
    for number in range(expected):
        log.info("line", number=number)
    assert active.flush(PATIENCE)
    wait_until(lambda: len(found) == expected, f"{expected} lines")
    logs.configure(environ={}, descriptor=2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), capture.writer)
    thread.join(PATIENCE)
    reader.close()


HARM = "\x7f\x9b31m\u202e\u2028\u2066\u200f\u061c"


def test_no_line_of_json_holds_what_steers_a_terminal_and_it_says_the_same(capture):
    active = configure(capture)
    logger().info("event rejected", channel=HARM, detail={HARM: [HARM]}, error=ValueError(HARM))
    text = capture.text(active)
    assert not {char for char in HARM if char not in "31m"} & {*text}
    (line,) = map(json.loads, text.splitlines())
    assert (line["channel"], line["detail"], line["error"]) == (HARM, {HARM: [HARM]}, HARM)


@pytest.mark.parametrize("value", ["k" * 1_000_000, "ü" * 1_000_000, "\x01" * 1_000_000])
def test_a_field_of_any_length_is_cut(capture, value):
    """A producer chooses the name of a channel."""
    active = configure(capture)
    logger().info("event rejected", channel=value, reason="schema")
    (line,) = capture.lines(active)
    assert len(line["channel"].encode()) <= 8 * 1024
    assert line["channel"].startswith(value[:2000])
    assert line["reason"] == "schema"
