"""`check_lookup`: what is sound passes every check, and each faulty lookup is found by exactly the check for its fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.errors import ConfigError
from router.testing import ConformanceError, HttpService, check_lookup

FAULTY = Path(__file__).parent / "faulty_lookups"
PEOPLE = {"42": {"name": "Jane"}, "7": {"name": "Zoë"}, "1": {"name": "Ann", "tags": [1, {"a": None}]}}


@pytest.fixture
def store():
    with HttpService(records={f"/{key}": record for key, record in PEOPLE.items()}) as service:
        yield service


async def check(kind, store, **more):
    return await check_lookup(kind, {"base": store.url, **more}, service=store, records=PEOPLE, plugins=FAULTY)


@pytest.mark.parametrize("kind", ["good", "Good"])
async def test_a_sound_lookup_passes_every_check(kind, store):
    report = await check(kind, store)
    report.raise_for_failures()
    assert [each.name for each in report.not_checked] == []
    assert f"lookup {kind}: 12 passed, 0 failed, 0 not checked" in str(report)


@pytest.mark.parametrize(
    ("kind", "found_by", "said"),
    [
        ("WrongLength", "length", "fetch_many returned 0 results for 1 key"),
        ("WrongOrder", "order", "gave a different record for"),
        ("accident", "away", "KeyError: 'name' (faulty_lookups/people.py, line "),
        ("swallow", "away", "the lookup returned None"),
        ("text", "mapping", "the record must be a mapping, but it is a value of type str"),
        ("raises_for_missing", "missing", "the lookup gave KeyError"),
        ("Blocks", "blocking", "people.py:"),
        ("stays", "cancellation", "the fetch did not end within 1 s after it was cancelled"),
        ("tells", "secrets", "token=***, event=asking"),
        ("ascii_only", "unicode", "UnicodeEncodeError"),
        ("LeavesTask", "tasks", "task was left after close: sleep"),
    ],
)
async def test_a_fault_is_found_by_exactly_its_check(kind, found_by, said, store):
    report = await check(kind, store)
    assert [each.name for each in report.failed] == [found_by], str(report)
    assert said in report.failed[0].detail
    assert store.requests[-1].headers["authorization"] == "hidden-token-1234"
    assert "hidden-token" not in str(report)
    with pytest.raises(ConformanceError, match=f"{found_by} +FAILED"):
        report.raise_for_failures()


async def test_the_built_in_lookups_pass_too(store, tmp_path):
    (tmp_path / "people.json").write_text('{"42": {"name": "Jane"}, "7": {"name": "Zoë"}}')
    some = {key: PEOPLE[key] for key in ("42", "7")}
    report = await check_lookup("file", {"path": tmp_path / "people.json"}, records=some)
    report.raise_for_failures()
    assert {each.name for each in report.not_checked} <= {"away", "cancellation"}
    url = f"{store.url}/{{{{ payload.key }}}}"
    report = await check_lookup("http", {"url": url, "allow_private": True}, service=store, records=PEOPLE)
    report.raise_for_failures()
    assert report.not_checked == ()


async def test_without_records_and_service_the_report_says_what_was_not_checked(store):
    report = await check_lookup("good", {"base": store.url}, plugins=FAULTY)
    assert [each.name for each in report.not_checked] == ["finds", "mapping", "away"]
    report.raise_for_failures()


async def test_a_record_that_differs_is_a_fault(store):
    report = await check_lookup("good", {"base": store.url}, records={"42": {"name": "Joe"}}, plugins=FAULTY)
    assert [each.name for each in report.failed] == ["finds"]
    assert "the key '42' gave {'name': 'Jane'}, not {'name': 'Joe'}" in report.failed[0].detail


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("nothing", {}, "nothing"),
        ("good", {}, "`base` is required"),
        ("good", {"base": "x", "tll": "5m"}, "unknown key"),
    ],
)
async def test_options_and_types_that_do_not_exist_are_refused(kind, options, said):
    with pytest.raises(ConfigError, match=said):
        await check_lookup(kind, options, plugins=FAULTY)
