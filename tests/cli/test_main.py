"""The top of the command line, as a process: help, version, usage errors, how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from router.cli.main import COMMANDS, cli, main
from router.version import __version__
from tests.support.process import COMMAND, environment, run
from tests.support.waiting import PATIENCE


def test_help_shows_the_four_groups_with_their_commands(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.code == 0
    places = [done.out.index(f"{group}:\n") for group in ("Try", "Operate", "Write", "Install")]
    assert places == sorted(places)
    for group in COMMANDS.values():
        for name, entry in group.items():
            assert f"  {name}" in done.out
            assert entry.help in " ".join(done.out.split())


def test_each_command_is_described_alike_in_both_helps():
    for group in COMMANDS.values():
        for name in group:
            command = cli.get_command(None, name)
            assert command.name == name
            own = (command.help or "").strip()
            assert own, name


@pytest.mark.parametrize("command", ["first_steps.run", "no-module"])
def test_structlog_is_imported_without_rich_which_can_be_imported_later(command):
    script = (
        "import contextlib, sys\nfrom router.cli import main\n"
        f"with contextlib.suppress(ImportError):\n    main._imported('router.cli.{command}')\n"
        "print('rich' in sys.modules, 'structlog' in sys.modules)\nimport rich.console\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == f"False {command != 'no-module'}\n"


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(tmp_path, flag):
    done = run(flag, cwd=tmp_path)
    assert (done.code, done.out) == (0, f"event-router {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["chekc"], "Did you mean 'check'?"),
        (["pubish", "a", "b"], "Did you mean 'publish'?"),
        (["frobnicate"], "The commands are init, demo, run, publish"),
        (["--verson"], "--version"),
        (["check", "--jsno"], "--json"),
        (["publish"], "Missing argument 'CHANNEL'"),
        (["run", "--deliver", "send"], "'print'"),
        (["run", "--instance", "a b"], "'a b' is not a valid name"),
        (["run", "--instance", "x" * 65], "is not a valid name"),
        (["run", "surplus"], "unexpected extra argument"),
        (["completion", "tcsh"], "'bash', 'zsh', 'fish'"),
    ],
)
def test_a_wrong_command_line_is_2_with_a_hint(tmp_path, arguments, hint):
    done = run(*arguments, cwd=tmp_path)
    assert done.code == 2
    assert hint in done.err
    assert done.out == ""


def test_no_arguments_show_the_help(tmp_path):
    done = run(cwd=tmp_path)
    assert done.code == 2
    assert "Try:" in done.out + done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(tmp_path, shell):
    done = run("completion", shell, cwd=tmp_path)
    assert done.code == 0
    assert "_EVENT_ROUTER_COMPLETE" in done.out


def test_the_shell_completes_commands_and_options(tmp_path):
    done = run(
        cwd=tmp_path,
        env={"_EVENT_ROUTER_COMPLETE": "bash_complete", "COMP_WORDS": "event-router ch", "COMP_CWORD": "1"},
    )
    assert done.out.splitlines() == ["plain,check"]
    done = run(
        cwd=tmp_path,
        env={"_EVENT_ROUTER_COMPLETE": "bash_complete", "COMP_WORDS": "event-router check --s", "COMP_CWORD": "2"},
    )
    assert done.out.splitlines() == ["plain,--strict"]
    done = run(
        cwd=tmp_path,
        env={"_EVENT_ROUTER_COMPLETE": "bash_complete", "COMP_WORDS": "event-router explain --f", "COMP_CWORD": "2"},
    )
    assert done.out.splitlines() == ["plain,--fails"]


@pytest.mark.parametrize("arguments", [["run"], ["check"], ["publish", "a", "{}"], ["config"]])
def test_without_a_configuration_every_place_is_named(tmp_path, arguments):
    if Path("/etc/event-router/config.yaml").exists():
        pytest.skip("this machine has one")
    done = run(*arguments, cwd=tmp_path)
    assert done.code == 78
    for place in ("$EVENT_ROUTER_CONFIG", str(tmp_path / "config.yaml"), "/etc/event-router/config.yaml", "-c FILE"):
        assert place in done.err


@pytest.mark.parametrize("arguments", [["plugins"], ["--help"], ["config", "schema"]])
def test_a_reader_that_goes_away_is_no_traceback(tmp_path, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_standard_stream_is_no_traceback(tmp_path, closed):
    """The descriptor is opened on /dev/null, so that no socket gets its number."""
    script = f"import os,sys; os.close({closed}); os.execv(sys.executable, [sys.executable, '-m', 'router.cli.main', '--help'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["config", "schema"]])
def test_a_full_disk_behind_stdout_is_told_in_a_line(tmp_path, arguments):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "event-router: can't write the output: No space left on device\n"


@pytest.mark.parametrize(
    "arguments",
    [["check", "FILE"], ["check", "-c", "FILE"], ["config", "-c", "FILE"], ["check", "GOOD", "--env-file", "FILE"]],
)
def test_a_file_that_may_not_be_read_is_a_fault_of_the_configuration(folder, monkeypatch, capsys, arguments):
    """And not a wrong command line, which is what click makes of it."""
    locked = folder / "locked"
    locked.write_text("")
    locked.chmod(0)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # no mode stops root
    names = {"FILE": str(locked), "GOOD": str(folder / "config.yaml")}
    with pytest.raises(SystemExit) as ended:
        main([names.get(word, word) for word in arguments])
    assert "Usage" not in capsys.readouterr().err
    assert ended.value.code != 2
