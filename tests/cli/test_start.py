"""What the daemon imports until it is ready, and what it imports later, when it needs it."""

import re

import pytest

from tests.support.process import Process, run
from tests.support.waiting import wait_until

LATER = {"aiohttp", "aiosmtplib", "jinja2", "prometheus_client", "regex", "rich", "yarl"}
"""Packages that an idle daemon does not need: it imports each for the first connection, delivery or template that does."""

OTHER_KINDS = {
    "markupsafe",
    "multiprocessing",
    "router.broker.lists.list_source",
    "router.broker.queues.redis_queue",
    "router.config.cases",
    "router.config.lookups",
    "router.core.conditions.match_slips",
    "router.core.conditions.reading",
    "router.core.conditions.why",
    "router.core.lookups.lookup_key",
    "router.core.rendering.syntax.checking",
    "router.core.rendering.expressions",
    "router.core.rendering.rendered_addresses",
    "router.core.rendering.sandbox.environments",
    "router.core.rendering.templates",
    "router.engine.composition_stores",
    "router.ops.loading.checking.fields.match_fields",
    "router.ops.loading.effective",
    "router.ops.loading.lookup_entries",
}
"""Modules for what the configuration of the test does not have: templates, `match`, plugin processes, lists, Redis queues, tests, lookups."""


def modules(process):
    """The modules that a process with `-X importtime` has imported so far."""
    return set(re.findall(r"^import time: .*\| +([\w.]+)$", process.err, re.MULTILINE))


def imported(process):
    """The packages of which a process with `-X importtime` has imported modules so far."""
    return {module.partition(".")[0] for module in modules(process) if "." in module}


def built_ins(process):
    """The built-in plugins that a process has imported so far."""
    return {
        match[1] for match in (re.match("event_router_plugin_([a-z]+)_", name) for name in imported(process)) if match
    }


def test_an_idle_daemon_has_imported_little(folder, server):
    env = {"REDIS_URL": server.url, "PYTHONPROFILEIMPORTTIME": "1"}
    with Process("run", cwd=folder, env=env, notify=True) as daemon:
        daemon.wait_ready()
        assert imported(daemon) & LATER == set()
        assert {"redis", "pydantic", "structlog"} <= imported(daemon)
        assert built_ins(daemon) == {"log"}
        assert modules(daemon) & OTHER_KINDS == set()
        assert run("status", cwd=folder, env={"REDIS_URL": server.url}).code == 0
        wait_until(lambda: "aiohttp" in imported(daemon), "the import for the first client of the admin side")
        assert daemon.stop() == 0


@pytest.mark.parametrize("addition", ["schema", "condition"])
def test_the_library_for_schemas_is_imported_only_for_a_schema_or_a_complex_condition(folder, server, addition):
    env = {"REDIS_URL": server.url, "PYTHONPROFILEIMPORTTIME": "1"}
    config = folder / "config.yaml"
    whole = config.read_text()
    config.write_text(re.sub(r"^schemas:\n(?:[ -].*\n)+", "", whole, flags=re.MULTILINE))
    without = config.read_text()
    assert without != whole
    condition = without.replace("id: everything", "id: everything, match: {name: {regex: '^a+$'}}")
    more = whole if addition == "schema" else condition
    config.write_text(without.replace("id: everything", "id: everything, match: {severity: high}"))
    with Process("run", cwd=folder, env=env, notify=True) as daemon:
        daemon.wait_ready()
        assert "jsonschema_rs" not in imported(daemon)
        config.write_text(more)
        assert run("reload", cwd=folder, env={"REDIS_URL": server.url}).code == 0
        wait_until(lambda: "jsonschema_rs" in imported(daemon), "the import for the addition")
        assert daemon.stop() == 0


def test_a_reload_imports_the_plugin_of_a_new_kind_of_sink_and_the_templates_that_it_uses(folder, server):
    env = {"REDIS_URL": server.url, "PYTHONPROFILEIMPORTTIME": "1"}
    config = folder / "config.yaml"
    with Process("run", cwd=folder, env=env, notify=True) as daemon:
        daemon.wait_ready()
        another = "  orders: {type: redis, xadd: 'all-{{ payload.kind }}'}\nroutes:\n"
        config.write_text(config.read_text().replace("routes:\n", another).replace("[audit]", "[audit, orders]"))
        assert run("reload", cwd=folder, env={"REDIS_URL": server.url}).code == 0
        wait_until(lambda: built_ins(daemon) == {"log", "redis"}, "the import of the other plugin")
        assert "jinja2" in imported(daemon)
        assert daemon.stop() == 0
