"""The command on a system that lacks what most have: time zone data, a locale that knows more than ASCII."""

from __future__ import annotations

import json

import pytest

from tests.support.process import ROOT, run

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
CONFIG = {
    "version": 1,
    "sources": {"web": {"type": "pubsub", "channels": ["a"]}},
    "sinks": {"audit": {"type": "log", "path": "audit.jsonl", "template": "{{ event.received_at | local | time }}"}},
    "routes": [{"id": "all", "sinks": ["audit"]}],
}


def write(folder, **changes):
    (folder / "config.yaml").write_text(json.dumps({**CONFIG, **changes}, ensure_ascii=False), encoding="utf-8")


@pytest.fixture
def without_zones(tmp_path):
    """The variables of a system without time zone data: none of its own, and an empty package of the data's name."""
    (tmp_path / "empty" / "tzdata").mkdir(parents=True)
    (tmp_path / "empty" / "tzdata" / "__init__.py").touch()
    return {"PYTHONTZPATH": "", "PYTHONPATH": f"{tmp_path / 'empty'}:{ROOT}"}


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_utc_needs_no_time_zone_data(tmp_path, without_zones, zone):
    write(tmp_path, **({"timezone": zone} if zone else {}))
    done = run("check", cwd=tmp_path, env=without_zones)
    assert done.code == 0, done.out + done.err
    assert run("demo", cwd=tmp_path, env=without_zones).code == 0


@pytest.mark.parametrize(("zone", "command"), [("Europe/Berlin", "check"), ("Etc/UTC", "run"), ("nowhere", "check")])
def test_another_zone_without_time_zone_data_is_a_fault_with_its_place(tmp_path, without_zones, zone, command):
    write(tmp_path, timezone=zone)
    done = run(command, cwd=tmp_path, env=without_zones)
    assert done.code == 78
    told = done.out + done.err
    assert (
        f"timezone: '{zone}' can't be used, because this system has no time zone data; install the package tzdata"
        in told
    )
    assert told.startswith("config.yaml:1:")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"schemas": [{"channels": ["a"], "file": "bestellung-ä.json"}]}, "schemas[0].file"),
        ({"schemas": [{"channels": ["a"], "file": "schämas/order.json"}]}, "schemas[0].file"),
        ({"schemas": [{"channels": ["a"], "file": "refers.json"}]}, "schemas[0].file"),
        ({"include": "größe.yaml"}, "include"),
        (
            {"sinks": {"audit": {"type": "log", "path": "x", "template": {"file": "größe.txt"}}}},
            "sinks.audit.template.file",
        ),
        (
            {"sinks": {"audit": {"type": "log", "path": "x", "template": {"file": "ä/größe.txt"}}}},
            "sinks.audit.template.file",
        ),
        ({"sinks": {"audit": {"type": "log", "path": "${file:geheim-ä}"}}}, "sinks.audit.path"),
    ],
)
def test_a_name_that_an_ascii_locale_has_not_is_a_fault_with_its_place(tmp_path, changes, path):
    (tmp_path / "refers.json").write_text('{"$ref": "gr%C3%B6%C3%9Fe.json"}', encoding="utf-8")
    write(tmp_path, **changes)
    done = run("check", "--json", cwd=tmp_path, env=ASCII)
    assert done.code == 78
    problems = [each for each in json.loads(done.out)[0]["problems"] if each["severity"] == "error"]
    assert [(each["path"], each["line"]) for each in problems] == [(path, 1)]
    assert (
        "the encoding of file names (ascii) does not have all characters of the path; set LC_ALL=C.UTF-8"
        in problems[0]["message"]
    )


def test_the_same_names_are_read_where_the_locale_has_them(tmp_path):
    (tmp_path / "schämas").mkdir()
    (tmp_path / "schämas" / "größe.json").write_text("{}")
    write(tmp_path, schemas=[{"channels": ["a"], "file": "schämas/größe.json"}])
    assert run("check", cwd=tmp_path, env={"LC_ALL": "C.UTF-8"}).code == 0
    assert run("check", cwd=tmp_path, env={"LC_ALL": "C"}).code == 0  # Python takes UTF-8 for the C locale


@pytest.mark.parametrize("name", ["audit-ä.jsonl", "ä/audit.jsonl"])
def test_a_path_to_be_written_that_an_ascii_locale_has_not_is_no_traceback(tmp_path, name):
    write(tmp_path, sinks={"audit": {"type": "log", "path": name}})
    done = run("check", cwd=tmp_path, env=ASCII)
    assert done.code == 0
    assert ", but the name can't be used in this locale" in done.out


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        (("check", "config.yaml"), {"plugins": {"paths": ["plügins"]}}, "plugins.paths[0]: there is no folder"),
        (
            ("run", "-c", "config.yaml"),
            {"admin": {"listen": "unix:/tmp/ä.sock"}},
            "admin.listen: the path has characters that the locale can't encode in file names",
        ),
        (
            ("config", "-c", "config.yaml"),
            {"redis": {"url": "unix:///tmp/%C3%A4.sock"}},
            "redis.url: the path has characters that the locale can't encode in file names",
        ),
    ],
)
def test_other_paths_that_an_ascii_locale_has_not_are_no_traceback(tmp_path, words, changes, said):
    write(tmp_path, **changes)
    done = run(*words, cwd=tmp_path, env=ASCII)
    assert done.code == 78
    assert said in done.out + done.err
