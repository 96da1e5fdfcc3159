"""The writer of lines to a file, a named pipe, stdout or stderr.

A batch is written with one call. Regular files are written in the event loop, because the page cache accepts a batch in
microseconds. Pipes, terminals and FIFOs are written in a thread, because a slow reader can block a write. After a
failed or interrupted write, the writer knows exactly how many bytes were written. So a retry writes only the missing
lines, and each line is in the file exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from router.api import Event, Result, SinkContext, SinkError, TransientError, escape

from .lines import encode
from .log_files import ends_torn, open_trusted
from .log_options import LogOptions
from .stream_job import StreamJob

FOLDER_MODE = 0o750
DESCRIPTORS = {"stdout": 1, "stderr": 2}

# Errors that a retry does not solve: the configured path can't be a log file.
NOT_A_LOG = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EBADF, errno.EINVAL})

REMEMBERED = 10_000
"""The largest number of remembered deliveries: those with a line that was written after their attempt was interrupted.
The retry of such a delivery succeeds without writing the line again."""


class LineWriter:
    """Writes lines to one file or stream."""

    _context: SinkContext

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._path: str | None = None
        self._where: str = options.target or ""
        self._answer = ""
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        self._regular = False
        self._torn = False  # True if the last line of the file is incomplete
        self._turn = asyncio.Lock()
        self._job: StreamJob | None = None  # the last job; the next delivery waits until this job has ended
        self._already: set[str] = set()  # the keys of deliveries that a job wrote after their attempt was interrupted

    async def open(self, context: SinkContext) -> None:
        """Open the file or stream.

        Raises `TransientError` if the folder, the right to write or the reader of a pipe is missing. Raises `SinkError`
        if the path can't be a log file.
        """
        self._context = context
        if self._options.path is not None:
            self._path = self._where = str(Path(context.base, self._options.path))
        self._answer = f"written to {escape(self._where)}"
        if self._fd < 0:
            self._open()

    async def deliver_batch(self, batch: Sequence[tuple[Event, LogOptions]]) -> Sequence[Result]:
        """Write the lines of a batch with one call. For each event, return the text `written to PATH`, or the error."""
        self._follow()
        if self._regular:
            return self._write(batch)
        async with self._turn:
            return await self._write_in_thread(batch)

    async def close(self) -> None:
        """Close the file. There is no buffer to flush."""
        self._close()

    # --- opening and following -----------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Open the file if the path does not name the open file.

        This is the case before the first line, and after the file was rotated or deleted.
        """
        if self._path is not None:
            try:
                found = os.stat(self._path)  # noqa: PTH116  # takes 1 µs; `Path.stat` takes 3 µs
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
            self._torn = self._regular and self._path is not None and ends_torn(self._path, status.st_size)
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
            self._job.orphaned = True  # a thread still writes to the file, so the job closes the file at its end
        else:
            os.close(fd)

    def _failure(self, error: OSError) -> TransientError | SinkError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno == errno.ENXIO:
            reason = "nothing reads from it"
        elif error.errno == errno.ENOENT:
            reason = "its folder does not exist"
        elif error.errno == errno.ELOOP:
            reason = "it is a symbolic link that another user may have made, or a circle of symbolic links"
        message = f"can't write {self._where}: {reason}"
        return SinkError(message) if error.errno in NOT_A_LOG else TransientError(message)

    # --- writing -------------------------------------------------------------------------------------------------

    def _encode(self, batch: Sequence[tuple[Event, LogOptions]]) -> tuple[bytes, int]:
        """Return the bytes to write for a batch, and the number of bytes before the first line of the batch.

        This number is 1 if the file ends with an incomplete line, which a newline ends. Otherwise, it is 0.
        """
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
        """Return the results of a batch: the first `whole` lines are written, the others failed with `error`."""
        if error is None:
            return [self._answer] * number
        return [self._answer] * whole + [self._failure(error)] * (number - whole)

    def _clean_up(self, data: bytes, lead: int, written: int) -> int:
        """Remove the incomplete line that an incomplete write left.

        Return the number of complete lines of the batch.
        """
        if not written:
            return 0
        rest = written - (data.rfind(b"\n", 0, written) + 1)
        self._torn = rest > 0 and not (self._regular and self._cut_off(rest))
        return data.count(b"\n", 0, written) - lead

    def _cut_off(self, size: int) -> bool:
        """Cut the last `size` bytes off the file, unless another process has written after them.

        Return True if done.
        """
        try:
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if os.fstat(self._fd).st_size != end:
                return False
            os.ftruncate(self._fd, end - size)
            os.lseek(self._fd, end - size, os.SEEK_SET)
        except OSError:
            return False
        return True

    async def _write_in_thread(self, batch: Sequence[tuple[Event, LogOptions]]) -> Sequence[Result]:
        """Write a batch in a thread, after the job of an interrupted delivery has ended.

        Events that the earlier job has written are not written again.
        """
        await self._await_last_job()
        if not self._already:
            return await self._run(batch)
        done = [event.key in self._already for event, _ in batch]
        todo = [pair for pair, is_done in zip(batch, done, strict=True) if not is_done]
        results = iter(await self._run(todo) if todo else ())
        self._already.difference_update(event.key for event, _ in batch)
        return [self._answer if is_done else next(results) for is_done in done]

    async def _run(self, batch: Sequence[tuple[Event, LogOptions]]) -> Sequence[Result]:
        job = self._job = StreamJob(self._fd, *self._encode(batch), batch)
        try:
            await self._context.run_blocking(job.run)
        except BaseException:  # the delivery was cancelled or the thread pool closes; the job may go on nevertheless
            if job.abandon():
                self._job = None
            raise
        return self._results(self._end(job), len(batch), job.error)

    async def _await_last_job(self) -> None:
        """Wait for the job of an interrupted delivery, if there is one. Remember which of its events are written."""
        job = self._job
        if job is None:
            return
        await job.finished.wait()
        whole = self._end(job)
        if len(self._already) > REMEMBERED:
            self._already.clear()
        self._already.update(event.key for event, _ in job.batch[:whole])

    def _end(self, job: StreamJob) -> int:
        """Forget the job; return how many of its events are written."""
        self._job = None
        if job.orphaned:
            return max(job.data.count(b"\n", 0, job.written) - job.lead, 0)
        if job.error is not None:
            return self._clean_up(job.data, job.lead, job.written)
        self._torn = False
        return len(job.batch)
