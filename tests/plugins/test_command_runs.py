"""The command sink runs real programs: what they get, what their ends mean, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.errors import PermanentError, SinkError, TransientError
from router.events import json_line
from tests.support.engine import SteppedClock, bench
from tests.support.engine import make_event as engine_event
from tests.support.programs import children, is_alive, numbers, zombies
from tests.support.sinks import FakeContext, make_event, open_sink, plugin_module, sink_type, validate
from tests.support.waiting import PATIENCE, until

LARGE = "x" * 4_000_000


@pytest.fixture(autouse=True)
async def no_zombies():
    """No program of a test stays in the table of processes; children of other tests may."""
    before = children().keys()
    yield
    await until(lambda: not zombies() - before, "for all programs to be waited for")


async def end_of(values, event=None):
    """What becomes of one delivery: the answer, or the error."""
    async with open_sink("command", values) as sink:
        try:
            return await sink.deliver(make_event({"user": "Jane"}) if event is None else event)
        except (PermanentError, SinkError, TransientError) as error:
            return type(error), str(error)


def sh(text, *arguments, **more):
    return {"argv": ["sh", "-c", text, *arguments], **more}


async def test_what_the_end_of_a_program_means(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("no first line")
    plain.chmod(0o755)
    assert await end_of(sh("cat; exit 0")) == json_line(make_event({"user": "Jane"})).decode()
    assert await end_of(sh("echo first; echo; printf 'id\\t7\\033[0m\\n\\n'")) == "id 7 [0m"
    assert await end_of(sh("exit 0")) is None
    assert await end_of(sh("echo later >&2; exit 75")) == (TransientError, "exit code 75: later")
    assert await end_of(sh("echo a >&2; echo b >&2; exit 3")) == (PermanentError, "exit code 3: a b")
    assert await end_of(sh("exit 1")) == (PermanentError, "exit code 1")
    assert await end_of(sh("kill -9 $$")) == (TransientError, "killed by SIGKILL")
    assert await end_of(sh("kill -SEGV $$")) == (TransientError, "killed by SIGSEGV")
    assert await end_of({"argv": ["no-such-program"]}) == (
        SinkError,
        "there is no program no-such-program in PATH that this user may run: write its absolute path",
    )
    assert await end_of(sh("exit 0", cwd="/no/where")) == (
        SinkError,
        "the folder of `cwd` does not exist: /no/where",
    )
    kind, text = await end_of({"argv": [str(plain)]})
    assert (kind, "Exec format error; if the program is a script" in text) == (SinkError, True), text
    plain.write_text("#!/no/such/interpreter\n")
    kind, text = await end_of({"argv": [str(plain)]})
    assert (kind, "No such file or directory; perhaps the program is a script" in text) == (SinkError, True), text


async def test_what_a_program_gets(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_ROUTER", "x")
    text = (
        "import os, sys; print(sorted(os.environ.items()), os.getcwd(), os.getpid() == os.getsid(0) == os.getpgid(0))"
    )
    values = {"argv": [sys.executable, "-S", "-c", text], "env": {"A": "b c"}, "cwd": str(tmp_path)}
    answer = await end_of(values)
    found = [("A", "b c"), ("PATH", os.environ["PATH"])]
    assert (
        answer.replace("('LC_CTYPE', 'C.UTF-8'), ", "") == f"{found} {tmp_path} True"
    )  # Python sets the locale itself
    values["argv"][3] = "import os; print([fd for fd in os.listdir('/proc/self/fd')])"
    assert await end_of(values) == "['0', '1', '2', '3']"  # the last one is that of the folder


async def test_arguments_that_no_program_can_get():
    def argument(raw):
        values = {"argv": ["true", "--", "{{ payload }}"]}
        return end_of(values, make_event(raw=raw))

    assert await argument(rb'"a\u0000b"') == (
        PermanentError,
        "argv[2] contains a NUL character, which is not possible in an argument of a program",
    )
    kind, said = await argument(json.dumps("x" * 300_000).encode())
    assert (kind, "longer than the system allows" in said) == (PermanentError, True)
    half = {"argv": ["true", "--", "{{ '\\ud800' }}"]}
    assert await end_of(half) == (
        PermanentError,
        "an argument contains half of a character (a lone surrogate), which UTF-8 can't represent",
    )


async def test_much_output_and_a_line_that_is_not_read_hold_nothing_up():
    event = make_event({"user": LARGE})
    assert await end_of(sh("exit 0"), event) is None
    assert await end_of(sh("exec <&-; sleep 0.05; echo ok"), event) == "ok"
    assert await end_of(sh("wc -c"), event) == str(len(json_line(event)) + 1)
    assert await end_of(sh("exec >&- 2>&-; wc -c > /dev/null"), event) is None
    assert await end_of(sh("head -c 3000000 /dev/zero; echo; echo id 7; yes | head -c 2000000 >&2")) == "id 7"
    kind, said = await end_of(sh("yes 'no, never' | head -c 2000000 >&2; exit 1"))
    assert (kind, len(said) < 550, said.startswith("exit code 1: … ")) == (PermanentError, True, True)
    kind, said = await end_of(sh("head -c 9000 /dev/zero | tr '\\0' x >&2; exit 1"))
    assert (kind, said) == (PermanentError, "exit code 1")


async def test_secrets_of_its_environment_are_not_quoted():
    said = await end_of(sh('echo "$API_TOKEN" "$HOME"; exit 0', env={"API_TOKEN": "t0p-secret", "HOME": "/srv/app"}))
    assert said == "*** /srv/app"


async def test_what_a_program_leaves_behind_is_killed(tmp_path):
    pids = tmp_path / "pids"
    context = FakeContext(tmp_path)
    values = sh(f"sleep 1000 & echo $! >> {pids}; echo started")
    async with open_sink("command", values, context=context) as sink:
        assert await sink.deliver(make_event({})) == "started"
        assert await sink.deliver(make_event({})) == "started"
    await until(lambda: not any(map(is_alive, numbers(pids))))
    assert len(numbers(pids)) == 2
    assert [line["event"] for line in context.logged] in (
        [],  # it had gone before the sink could look
        ["the program ended and left processes in the background; they were killed"],
    )


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"], process_group=0)
grandchild = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
print(os.getpid(), child.pid, grandchild.pid, grandchild.stdout.readline().strip(), file=open(sys.argv[1], "w"), sep="\\n", flush=True)
time.sleep(1000)
"""


