"""What the daemon imports until it is ready, and what it imports later, when it needs it."""

import re

from tests.support.process import Process, run
from tests.support.waiting import wait_until

LATER = {"aiohttp", "aiosmtplib", "prometheus_client", "regex", "rich", "yarl"}
"""Packages that an idle daemon does not need: it imports each for the first connection or delivery that does."""


def imported(process):
    """The packages of which a process with `-X importtime` has imported modules so far."""
    return set(re.findall(r"^import time: .*\| +(\w+)\.[\w.]+$", process.err, re.MULTILINE))


def test_an_idle_daemon_has_imported_little(folder, server):
    env = {"REDIS_URL": server.url, "PYTHONPROFILEIMPORTTIME": "1"}
    with Process("run", cwd=folder, env=env, notify=True) as daemon:
        daemon.wait_ready()
        assert imported(daemon) & LATER == set()
        assert {"redis", "pydantic", "structlog"} <= imported(daemon)
        assert run("status", cwd=folder, env={"REDIS_URL": server.url}).code == 0
        wait_until(lambda: "aiohttp" in imported(daemon), "the import for the first client of the admin side")
        assert daemon.stop() == 0
