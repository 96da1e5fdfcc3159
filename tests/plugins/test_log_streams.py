"""The log sink: what a reader can hold up: FIFOs, pipes, stdout and stderr."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import struct
import termios
import threading
from collections import Counter
from pathlib import Path

import pytest

from router.errors import SinkError, TransientError
from tests.support.sinks import all_written, is_written, make_event, open_sink, plugin_module
from tests.support.waiting import PATIENCE, stays, until


def events(start: int, count: int = 1, size: int = 100):
    """Events numbered from `start`."""
    return [make_event({"n": n, "fill": "x" * size}, id=str(n)) for n in range(start, start + count)]


def numbers(content: bytes) -> list[int]:
    """The numbers of the events; fails when a line is torn."""
    return [json.loads(line)["payload"]["n"] for line in content.splitlines() if line]


@pytest.fixture
def fifo(tmp_path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def waiting_in(fd: int) -> int:
    """How many bytes a pipe holds."""
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0]


class Reader:
    """Reads a descriptor in a thread, once it is told to go."""

    def __init__(self, fd: int) -> None:
        self.content = b""
        self.go = threading.Event()
        self._fd = fd
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        self.go.wait()
        while chunk := os.read(self._fd, 1000):
            self.content += chunk

    def result(self) -> bytes:
        self.go.set()
        self._thread.join(PATIENCE)
        os.close(self._fd)
        return self.content


def reader_of(path: Path) -> Reader:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(fd, True)
    return Reader(fd)


async def test_a_fifo_that_nobody_reads_is_transient_and_does_not_hang(fifo):
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TransientError, match="nothing reads from it"):
            async with open_sink("log", {"path": str(fifo)}):
                pass


async def test_a_slow_reader_never_blocks_the_loop(fifo):
    reader = reader_of(fifo)
    async with open_sink("log", {"path": str(fifo)}) as sink:
        batch = events(0, 5000)  # ten times what a pipe holds
        task = asyncio.create_task(sink.deliver_batch(batch))
        await stays(lambda: not task.done(), 0.05)
        reader.go.set()
        assert all_written(await task)
    assert numbers(reader.result()) == list(range(5000))


async def test_attempts_that_ran_out_of_time_repeat_no_line(fifo):
    reader = reader_of(fifo)
    async with open_sink("log", {"path": str(fifo)}) as sink:
        batch = events(0, 2000)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await sink.deliver_batch(batch)
        reader.go.set()
        assert all_written(await sink.deliver_batch(batch[:1500]))
        assert all_written(await sink.deliver_batch([*batch[1500:], *events(2000, 10)]))
    found = numbers(reader.result())
    assert Counter(found) == Counter(range(2010))
    assert found == sorted(found)


async def test_closing_while_the_reader_hangs_does_not_hang(fifo):
    reader = reader_of(fifo)
    async with asyncio.timeout(PATIENCE), open_sink("log", {"path": str(fifo)}) as sink:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await sink.deliver_batch(events(0, 2000))
    reader.go.set()
    await until(lambda: len(reader.content) > 100_000 and reader.content.endswith(b"\n"))
    assert numbers(reader.result()) == list(range(2000))  # ends, because the thread has closed its side


async def test_a_reader_that_leaves_is_transient_and_the_next_one_gets_whole_lines(fifo):
    first = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    async with open_sink("log", {"path": str(fifo)}) as sink:
        assert all_written(await sink.deliver_batch(events(0)))
        task = asyncio.create_task(sink.deliver_batch(events(1, 2000)))
        await until(lambda: waiting_in(first) > 60_000)
        seen = os.read(first, 65536)
        os.close(first)
        results = await task
        assert isinstance(results[-1], TransientError)
        assert "Broken pipe" in str(results[-1])
        waiting = [event for event, result in zip(events(1, 2000), results, strict=True) if not is_written(result)]
        second = reader_of(fifo)
        second.go.set()
        assert all_written(await sink.deliver_batch(waiting))
    whole = [line for line in (seen + second.result()).splitlines() if line.startswith(b"{") and line.endswith(b"}}")]
    assert Counter(numbers(b"\n".join(whole))) == Counter(range(2001))


@pytest.mark.parametrize("target", ["stdout", "stderr"])
async def test_writes_to_the_streams_of_the_process(target, capfd):
    async with open_sink("log", {"target": target, "template": "{{ payload.n }}"}) as sink:
        assert all_written(await sink.deliver_batch(events(1, 3)))
    assert getattr(capfd.readouterr(), target[3:] and target.replace("std", "")) == "1\n2\n3\n"
    os.fstat({"stdout": 1, "stderr": 2}[target])  # closing the sink leaves the stream open


def descriptors() -> dict[str, int]:
    """The table by which the sink finds stdout and stderr."""
    return plugin_module("log").LineWriter.__init__.__globals__["DESCRIPTORS"]


@pytest.fixture
def stdout_pipe(monkeypatch):
    """Stdout is a pipe; gives its reading end."""
    reading, writing = os.pipe()
    monkeypatch.setitem(descriptors(), "stdout", writing)
    yield reading
    os.close(writing)


async def test_stdout_whose_reader_went_away_is_transient(stdout_pipe):
    os.close(stdout_pipe)
    async with open_sink("log", {"target": "stdout"}) as sink:
        results = await sink.deliver_batch(events(0, 2))
    assert [str(result) for result in results] == ["can't write stdout: Broken pipe"] * 2
    assert all(isinstance(result, TransientError) for result in results)


async def test_a_non_blocking_stdout_gets_everything(stdout_pipe):
    reader = Reader(stdout_pipe)
    os.set_blocking(descriptors()["stdout"], False)
    async with open_sink("log", {"target": "stdout"}) as sink:
        task = asyncio.create_task(sink.deliver_batch(events(0, 2000)))
        await stays(lambda: not task.done(), 0.02)
        reader.go.set()
        assert all_written(await task)
        await until(lambda: reader.content.endswith(b"\n") and reader.content.count(b"\n") == 2000)
    assert numbers(reader.content) == list(range(2000))


async def test_a_closed_stdout_is_the_sinks_fault(monkeypatch):
    monkeypatch.setitem(descriptors(), "stdout", 999_999)
    with pytest.raises(SinkError, match="Bad file descriptor"):
        async with open_sink("log", {"target": "stdout"}):
            pass