async def test_a_cancelled_program_ends_with_all_its_children(tmp_path, monkeypatch):
    pids, term = tmp_path / "pids", tmp_path / "term"
    gentle = sh(
        f"trap 'echo term > {term}; exit 0' TERM; sleep 1000 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
    )
    stubborn = {"argv": [sys.executable, "-S", "-c", STUBBORN, str(pids)]}
    endless = sh(f"echo $$ > {pids}; exec yes")
    for values, count, grace in ((gentle, 2, PATIENCE), (stubborn, 4, 0.1), (endless, 1, PATIENCE)):
        monkeypatch.setitem(sink_type("command").sink.__init__.__globals__, "GRACE", grace)
        pids.unlink(missing_ok=True)
        async with open_sink("command", values) as sink:
            delivery = asyncio.create_task(sink.deliver(make_event({})))
            await until(lambda expected=count: len(numbers(pids)) == expected)
            delivery.cancel()
            with pytest.raises(asyncio.CancelledError):
                await delivery
        await until(lambda: not any(map(is_alive, numbers(pids))))
    assert term.read_text() == "term\n"


async def test_one_that_is_cancelled_while_it_begins_or_twice_ends(tmp_path):
    begun, pids = tmp_path / "begun", tmp_path / "pids"
    async with open_sink("command", sh(f"echo $$ > {begun}; sleep 1000")) as sink:
        delivery = asyncio.create_task(sink.deliver(make_event({})))
        await asyncio.sleep(0)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
    await until(lambda: not any(map(is_alive, numbers(begun))))
    async with open_sink("command", sh(f"trap '' TERM; echo $$ > {pids}; while :; do sleep 1000; done")) as sink:
        delivery = asyncio.create_task(sink.deliver(make_event({})))
        await until(lambda: numbers(pids))
        delivery.cancel()
        await asyncio.sleep(0)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
    await until(lambda: not is_alive(numbers(pids)[0]))


