"""What counts as a difference between two configurations, and what does not."""

from __future__ import annotations

import json

import pytest

from router.engine.reload.changes import Difference, changes
from router.errors import ConfigError
from router.ops.loading import load

CONFIG = {
    "version": 1,
    "redis": {"url": "redis://127.0.0.1"},
    "sources": {"web": {"type": "pubsub", "channels": ["a"]}, "s": {"type": "stream", "streams": ["s"]}},
    "sinks": {
        "audit": {"type": "log", "path": "a"},
        "mail": {
            "type": "email",
            "host": "h",
            "from": "a@b.c",
            "to": "{{ payload.to }}",
            "subject": "s",
            "text": "t",
            "password": "${PASSWORD}",
        },
    },
    "routes": [{"id": "all", "sinks": ["audit", "mail"]}],
}
ENVIRON = {"PASSWORD": "one", "HOME": "/"}


def loaded(folder, environ=ENVIRON, **sections):
    file = folder / "config.yaml"
    file.write_text(json.dumps({**CONFIG, **sections}))
    return load(file, environ=environ)


def changed(section, name, **keys):
    """The section with other keys for one of its names."""
    return {section: {**CONFIG[section], name: {**CONFIG[section][name], **keys}}}


@pytest.fixture
def before(tmp_path):
    return loaded(tmp_path)


def test_the_same_again_is_no_difference(before, tmp_path):
    found = changes(before, loaded(tmp_path))
    assert found.log_fields([]) == {}
    assert found.sinks.kept == ("audit", "mail")


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("web", {"channels": ["a", "b"]}, ("changed", True)),
        ("web", {"patterns": ["b*"], "format": "text"}, ("changed", True)),
        ("web", {"max_read_ahead": "1MiB"}, ("changed", True)),
        ("web", {"max_read_ahead": "1MiB", "url": "redis://other"}, ("changed", False)),
        ("web", {"format": "text"}, ("kept", False)),
        ("web", {"max_bytes": "1KiB"}, ("kept", False)),
        ("web", {"id": "n"}, ("kept", False)),
        ("web", {"url": "redis://other"}, ("changed", False)),
        ("web", {"url": "redis://other", "channels": ["b"]}, ("changed", False)),
        ("s", {"streams": ["s", "t"]}, ("changed", False)),
        ("s", {"format": "cloudevents"}, ("kept", False)),
        ("s", {"claim": {"idle": "9s"}}, ("changed", False)),
    ],
)
def test_sources(before, tmp_path, name, keys, expected):
    what, switched = expected
    found = changes(before, loaded(tmp_path, **changed("sources", name, **keys)))
    assert name in getattr(found.sources, what)
    assert found.switched == ({name} if switched else frozenset())


def test_a_source_of_another_type_is_another_one(before, tmp_path):
    sources = {**CONFIG["sources"], "web": {"type": "list", "keys": ["a"]}}
    found = changes(before, loaded(tmp_path, sources=sources))
    assert (found.sources.changed, found.switched) == (("web",), frozenset())


def test_what_came_and_went(before, tmp_path):
    sinks = {"mail": CONFIG["sinks"]["mail"], "text": CONFIG["sinks"]["audit"]}
    found = changes(before, loaded(tmp_path, sinks=sinks, routes=[{"id": "new", "sinks": ["mail", "text"]}]))
    assert (found.sinks.added, found.sinks.removed, found.sinks.kept) == (("text",), ("audit",), ("mail",))
    assert (found.routes.added, found.routes.removed) == (("new",), ("all",))


@pytest.mark.parametrize(
    "keys",
    [
        {"text": "other"},
        {"timeout": "9s"},
        {"queue": {"max_events": 5}},
        {"fallback": ["audit"]},
        {"http": {"proxy": "http://p:1"}},
    ],
)
def test_any_key_of_a_sink_makes_it_another_one(before, tmp_path, keys):
    found = changes(before, loaded(tmp_path, **changed("sinks", "mail", **keys)))
    assert (found.sinks.changed, found.sinks.kept) == (("mail",), ("audit",))


