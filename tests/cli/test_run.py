"""`event-router run` as a process: readiness, what it says and where, its exit codes, and the embedded server."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import redis

from tests.support.process import COMMAND, ROOT, Process, environment, run
from tests.support.redis import RedisServer
from tests.support.waiting import PATIENCE, block, looks, wait_until

GOOD = '{"user_id": 42, "message": "Your order is on its way!"}'


@pytest.fixture
def env(server):
    return {"REDIS_URL": server.url}


@pytest.fixture
def example(tmp_path):
    """The example configuration in a folder of its own, with an embedded server of its own.

    That takes port 6379 if it is free, so the tests that look at ports take turns.
    """
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    shutil.copy(ROOT / "config.example.yaml", tmp_path)
    with (Path(tempfile.gettempdir()) / f"event-router-tests-6379-{os.geteuid()}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield tmp_path


def closing_line(process):
    (line,) = [line for line in process.err.splitlines() if '"event":"stopped"' in line]
    return json.loads(line)


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def test_from_publish_to_the_line_of_the_log_sink(folder, server, env):
    with Process("run", cwd=folder, env=env, notify=True) as daemon:
        daemon.wait_ready()
        assert server.do("PUBLISH", "notification", GOOD) == 1
        server.do("PUBLISH", "notification", '{"user_id": "42"}')
        wait_until(lambda: lines_of(folder / "audit.jsonl"), "the line")
        daemon.wait_for("event rejected")
        assert daemon.stop() == 0
        closing = closing_line(daemon)
    (line,) = lines_of(folder / "audit.jsonl")
    document = json.loads(line)
    assert list(document) == ["id", "source", "channel", "pattern", "received_at", "route", "payload"]
    assert document["payload"] == json.loads(GOOD)
    assert (document["source"], document["channel"], document["route"]) == ("web-app", "notification", "everything")
    assert (closing["received"], closing["rejected"], closing["delivered"]) == (2, {"schema": 1}, 1)
    assert (closing["unmatched"], closing["dropped"], closing["suppressed"], closing["gaps"]) == (0, {}, {}, 0)
    assert server.do("XLEN", "{event-router}:dead") == 1


def test_the_service_manager_hears_ready_status_and_stopping(folder, env):
    with Process("run", cwd=folder, env=env, notify=True) as daemon:
        daemon.wait_ready()
        daemon.stop()
        messages = daemon.notify.messages
    kinds = [message.split("=")[0] for message in messages]
    assert kinds.index("READY") < kinds.index("STOPPING")
    assert any("STATUS=" in message for message in messages if message.startswith("READY=1"))


def test_ctrl_c_is_130_without_a_traceback(folder, env):
    with Process("run", cwd=folder, env=env, notify=True) as daemon:
        daemon.wait_ready()
        daemon.signal(signal.SIGINT)
        assert daemon.wait() == 130
        assert "Traceback" not in daemon.err
        assert closing_line(daemon)["received"] == 0


def test_stdout_has_data_alone_and_stderr_json_lines(folder, server, env):
    with Process("run", "--deliver", "print", cwd=folder, env=env, notify=True) as daemon:
        daemon.wait_ready()
        server.do("PUBLISH", "notification", "{no json \x1b[2J")
        daemon.wait_for("dead letter", stream="out")
        daemon.stop()
        assert "ready" not in daemon.out
        assert "\x1b" not in daemon.out
        for line in daemon.err.splitlines():
            assert json.loads(line)["level"]
    assert server.do("EXISTS", "{event-router}:dead") == 0


def test_a_second_run_under_the_same_name_is_78(folder, env):
    with Process("run", cwd=folder, env=env, notify=True) as first:
        first.wait_ready()
        second = run("run", cwd=folder, env=env)
        assert second.code == 78
        assert "--instance" in second.err
        assert str(first.pid) in second.err
        with Process("run", "--instance", "other", cwd=folder, env=env, notify=True) as third:
            third.wait_ready()
            assert third.stop() == 0
        assert first.stop() == 0


def test_the_name_may_come_from_the_environment(folder, env):
    with Process("run", cwd=folder, env=env | {"EVENT_ROUTER_INSTANCE": "blue"}, notify=True) as daemon:
        daemon.wait_ready()
        assert (folder / "state" / "event-router" / "blue.lock").exists()


def test_no_redis_is_69_within_connect_timeout(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace('"${REDIS_URL}"', '"${REDIS_URL}", connect_timeout: 1s'))
    done = run("run", cwd=folder, env={"REDIS_URL": "redis://:s3cret@127.0.0.1:1"})
    assert done.code == 69
    assert re.search(r"redis://127\.0\.0\.1:1: connection refused .*tried for 1 s", done.err)
    assert done.err.count("Redis has not been reached yet; the router keeps trying") == 1
    assert "s3cret" not in done.err


def test_under_a_service_manager_it_waits_for_redis(folder, tmp_path_factory):
    late = RedisServer("valkey", tmp_path_factory.mktemp("late")).start()
    late.stop()
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace('"${REDIS_URL}"', '"${REDIS_URL}", connect_timeout: 100ms'))
    try:
        with Process("run", cwd=folder, env={"REDIS_URL": late.url}, notify=True) as daemon:
            wait_until(lambda: any("EXTEND_TIMEOUT_USEC" in each for each in daemon.notify.messages), "patience")
            assert daemon.running
            late.start()
            daemon.wait_ready()
            assert daemon.stop() == 0
    finally:
        late.kill()


def test_a_wrong_password_is_78_and_not_shown(folder, tmp_path_factory):
    guarded = RedisServer("valkey", tmp_path_factory.mktemp("guarded"), options={"requirepass": "right"}).start()
    try:
        url = f"redis://:wrong-password@127.0.0.1:{guarded.port}"
        done = run("run", cwd=folder, env={"REDIS_URL": url})
    finally:
        guarded.kill()
    assert done.code == 78
    assert "wrong-password" not in done.err + done.out


@pytest.mark.parametrize("url", ["${REDIS_URL:-embedded}", None])
def test_a_forgotten_redis_url_under_a_service_manager_is_78(folder, url):
    text = (folder / "config.yaml").read_text()
    line = 'redis: {url: "${REDIS_URL}"}\n'
    (folder / "config.yaml").write_text(text.replace(line, f'redis: {{url: "{url}"}}\n' if url else ""))
    done = run("run", cwd=folder, env={"NOTIFY_SOCKET": str(folder / "nobody.sock")})
    assert done.code == 78
    assert "REDIS_URL" in done.err


def test_embedded_in_so_many_words_is_meant(example):
    text = (example / "config.example.yaml").read_text()
    (example / "config.yaml").write_text(text + "redis: {url: embedded}\n")
    with Process("run", cwd=example, notify=True) as daemon:
        daemon.wait_ready()
        assert daemon.stop() == 0


def test_faults_of_the_configuration_are_78_on_stderr(folder):
    (folder / "config.yaml").write_text("version: 1\nsources: {web: {type: pubsub, chanels: [a]}}\n")
    done = run("run", cwd=folder)
    assert done.code == 78
    assert 'config.yaml:2:31: sources.web.chanels: unknown key "chanels"' in done.err
    assert done.out == ""


def test_secrets_stay_out_of_the_log(folder, server):
    """A plugin that logs the token it was given, by stdlib logging and in an exception."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / "leaky.py").write_text(
        "import logging\n"
        "from router.api import PermanentError, Secret, SinkOptions, hookimpl\n"
        "class Options(SinkOptions):\n"
        "    token: Secret\n"
        "async def leaky(event, options):\n"
        "    logging.getLogger('leaky').warning('using %s', options.token.get_secret_value())\n"
        "    raise PermanentError('no ' + options.token.get_secret_value())\n"
        "@hookimpl\n"
        "def register_sinks(register):\n"
        "    register('leaky', leaky, options=Options)\n"
    )
    text = (folder / "config.yaml").read_text()
    text = text.replace("sinks:\n", "sinks:\n  leak: {type: leaky, token: '${TOKEN}'}\n", 1)
    (folder / "config.yaml").write_text(text.replace("sinks: [audit]", "sinks: [audit, leak]"))
    env = {"REDIS_URL": server.url, "TOKEN": "s3cret-token-value"}
    with Process("run", "--log-level", "debug", cwd=folder, env=env, notify=True) as daemon:
        daemon.wait_ready()
        server.do("PUBLISH", "notification", GOOD)
        daemon.wait_for("using ")
        daemon.wait_for("delivery given up")
        daemon.stop()
        assert "s3cret-token-value" not in daemon.err + daemon.out
        assert "using ***" in daemon.err