async def test_nothing_is_left_open(monkeypatch):
    """Also where the system can't tell that a process has ended."""

    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    async with open_sink("command", sh("cat > /dev/null; exec sleep 0.02")) as sink:
        await asyncio.gather(*(sink.deliver(make_event({})) for _ in range(4)))
        before = descriptors()
        for _ in range(2):
            await asyncio.gather(*(sink.deliver(make_event({})) for _ in range(8)))
            monkeypatch.delattr(os, "pidfd_open", raising=False)
        await until(lambda: descriptors() == before)


async def test_a_program_that_hangs_or_is_killed_loses_nothing(tmp_path):
    """In the router's worker: one attempt hangs beyond the timeout, one is killed, and both events are delivered."""
    pids, done = tmp_path / "pids", tmp_path / "done"
    text = f"""read line
        case "$line" in
        *hang*) [ -e {tmp_path}/hung ] || {{ touch {tmp_path}/hung; echo $$ >> {pids}; trap '' TERM; while :; do sleep 1000; done; }} ;;
        *kill*) [ -e {tmp_path}/killed ] || {{ touch {tmp_path}/killed; kill -9 $$; }} ;;
        esac
        echo x >> {done}"""
    kind, options, clock = sink_type("command"), validate("command", sh(text)), SteppedClock()
    async with bench(kind.sink, options=options, concurrency=2, timeout="10m", name="command", clock=clock) as at:
        at.put(*(engine_event(f'"{what}"'.encode()) for what in ("hang", "kill", "good", "good")))
        await until(lambda: at.book.delivered == 3 and numbers(pids))
        clock.ahead = 600.0
        await at.settled()
        assert (at.book.delivered, at.letters.kept) == (4, [])
    assert len(numbers(pids)) == 1
    assert not is_alive(numbers(pids)[0])
    assert done.read_text() == "x\n" * 4


HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ['"}', "{{ payload }}", "{% raw %}", "a\nb\r\n", "\0", "-rf", "--", "$(id)`id`", "\U0010ffff 🏴\u200d☠️", "'\\"]
    ),
)


async def test_every_payload_arrives_unharmed_or_is_refused_with_a_reason(tmp_path):
    fields = ("a", "b c", "d")
    values = sh(
        'cat > in; for each; do printf "%s\\0" "$each"; done > arguments',
        "--",
        *(f"{{{{ payload['{field}'] }}}}" for field in fields),
        cwd=str(tmp_path),
    )
    async with open_sink("command", values) as sink:
        loop = asyncio.get_running_loop()

        @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
        @given(st.fixed_dictionaries(dict.fromkeys(fields, HOSTILE)))
        def arrives(payload):
            event = make_event(payload)
            sent = asyncio.run_coroutine_threadsafe(sink.deliver(event), loop)
            if any("\0" in text for text in payload.values()):
                with pytest.raises(PermanentError, match="contains a NUL"):
                    sent.result()
                return
            sent.result()
            got = (tmp_path / "in").read_bytes()
            assert got == json_line(event) + b"\n"
            assert got.count(b"\n") == 1
            assert json.loads(got)["payload"] == payload
            assert (tmp_path / "arguments").read_bytes() == b"".join(f"{payload[field]}\0".encode() for field in fields)

        await asyncio.to_thread(arrives)


async def test_a_run_that_was_stopped_starts_nothing():
    run = plugin_module("command").Run([b"sh", b"-c", b"exit 0"], env={"PATH": os.defpath}, cwd="/", line=b"")
    run.send(15)
    with pytest.raises(TransientError, match="stopped before"):
        await asyncio.to_thread(run.run)
