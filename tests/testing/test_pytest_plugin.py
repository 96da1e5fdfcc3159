"""The pytest plugin: its fixtures in a suite of their own, and what its import costs every suite."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from importlib.metadata import entry_points

from router import pytest_plugin
from tests.support.process import environment
from tests.support.waiting import PATIENCE

FIXTURES = [name for name in vars(pytest_plugin) if name.startswith("event_router_")]

PLUGIN = """
from router.api import SinkOptions, Text, check_response, hookimpl


class Options(SinkOptions):
    url: str
    text: Text


async def pager(event, options, context):
    check_response(await context.http.request("POST", options.url, json=options.text), now=context.clock.now())


async def people(key, options):
    return {"name": "Jane"} if key == "42" else None


@hookimpl
def register_sinks(register):
    register("pager", pager, options=Options)


@hookimpl
def register_lookups(register):
    register("people", people)
"""

SUITE = """
import asyncio

import pytest


def test_the_rules(event_router_check_sink, event_router_check_lookup, event_router_service):
    options = {"url": event_router_service.url, "text": "{{ payload.message }}"}
    report = asyncio.run(event_router_check_sink("pager", options, service=event_router_service))
    report.raise_for_failures()
    asyncio.run(event_router_check_lookup("people", records={"42": {"name": "Jane"}})).raise_for_failures()


def test_a_fault_is_shown_as_a_table(event_router_check_lookup):
    with pytest.raises(AssertionError, match="finds +FAILED"):
        asyncio.run(event_router_check_lookup("people", records={"42": {"name": "Joe"}})).raise_for_failures()


def test_an_event(event_router_make_event, event_router_clock):
    event_router_clock.advance(60)
    assert event_router_make_event({"a": 1}).received_at.timestamp() == event_router_clock.now() - 60


def test_a_router(event_router_recording_router):
    config = {
        "version": 1,
        "sources": {"web": {"type": "pubsub", "channels": ["n"]}},
        "sinks": {"duty": {"type": "pager", "url": "https://pager.example.org", "text": "{{ payload.a }}"}},
        "routes": [{"id": "all", "sinks": ["duty"]}],
    }

    async def play():
        async with event_router_recording_router(config) as router:
            router.publish("n", {"a": 1})
            await router.settled()
            return router.attempts("duty")

    assert [each.options.text for each in asyncio.run(play())] == ["1"]
"""

COST = """
import json, sys, time
import pytest
before, began = set(sys.modules), time.process_time()
import router.pytest_plugin
took = time.process_time() - began
print(json.dumps([took, sorted(name for name in set(sys.modules) - before if name.startswith("router"))]))
"""


def test_every_fixture_in_a_suite_of_its_own_without_other_plugins(tmp_path):
    """Warnings are errors there too, and the drop-ins are those of the suite's root folder."""
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "pager.py").write_text(PLUGIN)
    (tmp_path / "plugins" / "pager.py").chmod(0o644)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_pager.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    without = [f"-pno:{each}" for each in ("asyncio", "randomly", "xdist", "timeout", "hypothesispytest", "anyio")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *without, "tests"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert all(name in SUITE for name in FIXTURES)


def test_pytest_finds_the_plugin_by_its_entry_point():
    assert [each.value for each in entry_points(group="pytest11") if each.name == "event_router"] == [
        "router.pytest_plugin"
    ]


async def test_its_import_costs_nothing():
    """Ten milliseconds is the bound; what counts is that nothing else of the package is imported."""
    figures = []
    for _ in range(3):
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", COST], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        took, modules = json.loads(done.stdout)
        figures.append(took)
        assert modules in (["router", "router.pytest_plugin"], ["router.pytest_plugin"])
    assert min(figures) < 0.01


def test_every_fixture_says_what_it_is():
    assert len(FIXTURES) == 6
    for name in FIXTURES:
        assert inspect.getdoc(getattr(pytest_plugin, name)), name