# The embedded server.


def address(daemon):
    found = daemon.wait_for(r"listens at redis://127\.0\.0\.1:(\d+)")
    daemon.wait_for("Press Ctrl-C")
    return int(found[1])


def shown_in_the_readme():
    """The lines that the README shows for `make run`, without the command itself and the paths of commands."""
    _, _, after = (ROOT / "README.md").read_text().partition("$ make run\n")
    return [line.replace(".venv/bin/event-router ", "").strip() for line in after.partition("```")[0].splitlines()]


def test_the_example_runs_with_a_redis_of_its_own_and_prints_a_line_to_paste(example):
    with Process("run", "-c", "config.example.yaml", cwd=example) as daemon:
        port = address(daemon)
        assert f"redis-cli -p {port} publish notification '{GOOD}'" in daemon.err
        assert f"publish -c config.example.yaml notification '{GOOD}'" in daemon.err
        for line in shown_in_the_readme():
            assert line in re.sub(rf"\b{port}\b", "6379", daemon.err)
        with redis.Redis(port=port) as client:
            assert client.publish("notification", GOOD) == 1
        shown = daemon.wait_for("user-chat.*", stream="out")[0]
        assert "42" in shown
        assert "Your order is on its way!" in shown
        wait_until(lambda: lines_of(example / "audit.jsonl"), "the audit line")
        with redis.Redis(port=port) as client:
            assert client.keys("*") == []
        assert daemon.stop() == 0
    with pytest.raises(redis.ConnectionError), redis.Redis(port=port) as client:
        client.ping()


