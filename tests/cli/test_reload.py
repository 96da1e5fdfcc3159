"""`event-router reload` on a router that runs, and where none does."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.support.daemon import daemon
from tests.support.process import run
from tests.support.redis import free_port

LOG = {"type": "log", "path": "audit.jsonl"}
CONFIG = {
    "sources": {"web": {"type": "pubsub", "channels": ["a"]}},
    "sinks": {"audit": LOG},
    "routes": [{"id": "all", "sinks": ["audit"]}],
}


@pytest.fixture
def server(start_server):
    return start_server()


def write(router, **changes):
    setup = {"version": 1, "redis": {"url": router.server.url}, **CONFIG, **changes}
    (router.folder / "config.yaml").write_text(json.dumps(setup))


async def test_what_changed_is_said(server, tmp_path):
    async with daemon(server, tmp_path, CONFIG) as router:
        done = run("reload", cwd=tmp_path)
        assert (done.code, done.out) == (0, "reloaded: nothing has changed\n")
        write(
            router,
            sources={"web": {"type": "pubsub", "channels": ["a", "b"]}},
            sinks={"audit": LOG, "more": {**LOG, "path": "more.jsonl"}},
            routes=[{"id": "all", "sinks": ["audit", "more"]}],
            unmatched="dead-letter",
            lookups={"user": {"type": "redis-hash", "key": "user:{{ payload.n }}"}},
        )
        done = run("reload", "-c", "config.yaml", cwd=tmp_path)
        assert done.code == 0, done.err
        assert done.out.splitlines() == [
            "reloaded:",
            "  sources: web changed",
            "  sinks: more added (1 untouched)",
            "  routes: all changed",
            "  lookups: user added",
            "  sections: unmatched",
            "  files: config.yaml",
        ]
        write(router)
        told = json.loads(run("reload", "--json", cwd=tmp_path).out)
        assert told["ok"] is True
        assert told["changed"]["sinks"] == {"added": [], "changed": [], "removed": ["more"], "kept": 1}
        assert told["changed"]["lookups"] == {"added": [], "changed": [], "removed": ["user"], "kept": 0}
        assert told["changed"]["sections"] == ["unmatched"]
        assert told["changed"]["files"] == ["config.yaml"]


async def test_what_waits_for_a_sink_that_is_gone_is_said(server, tmp_path):
    mail = {
        "type": "email",
        "host": "127.0.0.1",
        "port": free_port(),
        "from": "a@b.c",
        "to": "d@e.f",
        "subject": "s",
        "text": "t",
    }
    setup = {"sinks": {"audit": LOG, "mail": mail}, "routes": [{"id": "all", "sinks": ["audit", "mail"]}]}
    async with daemon(server, tmp_path, {**CONFIG, **setup}) as router:
        router.publish("a", {"n": 1}, {"n": 2})
        await router.until(lambda: server.do("HGET", "{event-router}:books:mail", "accepted") == b"2")
        write(router)
        done = run("reload", cwd=tmp_path)
        assert done.code == 0, done.err
        assert "  sinks: mail removed (1 untouched)\n" in done.out
        assert "2 deliveries wait for mail, which is no longer configured; run `event-router queue list`" in done.err
        assert router.letters() == []
        write(router, **setup)
        assert run("reload", cwd=tmp_path).code == 0
        assert json.loads(run("reload", "--json", cwd=tmp_path).out)["waiting"] == {}


async def test_what_is_wrong_is_said_as_check_says_it(server, tmp_path):
    async with daemon(server, tmp_path, CONFIG) as router:
        write(router, sinks={"audit": {**LOG, "pth": "x"}})
        done = run("reload", "-c", "config.yaml", cwd=tmp_path)
        assert (done.code, done.out) == (78, "")
        assert 'sinks.audit.pth: unknown key "pth"' in done.err
        assert done.err.endswith("refused: the router goes on with the old configuration\n")
        assert "looking in the state directory" not in done.err
        assert "did you mean `path`?" in done.err
        assert " | " in done.err.splitlines()[1], "the faulty line"
        assert "fallback" not in done.err
        assert "fallback" in run("reload", "--verbose", cwd=tmp_path).err
        told = json.loads(run("reload", "--json", cwd=tmp_path).out)
        assert (told["ok"], told["changed"]) == (False, None)
        assert [problem["path"] for problem in told["problems"]] == ["sinks.audit.pth"]
        state = json.loads(run("status", "--json", cwd=tmp_path).out)
        assert "sinks.audit.pth" in state["config"]["error"]
        assert "\n" not in state["config"]["error"]
        assert any("the configuration on disk was refused" in warning for warning in state["warnings"])
        assert state["ready"] is True
        write(router)
        assert run("reload", cwd=tmp_path).code == 0
        assert json.loads(run("status", "--json", cwd=tmp_path).out)["config"]["error"] is None


async def test_a_source_that_cannot_be_reached_is_said_by_the_router(server, tmp_path):
    patient = {"url": server.url, "connect_timeout": "6s"}  # longer than the command waits for a router that is silent
    async with daemon(server, tmp_path, {**CONFIG, "redis": patient}) as router:
        nobody = f"127.0.0.1:{free_port()}"
        sources = {
            **CONFIG["sources"],
            "far": {"type": "stream", "streams": ["x"], "url": f"redis://:secret-word@{nobody}"},
        }
        write(router, redis=patient, sources=sources)
        done = await asyncio.to_thread(run, "reload", cwd=tmp_path)
        assert (done.code, done.out) == (69, "")
        place, _, rest = done.err.partition(": sources.far: ")
        assert re.fullmatch(rf"{tmp_path}/config.yaml:1:\d+", place)
        assert f"redis://{nobody}: connection refused" in rest
        assert done.err.endswith("refused: the router goes on with the old configuration\n")
        assert "secret-word" not in done.err
        told = json.loads((await asyncio.to_thread(run, "reload", "--json", cwd=tmp_path)).out)
        assert (told["ok"], told["unavailable"], told["problems"][0]["path"]) == (False, True, "sources.far")
        write(router, redis=patient)
        assert (await asyncio.to_thread(run, "reload", cwd=tmp_path)).code == 0


async def test_a_source_that_redis_refuses_is_a_fault_of_the_configuration(server, tmp_path):
    async with daemon(server, tmp_path, CONFIG) as router:
        for kind in (
            {"type": "pubsub", "channels": ["x"]},
            {"type": "stream", "streams": ["x"]},
            {"type": "list", "keys": ["x"]},
        ):
            wrong = {**kind, "url": server.url.replace("redis://", "redis://:secret-word@")}
            write(router, sources={**CONFIG["sources"], "far": wrong})
            done = await asyncio.to_thread(run, "reload", cwd=tmp_path)
            assert done.code == 78
            assert re.match(rf"{tmp_path}/config.yaml:1:\d+: sources.far: .*password", done.err)
            assert "secret-word" not in done.err


async def test_the_router_that_listens_at_a_port_is_asked_there(server, tmp_path):
    port = free_port()
    async with daemon(server, tmp_path, {**CONFIG, "admin": {"listen": f"127.0.0.1:{port}"}}):
        assert run("reload", "-c", "config.yaml", cwd=tmp_path).out == "reloaded: nothing has changed\n"


async def test_a_faulty_file_does_not_hide_the_router_that_listens_at_a_port(server, tmp_path):
    port = free_port()
    at_port = {"admin": {"listen": f"127.0.0.1:{port}", "token": "word-of-admin"}}
    elsewhere = {"XDG_STATE_HOME": str(tmp_path / "elsewhere")}  # as of another user, who can't use the socket
    file, named = tmp_path / "config.yaml", ("-c", "config.yaml")
    async with daemon(server, tmp_path, {**CONFIG, **at_port}) as router:
        write(router, **at_port, sinks={"audit": {**LOG, "pth": "x"}})
        for env in ({}, elsewhere):
            done = run("reload", *named, cwd=tmp_path, env=env)
            assert (done.code, done.out) == (78, "")
            assert re.match(rf"{file}:1:\d+: sinks.audit.pth: unknown key .* \(did you mean `path`\?\)", done.err)
            assert done.err.endswith("refused: the router goes on with the old configuration\n")
            done = run("status", *named, cwd=tmp_path, env=env)
            assert done.code == 0
            assert re.match(
                r"warning: config.yaml has faults \(config.yaml:1:\d+: sinks.audit.pth: unknown key", done.err
            )

        file.write_text("version: 1\nadmin: {listen: [\n")  # where the router listens can't be read any more
        assert f"{file}:2:17: " in run("reload", *named, cwd=tmp_path).err
        assert run("status", *named, cwd=tmp_path).code == 0
        for command in ("reload", "status"):
            done = run(command, *named, cwd=tmp_path, env=elsewhere)
            assert (done.code, done.out) == (69, "")
            assert "no router was found under the name 'default' (nothing listens at " in done.err
            assert "config.yaml has faults (config.yaml:2:17: " in done.err
            assert "no router runs" not in done.err

        write(router, admin={"listen": f"127.0.0.1:{free_port()}"})
        assert run("status", *named, cwd=tmp_path).code == 0
        done = run("reload", *named, cwd=tmp_path)
        assert done.code == 78
        assert "admin: a reload can't change `admin`: restart the router to change it" in done.err


async def test_another_router_is_not_taken_for_the_one_of_the_given_file(server, tmp_path):
    async with daemon(server, tmp_path, CONFIG):
        other = {"version": 1, "redis": {"url": server.url}, **CONFIG, "admin": {"listen": f"127.0.0.1:{free_port()}"}}
        (tmp_path / "other.yaml").write_text(json.dumps(other))
        for command in ("reload", "status"):
            done = run(command, "-c", "other.yaml", cwd=tmp_path)
            assert (done.code, done.out) == (69, "")
            assert "no router answers at 127.0.0.1" in done.err


def test_where_no_router_runs(tmp_path):
    done = run("reload", cwd=tmp_path)
    assert done.code == 69
    assert "no router runs here under the name 'default'" in done.err
