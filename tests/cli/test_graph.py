"""`event-router graph`."""

import json
from xml.etree import ElementTree as ET

from tests.support.process import ROOT, run
from tests.support.terminal import Terminal

EXAMPLE = ROOT / "docs" / "example"


def test_the_picture_of_the_documentation_is_the_one_that_the_command_draws():
    done = run("graph", "-c", "shop.yaml", cwd=EXAMPLE)
    assert done.code == 0, done.err
    assert done.out == (EXAMPLE / "shop.svg").read_text()
    assert done.err == ""


def test_the_picture_is_the_same_in_every_process(folder):
    drawn = {
        run("graph", "-c", "config.yaml", cwd=folder, env={"PYTHONHASHSEED": seed}).out for seed in ("1", "2", "3")
    }
    assert len(drawn) == 1


def test_json_has_the_nodes_and_edges(folder):
    done = run("graph", "-c", "config.yaml", "--json", cwd=folder)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert list(document) == ["nodes", "edges"]
    assert document["nodes"][0] == {
        "id": "source:web-app",
        "kind": "source",
        "name": "web-app",
        "detail": "pubsub: notification, orders.*",
        "title": "source web-app, pubsub: notification, orders.*",
        "state": "on",
        "final": False,
        "number": None,
    }
    assert {"start": "source:shell", "end": "route:everything", "kind": "events", "live": True} in document["edges"]
    ids = {node["id"] for node in document["nodes"]}
    assert {end for edge in document["edges"] for end in (edge["start"], edge["end"])} <= ids


def test_mermaid(folder):
    done = run("graph", "-c", "config.yaml", "--format", "mermaid", cwd=folder)
    assert done.code == 0, done.err
    assert done.out.startswith("flowchart LR\n  subgraph Sources\n")


def test_secrets_are_neither_needed_nor_shown(folder):
    text = (folder / "config.yaml").read_text()
    text = text.replace("[command]", '["${file:word}", "${NOT_SO_SECRET}"]').replace(
        "${REDIS_URL}", "redis://me:hidden-word@x"
    )
    text += "  - {id: extra, sinks: [page]}\n"
    text = text.replace(
        "sinks:\n  audit", 'sinks:\n  page: {type: chat, service: slack, url: "${HOOK}", text: hi}\n  audit'
    )
    (folder / "config.yaml").write_text(text)
    (folder / "word").write_text("a-long-secret-word")
    (folder / "word").chmod(0o600)
    for form in (["--format", "svg"], ["--format", "mermaid"], ["--json"]):
        done = run("graph", "-c", "config.yaml", *form, cwd=folder, env={"NOT_SO_SECRET": "plain"})
        assert done.code == 0, done.err
        assert "a-long-secret-word" not in done.out
        assert "hidden-word" not in done.out
        assert "plain" in done.out
        assert "page" in done.out


def test_a_short_secret_that_is_a_word_of_ours_harms_nothing(folder):
    text = (folder / "config.yaml").read_text().replace("[command]", '["${file:word}"]')
    (folder / "config.yaml").write_text(text)
    (folder / "word").write_text("route")
    (folder / "word").chmod(0o600)
    done = run("graph", "-c", "config.yaml", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert {node["kind"] for node in json.loads(done.out)["nodes"]} == {"source", "schema", "route", "sink"}
    ET.fromstring(run("graph", "-c", "config.yaml", cwd=folder).out)


def test_a_configuration_that_cannot_work_is_not_drawn(folder):
    (folder / "config.yaml").write_text("version: 1\nsources: {web: {type: pubsub, chanels: [a]}}\n")
    done = run("graph", "-c", "config.yaml", cwd=folder)
    assert done.code == 78
    assert done.out == ""
    assert "config.yaml:2:31: sources.web.chanels: unknown key" in done.err
    assert "`sinks` is required" in done.err


def test_on_a_terminal_it_says_how_to_keep_the_picture(folder):
    terminal = Terminal("graph", "-c", "config.yaml", cwd=folder)
    assert terminal.end() == 0
    assert terminal.shown.startswith(b"<svg")
    assert b"> graph.svg" in terminal.shown


def test_the_names_of_bash_are_completed(folder):
    done = run(
        cwd=folder, env={"_EVENT_ROUTER_COMPLETE": "bash_complete", "COMP_WORDS": "event-router gra", "COMP_CWORD": "1"}
    )
    assert done.out.splitlines() == ["plain,graph"]