def test_publish_finds_the_embedded_server(example):
    with Process("run", "-c", "config.example.yaml", cwd=example) as daemon:
        address(daemon)
        done = run("publish", "-c", "config.example.yaml", "notification", GOOD, cwd=example)
        assert done.code == 0, done.err
        assert "1 subscriber received it" in done.out
        daemon.wait_for("Your order", stream="out")


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        ("", "REDIS_URL"),
        ('redis: {url: "${REDIS_URL:-embedded}"}', "REDIS_URL"),
        ('redis: {url: "${QUEUES:-embedded}"}', "QUEUES"),
    ],
)
def test_another_redis_on_6379_is_said_and_the_printed_cure_listens_to_it(example, line, variable):
    with (example / "config.example.yaml").open("a") as file:
        file.write(line + "\n")
    started = redis_on_6379(example / "foreign")
    try:
        with Process("run", "-c", "config.example.yaml", cwd=example) as daemon:
            assert address(daemon) != 6379
            assert "another Redis server runs on port 6379" in daemon.err
            cure = daemon.wait_for(rf"to use it: {variable}=(\S+) {re.escape(' '.join(COMMAND))} (.*)")
        with Process(*cure[2].split(), cwd=example, env={variable: cure[1]}, notify=True) as daemon:
            daemon.wait_ready()
            daemon.wait_for(r'"redis":"redis://127\.0\.0\.1:6379"')
            if started:
                started.do("PUBLISH", "notification", GOOD)
                wait_until(lambda: lines_of(example / "audit.jsonl"), "the line")
    finally:
        if started:
            started.kill()


def redis_on_6379(folder):
    """A server of the test's own on port 6379; None if another Redis keeps the port, as on a developer's machine.

    The embedded server of another test, or of another run of the suite, soon gives it back.
    """
    for pause in looks(20.0):
        if not port_answers(6379):
            server = RedisServer("valkey", folder)
            server.port = 6379
            with contextlib.suppress(RuntimeError):
                return server.start()
        block(pause)
    if not port_answers(6379):
        pytest.skip("port 6379 can't be had")
    return None


def port_answers(port):
    try:
        with redis.Redis(port=port, socket_timeout=1) as client:
            return client.ping()
    except redis.RedisError:
        return False


def test_a_killed_router_leaves_its_server_to_the_next(example):
    with Process("run", "-c", "config.example.yaml", cwd=example) as first:
        port = address(first)
        first.signal(signal.SIGKILL)
        first.wait()
    with Process("run", "-c", "config.example.yaml", cwd=example) as second:
        assert address(second) == port
        assert second.stop() == 0
    assert not port_answers(port)


def test_ctrl_c_while_it_starts_leaves_nothing_behind(example):
    folder = example / "state" / "event-router" / "embedded"
    with Process("run", "-c", "config.example.yaml", cwd=example) as daemon:
        wait_until((folder / "server.lock").exists, "the start of the embedded server")
        daemon.signal(signal.SIGINT)
        assert daemon.wait() == 130
        assert "Traceback" not in daemon.err
    left = [each for each in Path("/proc").glob("[0-9]*/cwd") if points_at(each, folder)]
    assert left == []


def points_at(link, folder):
    try:
        return link.readlink() == folder
    except OSError:  # another's process, or one that has just ended
        return False


def test_on_a_terminal_it_speaks_to_people(example):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", "-c", "config.example.yaml"],
        cwd=example,
        env=environment(example, {"NO_COLOR": "1", "TERM": "xterm"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = ""
    deadline = time.monotonic() + PATIENCE
    try:
        while "Press Ctrl-C" not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 65536).decode()
    finally:
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([ours], [], [], 0.1)[0]:
                with_output(ours)
        os.close(ours)
    assert process.returncode == 130
    assert "[info     ] ready" in seen
    assert '{"timestamp"' not in seen
    assert "\x1b[" not in seen


def with_output(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def test_a_reader_of_stdout_that_goes_away_does_not_end_the_daemon(folder, server, env):
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [*COMMAND, "run", "--deliver", "print"],
        cwd=folder,
        env=environment(folder, env),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writer)
        wait_until(lambda: server.subscribers("notification") == 1, "the subscription")
        server.do("PUBLISH", "notification", GOOD)
        server.do("PUBLISH", "notification", "{no json")
        wait_until(lambda: lines_of(folder / "audit.jsonl"), "the audit line")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Traceback" not in err