def test_a_key_of_a_route_makes_the_sink_another_one(before, tmp_path):
    """The sink is ordered by the key from then on, which a running worker can't begin."""
    override = {"id": "all", "sinks": ["audit", {"sink": "mail", "thread": "{{ payload.order }}"}]}
    keyed = loaded(tmp_path, routes=[override])
    assert changes(before, keyed).sinks.changed == ("mail",)
    other = {"id": "all", "sinks": ["audit", {"sink": "mail", "thread": "{{ payload.user }}"}]}
    assert changes(keyed, loaded(tmp_path, routes=[other])).sinks.kept == ("audit", "mail")


def test_a_secret_is_compared_by_its_value(before, tmp_path):
    found = changes(before, loaded(tmp_path, {**ENVIRON, "PASSWORD": "two"}))
    assert found.sinks.changed == ("mail",)


def test_defaults_count_where_they_end_up(before, tmp_path):
    found = changes(before, loaded(tmp_path, defaults={"all": {"timeout": "9s"}}))
    assert found.sinks.changed == ("audit", "mail")


def test_a_time_zone_is_a_matter_of_templates_and_of_order(tmp_path):
    sinks = changed("sinks", "audit", order_by="payload.n")["sinks"]
    found = changes(loaded(tmp_path, sinks=sinks), loaded(tmp_path, sinks=sinks, timezone="Europe/Berlin"))
    assert (found.sinks.changed, found.sections) == (("audit",), ("timezone",))


def test_a_plugin_is_its_text(tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    code = """
from router.api import hookimpl

async def tell(event, options):
    pass

@hookimpl
def register_sinks(register):
    register("tell", tell)
"""
    (plugins / "tell.py").write_text(code)
    sinks = {**CONFIG["sinks"], "told": {"type": "tell"}}
    before = loaded(tmp_path, sinks=sinks)
    assert "sinks" not in changes(before, loaded(tmp_path, sinks=sinks)).log_fields([])
    (plugins / "tell.py").write_text(f"# another\n{code}")
    assert changes(before, loaded(tmp_path, sinks=sinks)).sinks.changed == ("told",)


def test_lookups_are_named(tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    code = """
from router.api import LookupOptions, hookimpl

class Options(LookupOptions):
    table: str

async def fetch(key, options, context):
    return None

@hookimpl
def register_lookups(register):
    register("crm", fetch, options=Options)
"""
    (plugins / "crm.py").write_text(code)
    user = {"type": "redis-hash", "key": "user:{{ payload.id }}"}
    company, gone = {"type": "crm", "key": "{{ payload.company }}", "table": "c"}, {**user, "key": "g"}
    before = loaded(tmp_path, lookups={"user": user, "gone": gone, "company": company})

    def found(**lookups):
        difference = changes(before, loaded(tmp_path, lookups=lookups))
        assert difference.sections == ()
        return difference.lookups

    assert (
        changes(before, loaded(tmp_path, lookups={"user": user, "gone": gone, "company": company})).log_fields([]) == {}
    )
    same = found(user={**user, "ttl": "5s"}, company=company, device={**user, "key": "d"})
    assert same == Difference(("device",), ("gone",), ("user",), ("company",))
    assert found(user=user, gone=gone, company={**company, "table": "d"}).changed == ("company",)
    (plugins / "crm.py").write_text(f"# another\n{code}")
    assert found(user=user, gone=gone, company=company).changed == ("company",)


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"redis": {"url": "redis://other"}}, "redis.url"),
        ({"redis": {"url": "redis://127.0.0.1", "key_prefix": "x"}}, "redis.key_prefix"),
        ({"redis": {"url": "redis://127.0.0.1", "appendfsync": "always"}}, "redis.appendfsync"),
        ({"deliver": "print"}, "deliver"),
        ({"deliver": {"only": ["*@b.c"]}}, "deliver"),
        ({"admin": {"listen": "127.0.0.1:1234"}}, "admin"),
    ],
)
def test_what_takes_another_process_is_refused(before, tmp_path, sections, path):
    with pytest.raises(ConfigError, match=f"a reload can't change `{path}`") as caught:
        changes(before, loaded(tmp_path, **sections))
    assert [problem.path for problem in caught.value.problems] == [path]


def test_other_sections(before, tmp_path):
    sections = {
        "redis": {"url": "redis://127.0.0.1", "outage_buffer": "1MiB"},
        "dead_letters": {"max_events": 5},
        "shutdown": {"drain": "1s"},
        "unmatched": "dead-letter",
        "allow_commands": True,
    }
    assert set(changes(before, loaded(tmp_path, **sections)).sections) == set(sections)
