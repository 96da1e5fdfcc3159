"""`explain --dlq` and `dlq show --as-test`: a dead letter, explained with the configuration as it is now."""

from __future__ import annotations

import json

import yaml

from router.ops.loading import load
from tests.cli.test_dlq import Desk, letter, of_event
from tests.support.process import run

MAIL = {
    "type": "email",
    "host": "localhost",
    "from": "a@example.org",
    "to": "{{ payload.to }}",
    "subject": "s",
    "text": "{{ payload.message }}",
}


def explained(desk, *arguments, code=0):
    done = run("explain", "-c", desk.folder / "config.yaml", *arguments, cwd=desk.folder)
    assert done.code == code, done
    return done


def test_a_letter_is_explained_with_the_configuration_of_now(redis_server, tmp_path):
    desk = Desk(redis_server, tmp_path)
    desk.write(sinks={"audit": {"type": "log", "path": "a"}, "other": {"type": "log", "path": "o"}, "mail": MAIL})
    people = {"user_id": 1, "message": "hi", "to": ["a@example.org", "b@example.org"]}
    desk.put(
        letter(1),
        letter(2, payload=people, route="both", sink="other", channel="orders.7"),
        letter(3, sink="mail", route="notify"),
        of_event(4, payload={"user_id": 4}),
        of_event(5, payload={"user_id": "x"}),
        of_event(6, source="gone"),
        letter(7, payload=b"\xff{"),
        letter(8, version="99"),
    )
    made = json.loads(explained(desk, "--dlq", "l-1", "--json").out)
    assert (made["outcome"], made["routes"]) == ("routed", [])
    assert [(each["route"], each["sink"]) for each in made["deliveries"]] == [("notify", "audit")]
    assert made["event"]["id"] == "e-1"
    done = explained(desk, "--dlq", "l-2")
    assert "replay    one delivery of the route both, only to the sink other\n" in done.out
    assert (
        "note: this dead letter has the reason exhausted: 503 from the other side. A replay now would do this:\n"
        in done.err
    )
    assert done.out.startswith("event     channel orders.7, source web-app, id e-2\n")
    gone = json.loads(explained(desk, "--dlq", "l-3", "--json", code=1).out)
    assert gone["deliveries"][0]["suppressed"] == "orphaned"
    whole = json.loads(explained(desk, "--dlq", "e-4", "--json").out)
    assert (whole["outcome"], whole["routes"][0]["matched"]) == ("routed", True)
    assert (
        json.loads(explained(desk, "--dlq", "e-5", "--json", code=1).out)["schema"]["errors"][0]["pointer"]
        == "/user_id"
    )
    assert "there is no source 'gone' any more" in explained(desk, "--dlq", "e-6", code=1).out
    assert explained(desk, "--dlq", "l-7", "--fails", code=1).out.startswith(
        "decode    audit by notify: dead letter (decode)"
    )
    assert "was written by a newer event-router" in explained(desk, "--dlq", "l-8", code=1).err
    assert "there is no dead letter 'l-9'" in explained(desk, "--dlq", "l-9", code=1).err


def test_a_letter_as_a_test(redis_server, tmp_path):
    desk = Desk(redis_server, tmp_path)
    desk.put(letter(1, payload={"user_id": 1, "message": "${HOME} $$ \u202e"}), of_event(2, payload={"user_id": "x"}))
    done = explained(desk, "--dlq", "l-1", "--as-test")
    assert done.out == run("dlq", "show", "l-1", "--as-test", "-c", desk.folder / "config.yaml", cwd=desk.folder).out
    (entry,) = yaml.safe_load(done.out)
    assert entry["event"]["channel"] == "notification"
    assert entry["event"]["payload"] == {"user_id": 1, "message": "$${HOME} $$$ \u202e"}
    assert entry["expect"] == {"sinks": ["audit"]}
    (entry,) = yaml.safe_load(explained(desk, "--dlq", "e-2", "--as-test", code=1).out)
    assert entry["expect"] == {"rejected": "schema"}


def test_live_fetches_the_records_of_lookups(redis_server, tmp_path):
    desk = Desk(redis_server, tmp_path)
    (tmp_path / "companies.json").write_text('{"7": {"name": "ACME"}}')
    lookups = {
        "user": {"type": "redis-hash", "key": "user:{{ payload.user_id }}"},
        "company": {"type": "file", "path": "companies.json", "key": "{{ user.company }}"},
    }
    mail = {**MAIL, "to": "{{ user.email }}", "text": "{{ company.name }}", "only_if": "on(user.wants, true)"}
    routes = [{"id": "notify", "channels": ["notification"], "sinks": ["mail"]}]
    desk.write(lookups=lookups, sinks={"mail": mail, "other": MAIL}, routes=routes)
    redis_server.do("HSET", "user:42", "email", "jane@example.org", "company", "7")
    payload = ("--channel", "notification", '{"user_id": 42}')
    (named,) = json.loads(explained(desk, "--json", *payload).out)["deliveries"]
    assert (named["to"], named["rendered"]["text"]) == (["{{ user.email }}"], "{{ company.name }}")
    assert "not certain: the lookups company, user are not fetched" in explained(desk, *payload).out
    (live,) = json.loads(explained(desk, "--live", "--json", *payload).out)["deliveries"]
    assert (live["to"], live["rendered"]["text"], "detail" in live) == (["jane@example.org"], "ACME", False)
    (entry,) = yaml.safe_load(explained(desk, "--live", "--as-test", *payload).out)
    assert entry["lookups"] == {
        "user": {"user:42": {"email": "jane@example.org", "company": "7"}},
        "company": {"7": {"name": "ACME"}},
    }
    assert entry["expect"] == {"sinks": ["mail"], "to": {"mail": ["jane@example.org"]}, "text": {"mail": "ACME"}}
    done = explained(desk, "--as-test", *payload)
    (entry,) = yaml.safe_load(done.out)
    assert entry["expect"] == {"sinks": ["mail"]}
    assert (
        "warning: the test may expect the wrong result for mail, because the records of lookups were not fetched"
        in done.err
    )
    redis_server.do("HSET", "user:42", "wants", "no")
    (off,) = json.loads(explained(desk, "--live", "--json", *payload, code=1).out)["deliveries"]
    assert off["suppressed"] == "only_if"
    nobody = ("--channel", "notification", '{"user_id": 43}')
    done = explained(desk, "--live", "--fails", *nobody, code=1)
    assert done.out.startswith("lookup    mail by notify: dead letter (lookup), lookup user: there is no record")
    redis_server.kill()
    assert "lookup user" in explained(desk, "--live", *payload, code=69).err


def test_a_redis_that_is_away_is_69(redis_server, tmp_path):
    desk = Desk(redis_server, tmp_path)
    redis_server.kill()
    assert explained(desk, "--dlq", "l-1", code=69).out == ""
    assert load(desk.folder / "config.yaml", environ={}).config.sources
