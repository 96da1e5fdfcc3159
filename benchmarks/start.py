"""The cost of a start: the CPU time and the memory of a router until it is ready, and the CPU time of `check`.

The base is an interpreter that only imports the libraries of a router and then waits. The base is the minimum for any
router with these libraries. Memory is the proportional set size. The router is measured with a schema and without one,
because this configuration needs the library that validates payloads only for the schema. Memory above the bare imports
is the difference to an interpreter that is measured just before the router, beside the same Redis server.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import configuration, cpu_seconds, router, server, write
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

LIBRARIES = "redis, hiredis, msgspec, yaml, pluggy, pydantic, click, structlog"
BARE_CPU, BARE_MEMORY = "bare imports: CPU", "bare imports: memory"
MODEL_CPU, MODEL_MEMORY = "all libraries and one model: CPU", "all libraries and one model: memory"
MODEL = """
from pydantic import BaseModel, Field, field_validator
class Options(BaseModel):
    path: str = Field(default="", description="The file.")
    @field_validator("path")
    @classmethod
    def _stripped(cls, path: str) -> str:
        return path.strip()
"""
READY, READY_WITHOUT_SCHEMA = "`run` until ready", "`run` without a schema until ready"
CHECK_CPU = "`check`: CPU"
MOST_CPU = 1.3
"""The goal for the CPU time until the router is ready, as a multiple of the CPU time of the bare imports."""
MOST_MEMORY = 12.0
"""The goal for the memory of the router above that of the bare imports, in MiB."""
RUNS: dict[str, dict[str, Any]] = {READY: {}, READY_WITHOUT_SCHEMA: {"schemas": []}}
"""The sections of the configuration of each measured router."""
SETTLED = 0.5
"""The seconds between the moment when the router is ready and the measurement of the memory."""


def arguments(_parser: argparse.ArgumentParser) -> None:
    """Add no options: there is one router, which reads pub/sub and writes a log file."""


def cases(_options: argparse.Namespace) -> list[Case]:
    """Return the bare imports, the imports with a model, the daemon and the command."""
    return [
        Case("bare imports", [Figure(BARE_CPU, "ms"), Figure(BARE_MEMORY, "MiB")], bare),
        Case(
            "one model",
            [Figure(MODEL_CPU, "ms", base=BARE_CPU), Figure(MODEL_MEMORY, "MiB", base=BARE_MEMORY)],
            one_model,
        ),
        *(Case(name, _figures(name), partial(ready, name, sections)) for name, sections in RUNS.items()),
        Case("check", [Figure(CHECK_CPU, "ms", base=BARE_CPU)], check),
    ]


def _figures(name: str) -> list[Figure]:
    return [
        Figure(f"{name}: CPU", "ms", base=BARE_CPU, goal=MOST_CPU),
        Figure(f"{name}: memory", "MiB", base=BARE_MEMORY),
        Figure(f"{name}: memory above bare imports", "MiB", goal=MOST_MEMORY, goal_of="value"),
    ]


def bare(_command: Path) -> Turns:
    """Measure an interpreter that imports the libraries."""
    yield
    cpu, memory = _waiting(f"import {LIBRARIES}")
    return {BARE_CPU: cpu, BARE_MEMORY: memory}


def one_model(_command: Path) -> Turns:
    """Measure an interpreter that imports all libraries of a running router, and defines a model."""
    yield
    cpu, memory = _waiting(f"import {LIBRARIES}, redis.asyncio, uvloop, jsonschema_rs\n{MODEL}")
    return {MODEL_CPU: cpu, MODEL_MEMORY: memory}


def _waiting(program: str) -> tuple[Reading, Reading]:
    """Return the CPU time and the memory of an interpreter that has run a program, and waits."""
    pipe = subprocess.PIPE
    program += "\nimport sys\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        readings = _cpu(process.pid), _memory(process.pid)
        process.communicate()
    return readings


def ready(name: str, sections: dict[str, Any], command: Path) -> Turns:
    """Measure a daemon that has just started."""
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        yield
        _, below = _waiting(f"import {LIBRARIES}")
        with router(command, configuration(at, folder, **sections), folder) as pid:
            cpu = _cpu(pid)
            time.sleep(SETTLED)
            memory = _memory(pid)
    return {
        f"{name}: CPU": cpu,
        f"{name}: memory": memory,
        f"{name}: memory above bare imports": Reading(memory.value - below.value),
    }


def check(command: Path) -> Turns:
    """Measure the command `check` with the configuration of this daemon."""
    with server() as at, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(configuration(at, folder), folder)
        yield
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [str(command), "check", "-c", str(folder / "config.yaml")], check=True, stdout=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return {CHECK_CPU: Reading(used * 1000)}


def _cpu(pid: int) -> Reading:
    return Reading(cpu_seconds(pid) * 1000)


def _memory(pid: int) -> Reading:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return Reading(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")))


BENCHMARK = Benchmark(str(__doc__), "A start", 9, arguments, cases, base="bare")
