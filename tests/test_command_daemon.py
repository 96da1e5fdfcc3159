"""The command sink in the real daemon: retries, dead letters, a reload that switches it off, and the end of the daemon."""

import json

import pytest

from tests.support.daemon import daemon
from tests.support.process import run
from tests.support.programs import is_alive, numbers

SOURCES = {"web-app": {"type": "pubsub", "channels": ["jobs"]}}
SCRIPT = """read line
case "$line" in
*again*) [ -e again ] || { touch again; echo "not yet, $API_TOKEN" >&2; exit 75; }; echo "$line" >> done; echo "job 7" ;;
*never*) echo "no, said $API_TOKEN" >&2; exit 1 ;;
*stuck*) sleep 1000 & echo $! >> pids; trap '' TERM; while :; do sleep 1000; done ;;
esac
"""
ENV = {"API_TOKEN": "t0p-SECRET-token"}


def setup(folder, **more):
    sink = {"type": "command", "argv": ["sh", "-c", SCRIPT], "cwd": str(folder), "timeout": "10m"}
    return {
        "allow_commands": True,
        "sources": SOURCES,
        "sinks": {"job": {**sink, "env": {"API_TOKEN": "${API_TOKEN}"}, "retry": {"initial": "10ms"}}},
        "routes": [{"id": "r", "sinks": ["job"]}],
        "shutdown": {"drain": "100ms"},
        **more,
    }


async def test_programs_are_run_retried_and_ended_with_the_daemon(redis_server, tmp_path):
    folder = tmp_path / "d"
    arguments = ("--log-level", "debug", "--log-format", "json")
    async with daemon(redis_server, folder, setup(folder), arguments=arguments, **ENV) as router:
        router.publish("jobs", {"do": "again"}, {"do": "never"}, {"do": "stuck"})
        await router.until(lambda: (folder / "done").exists() and router.letters() and numbers(folder / "pids"))
        await router.until(lambda: '"answer":"job 7"' in router.process.err)
        (letter,) = router.letters()
        off = setup(folder, allow_commands=False)
        (folder / "config.yaml").write_text(json.dumps({"version": 1, "redis": {"url": redis_server.url}, **off}))
        router.process.signal(1)
        await router.until(lambda: "which is not allowed" in router.process.err, "for the reload to be refused")
        assert await router.stop() == 0
    assert not any(map(is_alive, numbers(folder / "pids")))
    assert (letter["reason"], letter["detail"]) == ("permanent", "exit code 1: no, said ***")
    with redis_server.client() as client:
        assert client.xlen("{event-router}:queue:job") + client.zcard("{event-router}:later:job") == 1
    assert ENV["API_TOKEN"] not in router.process.err


@pytest.mark.parametrize("allowed", [True, False])
def test_a_configuration_that_may_run_no_programs_never_starts(tmp_path, allowed):
    document = {"version": 1, "redis": {"url": "redis://127.0.0.1:1"}, **setup(tmp_path, allow_commands=allowed)}
    (tmp_path / "config.yaml").write_text(json.dumps(document))
    checked = run("check", "config.yaml", cwd=tmp_path)
    assert (checked.code, "which is not allowed: write `allow_commands: true`" in checked.out) == (
        (0, False) if allowed else (78, True)
    )
