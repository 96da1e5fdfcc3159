"""Named pipes, devices and files without end in the place of every file that a configuration names."""

import os
import socket
import subprocess
import threading

import pytest

from router import files
from router.errors import ConfigError
from router.files import STDIN, UnreadableError, read_file
from router.ops.loading import load
from router.plugin_loading.plugin_manager import load_plugins
from tests.support.process import COMMAND, environment, run

pytestmark = pytest.mark.timeout(60)

CONFIG = """\
version: 1
include: more.yaml
sources:
  web: {type: pubsub, channels: [a]}
schemas:
  - {channels: [a], file: schema.json}
sinks:
  audit: {type: log, path: audit.jsonl, template: {file: line.txt}}
  chat: {type: chat, service: slack, url: "https://hooks.example.org/${file:token}${cred:key}", text: hello}
routes:
  - {id: all, sinks: [audit, chat]}
"""
FILES = {
    "config.yaml": CONFIG,
    "more.yaml": "timezone: UTC\n",
    "variables.env": "A=b\n",
    "schema.json": '{"$ref": "other.json"}',
    "other.json": "{}",
    "line.txt": "{% include 'part.txt' %}",
    "part.txt": "x",
    "token": "abc",
    "credentials/key": "def",
}
KINDS = ("a pipe", "zeros", "a circle", "a file without end")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "credentials").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def put(kind, file):
    """Put something that can't be read to an end in the place of the file."""
    file.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(file)
    elif kind == "zeros":
        file.symlink_to("/dev/zero")
    elif kind == "a circle":
        file.symlink_to(file)
    else:
        with file.open("wb") as stream:
            stream.truncate(10 * 1024**4)  # takes no room on the disk


def loaded(folder):
    environ = {"CREDENTIALS_DIRECTORY": str(folder / "credentials")}
    return load(folder / "config.yaml", environ=environ, env_file=folder / "variables.env")


def test_all_of_them_can_be_read(folder):
    assert {file.name for file in loaded(folder).files} >= {name.rpartition("/")[2] for name in FILES}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_has_no_end_is_a_fault_at_the_place_that_names_it(folder, name, kind):
    put(kind, folder / name)
    with pytest.raises(ConfigError) as raised:
        loaded(folder)
    said = "\n".join(problem.message for problem in raised.value.problems)
    outside = (
        "the folder of the" if name in {"other.json", "part.txt"} else "this is not a file"
    )  # where the link leads
    told = {"a pipe": "this is a pipe, not a file", "zeros": outside, "a file without end": "larger than"}
    assert told.get(kind, "") in said
    assert name.rpartition("/")[2] in f"{said} config.yaml variables.env"


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_that_has_no_end_harms_itself_alone(folder, kind):
    put(kind, folder / "endless.py")
    (folder / "empty.py").write_text("")
    found = {plugin.name: plugin for plugin in load_plugins([folder], entry_points=False).loaded}
    assert found["endless"].error
    assert "empty" in found
    assert found["log"].error is None


def test_a_socket_is_not_a_file(short_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(short_path / "s"))
        with pytest.raises(UnreadableError, match="this is not a file"):
            read_file(short_path / "s")


def test_as_much_as_is_allowed_can_be_read(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"x" * 2**20)
    assert len(read_file(file, most=2**20)) == 2**20
    file.write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(UnreadableError, match="larger than 1 MiB"):
        read_file(file, most=2**20)


# Pipes, for commands that read once.


def writing(file, *parts):
    """A thread that writes into a named pipe, part by part, and closes it."""

    def work():
        with file.open("wb", buffering=0) as stream:
            for part in parts:
                stream.write(part)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_pipe_is_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "p")
    writer = writing(tmp_path / "p", b"a" * 100_000, b"b")
    assert read_file(tmp_path / "p", pipes=True) == b"a" * 100_000 + b"b"
    writer.join()


@pytest.mark.parametrize("opened", [False, True], ids=["nobody writes", "the writer does not finish"])
def test_a_pipe_without_an_end_is_given_up(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "p")
    writer = os.open(tmp_path / "p", os.O_RDWR) if opened else None
    if writer is not None:
        os.write(writer, b"version: 1\n")
    with pytest.raises(UnreadableError, match="its writer did not close it within"):
        read_file(tmp_path / "p", pipes=True)
    if writer is not None:
        os.close(writer)


def test_a_pipe_without_a_bound_is_given_up(tmp_path):
    os.mkfifo(tmp_path / "p")
    held = os.open(tmp_path / "p", os.O_RDWR)
    os.write(held, b"x" * 10_000)
    with pytest.raises(UnreadableError, match="larger than"):
        read_file(tmp_path / "p", most=9_999, pipes=True)
    os.close(held)


def test_a_pipe_is_refused_where_the_file_is_read_again(tmp_path):
    os.mkfifo(tmp_path / "p")
    with pytest.raises(UnreadableError, match="this is a pipe, not a file"):
        read_file(tmp_path / "p")
    with pytest.raises(UnreadableError, match="there is no such file"):
        read_file(STDIN)


SMALL = (
    'version: 1\nsources: {web: {type: pubsub, channels: ["${CHANNEL:-a}"]}}\nsinks: {audit: {type: log, path: x}}\n'
)
SMALL += "routes: [{id: all, sinks: [audit]}]\n"


def test_a_command_that_reads_once_takes_standard_input(tmp_path):
    done = run("check", "-", cwd=tmp_path, stdin=SMALL)
    assert done.code == 0, done.out
    assert "web: pubsub, a" in done.out
    done = run("config", "-c", "-", cwd=tmp_path, stdin=SMALL)
    assert "channels:\n    - ${CHANNEL:-a}" in done.out
    (tmp_path / "config.yaml").write_text(SMALL)
    done = run("check", "--env-file", "-", cwd=tmp_path, stdin="CHANNEL=from-stdin\n")
    assert "web: pubsub, from-stdin" in done.out


def test_a_command_that_reads_once_takes_a_named_pipe(tmp_path):
    os.mkfifo(tmp_path / "p")
    writing(tmp_path / "p", SMALL.encode())
    assert run("check", "p", cwd=tmp_path).code == 0


@pytest.mark.parametrize(
    ("arguments", "code"), [(("check", "p"), 78), (("status", "-c", "p"), 78), (("check", "--env-file", "p"), 78)]
)
def test_a_command_gives_up_a_pipe_that_nobody_writes_into(tmp_path, arguments, code):
    os.mkfifo(tmp_path / "p")
    (tmp_path / "config.yaml").write_text(SMALL)
    done = run(*arguments, cwd=tmp_path)
    assert done.code == code
    assert "this is a pipe, and its writer did not close it within 5 s" in done.out + done.err


@pytest.mark.parametrize("name", ["p", "/dev/zero", "-"])
def test_the_daemon_takes_a_regular_file_alone(tmp_path, name):
    os.mkfifo(tmp_path / "p")
    done = run("run", "-c", name, cwd=tmp_path, stdin=SMALL)
    assert done.code == 78
    assert f"can't read {name}: " in done.err


def test_zeros_without_end_on_standard_input_are_given_up(tmp_path):
    with open("/dev/zero", "rb") as zeros:  # noqa: PTH123  # a device
        words = [*COMMAND, "check", "-"]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment(tmp_path), stdin=zeros, capture_output=True, check=False
        )
    assert done.returncode == 78
    assert b"larger than 4 MiB" in done.stdout
