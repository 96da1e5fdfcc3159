"""The log sink: files: made, followed through rotation, and what a full disk leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import resource
import stat
import statistics
import subprocess
import threading
import time
from pathlib import Path

import pytest

from router.errors import SinkError, TransientError
from router.events import json_line
from tests.support.sinks import all_written, is_written, make_event, open_sink
from tests.support.users import NOBODY, as_root


def events(start: int, count: int = 1, size: int = 10):
    """Events numbered from `start`."""
    return [make_event({"n": n, "fill": "x" * size}, id=str(n)) for n in range(start, start + count)]


def numbers(*files: Path) -> list[int]:
    """The numbers of all events in the files; fails when a line is torn."""
    return [json.loads(line)["payload"]["n"] for file in files for line in file.read_bytes().splitlines()]


# --- making and opening --------------------------------------------------------------------------------------------


async def test_makes_the_file_and_its_folder(tmp_path):
    async with open_sink("log", {"path": "logs/audit.jsonl"}, base=tmp_path) as sink:
        assert await sink.deliver_batch(events(0, 2)) == [f"written to {tmp_path}/logs/audit.jsonl"] * 2
    assert numbers(tmp_path / "logs/audit.jsonl") == [0, 1]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o750 & ~umask
    assert stat.S_IMODE((tmp_path / "logs/audit.jsonl").stat().st_mode) == 0o640 & ~umask


@as_root
@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o755])
async def test_a_link_that_somebody_else_made_is_not_followed(tmp_path, mode):
    victim, shared = tmp_path / "victim", tmp_path / "shared"
    victim.write_bytes(b"precious\n")
    shared.mkdir()
    shared.chmod(mode)
    (shared / "audit.jsonl").symlink_to(victim)
    os.chown(shared / "audit.jsonl", NOBODY, NOBODY, follow_symlinks=False)
    # In a sticky folder the kernel may refuse it itself (fs.protected_symlinks).
    with pytest.raises((SinkError, TransientError), match=r"symbolic link that another user may have made|Permission"):
        async with open_sink("log", {"path": str(shared / "audit.jsonl")}):
            pass
    assert victim.read_bytes() == b"precious\n"


@pytest.mark.parametrize("mode", [0o1777, 0o755])
async def test_a_link_of_ours_is_followed(tmp_path, mode):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    (folder / "audit.jsonl").symlink_to(tmp_path / "real")
    async with open_sink("log", {"path": str(folder / "audit.jsonl")}) as sink:
        await sink.deliver_batch(events(0))
    assert numbers(tmp_path / "real") == [0]


@as_root
async def test_a_link_is_followed_in_the_folder_of_whoever_made_it(tmp_path):
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "real")
    os.chown(tmp_path, NOBODY, NOBODY)
    os.chown(tmp_path / "audit.jsonl", NOBODY, NOBODY, follow_symlinks=False)
    async with open_sink("log", {"path": str(tmp_path / "audit.jsonl")}) as sink:
        await sink.deliver_batch(events(0))
    assert numbers(tmp_path / "real") == [0]


async def test_appends_and_leaves_the_mode_alone(tmp_path):
    file = tmp_path / "audit.jsonl"
    file.write_bytes(json_line(events(7)[0]) + b"\n")
    file.chmod(0o600)
    async with open_sink("log", {"path": str(file)}, base="/nowhere") as sink:
        await sink.deliver_batch(events(8))
    assert numbers(file) == [7, 8]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_line_that_an_earlier_process_left_torn_does_not_glue(tmp_path):
    file = tmp_path / "audit.jsonl"
    file.write_bytes(b'{"id":"torn","pay')
    async with open_sink("log", {"path": str(file)}) as sink:
        await sink.deliver_batch(events(0))
        await sink.deliver_batch(events(1))
    torn, *rest = file.read_bytes().splitlines(keepends=True)
    assert torn == b'{"id":"torn","pay\n'
    assert [json.loads(line)["payload"]["n"] for line in rest] == [0, 1]


async def test_a_folder_that_is_missing_is_waited_for(tmp_path):
    path = tmp_path / "not" / "yet" / "audit.jsonl"
    with pytest.raises(TransientError, match=r"can't write .*audit\.jsonl: its folder does not exist"):
        async with open_sink("log", {"path": str(path)}):
            pass
    path.parent.parent.mkdir()
    async with open_sink("log", {"path": str(path)}) as sink:
        await sink.deliver_batch(events(0))
    assert numbers(path) == [0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to(path), "a circle of symbolic links"),
    ],
)
async def test_a_path_that_cannot_be_a_log_is_the_sinks_fault(tmp_path, make, says):
    make(tmp_path / "audit.jsonl")
    with pytest.raises(SinkError, match=says):
        async with open_sink("log", {"path": "audit.jsonl"}, base=tmp_path):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_no_right_to_write_is_transient(tmp_path):
    file = tmp_path / "audit.jsonl"
    file.touch(mode=0o400)
    with pytest.raises(TransientError, match="Permission denied"):
        async with open_sink("log", {"path": str(file)}):
            pass


async def test_an_error_of_the_system_is_transient(tmp_path, monkeypatch):
    async with open_sink("log", {"path": "audit.jsonl"}, base=tmp_path) as sink:
        (tmp_path / "audit.jsonl").unlink()

        def refuse(*_):
            raise PermissionError(errno.EACCES, "Permission denied")

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            with pytest.raises(TransientError, match="Permission denied"):
                await sink.deliver_batch(events(0))
        await sink.deliver_batch(events(0))
    assert numbers(tmp_path / "audit.jsonl") == [0]


# --- rotation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("create", [True, False])
async def test_follows_a_rename(tmp_path, create):
    file, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    async with open_sink("log", {"path": str(file)}) as sink:
        await sink.deliver_batch(events(0))
        file.rename(old)
        if create:
            file.touch()
        await sink.deliver_batch(events(1))
    assert (numbers(old), numbers(file)) == ([0], [1])


async def test_a_deleted_file_is_made_again(tmp_path):
    file = tmp_path / "audit.jsonl"
    async with open_sink("log", {"path": str(file)}) as sink:
        await sink.deliver_batch(events(0))
        file.unlink()
        await sink.deliver_batch(events(1))
    assert numbers(file) == [1]


async def test_a_truncated_file_goes_on_from_its_start(tmp_path):
    file = tmp_path / "audit.jsonl"
    async with open_sink("log", {"path": str(file)}) as sink:
        await sink.deliver_batch(events(0, 100))
        os.truncate(file, 0)
        await sink.deliver_batch(events(100))
    assert numbers(file) == [100]


async def test_rotation_under_load_loses_no_line(tmp_path):
    file = tmp_path / "audit.jsonl"
    stop = threading.Event()
    rotated: list[Path] = []

    def rotate() -> None:
        while not stop.wait(0.002):
            target = tmp_path / f"audit.{len(rotated):04}"
            with contextlib.suppress(FileNotFoundError):
                file.rename(target)
                rotated.append(target)
                if len(rotated) % 2:
                    with contextlib.suppress(FileExistsError):
                        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))

    took: list[float] = []
    async with open_sink("log", {"path": str(file)}) as sink:
        thread = threading.Thread(target=rotate)
        thread.start()
        sent = 0
        while len(rotated) < 50:
            began = time.perf_counter()
            assert all_written(await sink.deliver_batch(events(sent, 20)))
            took.append(time.perf_counter() - began)
            sent += 20
            await asyncio.sleep(0)
        stop.set()
        thread.join()
        await sink.deliver_batch(events(sent))
    assert sorted(numbers(*rotated, file)) == list(range(sent + 1))
    assert statistics.median(took) < 0.1, "most of them, for a busy machine stops any now and then"


async def test_copytruncate_and_deletion_under_load_tear_no_line(tmp_path):
    file = tmp_path / "audit.jsonl"
    stop = threading.Event()
    turns = 0

    def disturb() -> None:
        nonlocal turns
        while not stop.wait(0.002):
            turns += 1
            with contextlib.suppress(FileNotFoundError):
                if turns % 2:
                    os.truncate(file, 0)
                else:
                    file.unlink()

    async with open_sink("log", {"path": str(file)}) as sink:
        thread = threading.Thread(target=disturb)
        thread.start()
        while turns < 50:
            assert all_written(await sink.deliver_batch(events(0, 20)))
            await asyncio.sleep(0)
        stop.set()
        thread.join()
        file.unlink(missing_ok=True)
        await sink.deliver_batch(events(1))
    assert numbers(file) == [1]


async def test_two_writers_of_one_file_do_not_mix_their_lines(tmp_path):
    file = tmp_path / "audit.jsonl"
    async with open_sink("log", {"path": str(file)}) as one, open_sink("log", {"path": str(file)}) as two:
        for number in range(0, 200, 2):
            await one.deliver_batch(events(number))
            await two.deliver_batch(events(number + 1))
    assert numbers(file) == list(range(200))


# --- the disk is full ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def files_limited_to(size: int):
    """No file may grow over `size` bytes: what does not fit is cut, then refused, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def outcomes(results, batch):
    """The events of a batch that are written, and those that are not."""
    assert len(results) == len(batch)
    assert all(isinstance(result, TransientError) for result in results if not is_written(result))
    written = [event for event, result in zip(batch, results, strict=True) if is_written(result)]
    return written, [event for event, result in zip(batch, results, strict=True) if not is_written(result)]


