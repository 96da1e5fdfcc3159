"""Built-in sink `log`: one line per event, to a file, a named pipe, stdout or stderr.

A batch is one write. Regular files are written in the event loop, because the page cache accepts a batch in microseconds.
Pipes, terminals and FIFOs are written in a thread, because a reader can block them. The sink knows to the byte how much a
failed or interrupted write has written, so a retry neither tears a line nor repeats one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from router.api import (
    Event,
    RegisterSink,
    Result,
    Sink,
    SinkContext,
    SinkError,
    SinkOptions,
    Template,
    TransientError,
    escape,
    hookimpl,
    json_line,
    json_lines,
)

FILE_MODE = 0o640
FOLDER_MODE = 0o750
DESCRIPTORS = {"stdout": 1, "stderr": 2}
OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

# Errors that a retry does not solve: the configured path can't be a log file.
NOT_A_LOG = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EBADF, errno.EINVAL})

REMEMBERED = 10_000
"""The largest number of remembered deliveries from interrupted writes. Their retry succeeds without writing again."""


class LogOptions(SinkOptions):
    """The options of a log sink: the file or stream, and the template of the lines."""

    path: str | None = Field(
        default=None, min_length=1, description="The file; relative to the folder of written files."
    )
    target: Literal["stdout", "stderr"] | None = Field(default=None, description="A stream instead of a file.")
    template: Template | None = Field(
        default=None, description="One line of text for each event; default: the JSON line."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        """Check that exactly one of `path` and `target` is given, and that the path is valid."""
        if (self.path is None) == (self.target is None):
            raise ValueError("a log needs either `path` (a file) or `target` (stdout or stderr)")
        if self.path is not None and ("{{" in self.path or "{%" in self.path):
            raise ValueError("`path` is one file for all events: it can't hold a template")
        if self.path is not None and "\0" in self.path:
            raise ValueError("`path` can't hold a NUL character")
        return self

    def preview(self, event: Event) -> str:  # noqa: ARG002  # the text of the options is what is written
        """Return the line that `template` gives; empty without a template, because the JSON line has the event's id."""
        return "" if self.template is None else escape(self.template)


def encode(batch: Sequence[tuple[Event, LogOptions]]) -> bytes:
    """Return the lines of a batch, each ended by the only newline in it."""
    events: list[Event] = []
    for event, options in batch:
        if options.template is not None:
            return b"".join(_encode_one(event, options) for event, options in batch)
        events.append(event)
    return json_lines(events)


def _encode_one(event: Event, options: LogOptions) -> bytes:
    if options.template is None:
        return json_line(event) + b"\n"
    return escape(options.template).encode("utf-8", "backslashreplace") + b"\n"


class _Job:
    """A batch that a thread writes to a stream that may be slow. `written` is the number of bytes written so far."""

    def __init__(self, fd: int, data: bytes, lead: int, batch: Sequence[tuple[Event, LogOptions]]) -> None:
        self.data = data
        self.lead = lead
        self.batch = batch
        self.written = 0
        self.error: OSError | None = None
        self.finished = asyncio.Event()
        self.orphaned = False  # the sink has dropped the descriptor, so the end of the job closes it
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._claim = threading.Lock()

    def run(self) -> None:
        """Write the batch, or as much of it as possible; runs in a thread."""
        if not self._claim.acquire(blocking=False):
            return
        view = memoryview(self.data)
        try:
            while self.written < len(view):
                self.written += self._write_some(view[self.written : self.written + 65536])
        except OSError as error:
            self.error = error
        finally:
            with contextlib.suppress(RuntimeError):  # the event loop is closed, so no task waits for the result
                self._loop.call_soon_threadsafe(self._finish)

    def abandon(self) -> bool:
        """Prevent the job from starting; return False if it has started."""
        return self._claim.acquire(blocking=False)

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # another process that shares this stream made it non-blocking
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll()
            return 0

    def _finish(self) -> None:
        self.finished.set()
        if self.orphaned:
            os.close(self._fd)