@pytest.mark.parametrize("room", [0, 1, 150, 1000, 1001, 5000])
async def test_a_full_disk_tears_no_line_and_names_who_did_not_get_through(tmp_path, room):
    file = tmp_path / "audit.jsonl"
    batch = events(1, 100)
    async with open_sink("log", {"path": str(file)}) as sink:
        await sink.deliver_batch(events(0))
        with files_limited_to(file.stat().st_size + room):
            results = await sink.deliver_batch(batch)
        written, waiting = outcomes(results, batch)
        assert 0 < len(waiting) <= 100
        assert numbers(file) == list(range(len(written) + 1))
        assert "File too large" in str(results[-1])
        assert all_written(await sink.deliver_batch(waiting))
    assert numbers(file) == list(range(101))


async def test_a_line_torn_before_another_writers_is_ended(tmp_path, monkeypatch):
    """When somebody else has written behind the torn line it can't be cut off any more."""
    file = tmp_path / "audit.jsonl"
    batch = events(1, 3)
    real = os.write

    async with open_sink("log", {"path": str(file)}) as sink:
        size = len(json_line(batch[0])) + 1 + 20
        answers = iter([lambda fd, data: real(fd, data[:size]), None])

        def write(fd, data):
            answer = next(answers)
            if answer:
                return answer(fd, data)
            with file.open("ab") as other:
                other.write(json_line(events(99)[0]) + b"\n")
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", write)
            results = await sink.deliver_batch(batch)
        written, waiting = outcomes(results, batch)
        assert [event.id for event in written] == ["1"]
        assert all_written(await sink.deliver_batch(waiting))
    whole = [line for line in file.read_bytes().splitlines() if line.startswith(b'{"id"') and line.endswith(b"}}")]
    good = []
    for line in whole:
        with contextlib.suppress(ValueError):
            good.append(json.loads(line)["payload"]["n"])
    assert good == [1, 2, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
async def test_dev_full(tmp_path):
    async with open_sink("log", {"path": "/dev/full"}) as sink:
        results = await sink.deliver_batch(events(0, 3))
    assert [str(result) for result in results] == ["can't write /dev/full: No space left on device"] * 3


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip("no right to mount a file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_real_full_disk(small_disk):
    file, ballast = small_disk / "audit.jsonl", small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    waiting, sent = events(0, 200, size=100), 200
    async with open_sink("log", {"path": str(file)}) as sink:
        _, waiting = outcomes(await sink.deliver_batch(waiting), waiting)
        assert waiting
        again, waiting = outcomes(await sink.deliver_batch(waiting), waiting)
        assert len(again) < 20
        ballast.unlink()
        assert all_written(await sink.deliver_batch(waiting))
    assert numbers(file) == list(range(sent))