class LogSink(Sink):
    """The log sink; see the module."""

    local: ClassVar[bool] = True
    _context: SinkContext

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._path: str | None = None
        self._where: str = options.target or ""
        self._answer = ""
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        self._regular = False
        self._torn = False  # the last bytes in the file are an incomplete line
        self._turn = asyncio.Lock()
        self._job: _Job | None = None  # the last job; if it outlives its delivery, the next delivery waits for it
        self._already: set[str] = set()  # keys of deliveries that such a job wrote after their attempt had ended

    async def open(self, context: SinkContext) -> None:
        """Open the file or stream.

        Raises `TransientError` (no right, no folder, no reader) or `SinkError` (it can't be a log).
        """
        self._context = context
        if self._options.path is not None:
            self._path = self._where = str(Path(context.base, self._options.path))
        self._answer = f"written to {escape(self._where)}"
        if self._fd < 0:
            self._open()

    async def deliver_batch(self, batch: Sequence[tuple[Event, LogOptions]]) -> Sequence[Result]:
        """Write the lines of a batch with one call; return for each event where its line is, or why it was not written."""
        self._follow()
        if self._regular:
            return self._write(batch)
        async with self._turn:
            return await self._hand_over(batch)

    async def close(self) -> None:
        """Close the file. There is no buffer to flush."""
        self._close()

    # --- opening and following -----------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Open the file again if the path names another file than the open one: rotated, deleted, or not open yet."""
        if self._path is not None:
            try:
                found = os.stat(self._path)  # noqa: PTH116  # a microsecond; a Path costs three
            except FileNotFoundError:
                found = None
            except OSError as error:
                raise self._failure(error) from None
            if found is not None and (found.st_dev, found.st_ino) == self._identity:
                return
            if self._identity is not None:
                self._context.log.debug("the log file was moved or removed: opening it again", path=self._path)
        elif self._fd >= 0:
            return
        self._close()
        self._open()

    def _open(self) -> None:
        try:
            self._fd = self._open_path(self._path) if self._path else os.dup(DESCRIPTORS[self._where])
            status = os.fstat(self._fd)
            self._regular = stat.S_ISREG(status.st_mode)
            self._identity = (status.st_dev, status.st_ino)
            if self._path is not None and not self._regular:
                os.set_blocking(
                    self._fd, True
                )  # it was opened non-blocking, because opening a FIFO would block the event loop
            self._torn = self._regular and self._path is not None and _ends_torn(self._path, status.st_size)
        except OSError as error:
            self._close()
            raise self._failure(error) from None

    def _open_path(self, path: str) -> int:
        try:
            return open_trusted(path)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                Path(path).parent.mkdir(FOLDER_MODE)  # one level only: if more is missing, the path is probably wrong
            return open_trusted(path)

    def _close(self) -> None:
        fd, self._fd, self._identity = self._fd, -1, None
        if fd < 0:
            return
        if self._job is not None and not self._job.finished.is_set():
            self._job.orphaned = True  # a thread is writing to it
        else:
            os.close(fd)

    def _failure(self, error: OSError) -> TransientError | SinkError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno == errno.ENXIO:
            reason = "nothing reads from it"
        elif error.errno == errno.ENOENT:
            reason = "its folder does not exist"
        elif error.errno == errno.ELOOP:
            reason = "it is a symbolic link that somebody else could have made, or that leads in a circle"
        message = f"can't write {self._where}: {reason}"
        return SinkError(message) if error.errno in NOT_A_LOG else TransientError(message)

    # --- writing -------------------------------------------------------------------------------------------------

    def _encode(self, batch: Sequence[tuple[Event, LogOptions]]) -> tuple[bytes, int]:
        """Return the bytes of a batch, and how many of them end a torn line before it."""
        data = encode(batch)
        return (b"\n" + data, 1) if self._torn else (data, 0)

    def _write(self, batch: Sequence[tuple[Event, LogOptions]]) -> Sequence[Result]:
        """Write to a regular file, in the event loop."""
        data, lead = self._encode(batch)
        written, size = 0, len(data)
        try:
            written = os.write(self._fd, data)
            while written < size:
                written += os.write(self._fd, memoryview(data)[written:])
        except OSError as error:
            return self._results(self._clean_up(data, lead, written), len(batch), error)
        self._torn = False
        return self._results(len(batch), len(batch))

    def _results(self, whole: int, number: int, error: OSError | None = None) -> list[Result]:
        """Return the results of a batch whose first `whole` lines are written and whose others failed by `error`."""
        if error is None:
            return [self._answer] * number
        return [self._answer] * whole + [self._failure(error)] * (number - whole)

    def _clean_up(self, data: bytes, lead: int, written: int) -> int:
        """Clean up after an incomplete write: remove an incomplete line; return the number of complete lines."""
        if not written:
            return 0
        rest = written - (data.rfind(b"\n", 0, written) + 1)
        self._torn = rest > 0 and not (self._regular and self._take_back(rest))
        return data.count(b"\n", 0, written) - lead

    def _take_back(self, size: int) -> bool:
        """Cut the last `size` bytes off the file, unless another process has written after them."""
        try:
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if os.fstat(self._fd).st_size != end:
                return False
            os.ftruncate(self._fd, end - size)
            os.lseek(self._fd, end - size, os.SEEK_SET)
        except OSError:
            return False
        return True

    async def _hand_over(self, batch: Sequence[tuple[Event, LogOptions]]) -> Sequence[Result]:
        """Write in a thread, after the job of an interrupted delivery; events that this job wrote are not written again."""
        await self._settle()
        if not self._already:
            return await self._run(batch)
        done = [event.key in self._already for event, _ in batch]
        todo = [pair for pair, is_done in zip(batch, done, strict=True) if not is_done]
        results = iter(await self._run(todo) if todo else ())
        self._already.difference_update(event.key for event, _ in batch)
        return [self._answer if is_done else next(results) for is_done in done]

    async def _run(self, batch: Sequence[tuple[Event, LogOptions]]) -> Sequence[Result]:
        job = self._job = _Job(self._fd, *self._encode(batch), batch)
        try:
            await self._context.run_blocking(job.run)
        except BaseException:  # the delivery was cancelled or the thread pool closes; the job may go on nevertheless
            if job.abandon():
                self._job = None
            raise
        return self._results(self._end(job), len(batch), job.error)

    async def _settle(self) -> None:
        """Wait for a job whose delivery was interrupted, and remember which of its events it wrote."""
        job = self._job
        if job is None:
            return
        await job.finished.wait()
        whole = self._end(job)
        if len(self._already) > REMEMBERED:
            self._already.clear()
        self._already.update(event.key for event, _ in job.batch[:whole])

    def _end(self, job: _Job) -> int:
        """Forget the job; return how many of its events are written."""
        self._job = None
        if job.orphaned:
            return max(job.data.count(b"\n", 0, job.written) - job.lead, 0)
        if job.error is not None:
            return self._clean_up(job.data, job.lead, job.written)
        self._torn = False
        return len(job.batch)


def open_trusted(path: str) -> int:
    """Open a log file and return its descriptor; follow a link only if root, this user or the folder's owner made it.

    In a folder where everybody may make files, such as /tmp, another user could put a link to a file of ours at the path.
    Raises `OSError`, `ELOOP` for such a link. The rule is that of Linux's `fs.protected_symlinks`, which not every system
    has.
    """
    try:
        return os.open(path, OPEN | os.O_NOFOLLOW, FILE_MODE)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        link = os.lstat(path)
        if link.st_uid not in {0, os.geteuid(), Path(path).parent.stat().st_uid}:
            raise
    fd = os.open(path, OPEN, FILE_MODE)
    if not os.path.samestat(link, os.lstat(path)):  # the path was replaced by another link after the check
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return fd


def _ends_torn(path: str, size: int) -> bool:
    """Return True if the file's last line is incomplete, because an earlier process died or the disk was full."""
    if not size:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # the file is not readable for this user
    try:
        return os.pread(fd, 1, size - 1) not in {b"\n", b""}
    finally:
        os.close(fd)


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register the type `log`."""
    register("log", LogSink, options=LogOptions, queue="memory", concurrency=1)
