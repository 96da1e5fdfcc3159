"""The apprise sink: what its targets get, what each failure means, and that no URL is shown."""

import asyncio
import json
import logging
import sys

import pytest
from pydantic import ValidationError

from router.core.rendering import TemplateEnvironment, TemplateFaults, compile_options
from router.errors import ConfigError, PartialError, PermanentError, TransientError
from router.ops.loading import load
from router.ops.loading.effective import effective
from router.testing import HttpService
from tests.support.http import Reply, closed_port, stand_in
from tests.support.process import run
from tests.support.sinks import make_event, open_sink, validate
from tests.support.waiting import until

TEXTS = {"title": "Order {{ payload.id }}", "body": "{{ payload.message }}"}
EVENT = make_event({"id": 7, "message": "<b>On its way</b>: 你好"})


def to(url, path="s3cret-path"):
    """The URL of Apprise for a server: its service `json` posts to it."""
    return f"json://jane:s3cret-word@{url.partition('://')[2]}/{path}"


async def failure(values, event=EVENT):
    """The error of a delivery with these options."""
    async with open_sink("apprise", {**TEXTS, **values}) as sink:
        with pytest.raises((TransientError, PermanentError, PartialError)) as raised:
            await sink.deliver(event)
    return raised.value


async def test_every_target_gets_the_message():
    with HttpService() as service:
        urls = [to(service.url, "one"), f"{to(service.url, 'two')}, {to(service.url, 'three')}"]
        async with open_sink("apprise", {"urls": urls, **TEXTS}) as sink:
            await sink.deliver(EVENT)
            assert len(sink.templates.recipients(sink.render(EVENT))) == 3
    assert sorted(seen.path for seen in service.requests) == ["/one", "/three", "/two"]
    sent = service.requests[0].json()
    assert (sent["title"], sent["message"]) == ("Order 7", "<b>On its way</b>: 你好")


async def test_the_json_line_is_the_default_for_literal_urls():
    with HttpService() as service:
        async with open_sink("apprise", {"urls": to(service.url)}) as sink:
            await sink.deliver(EVENT)
    assert json.loads(service.requests[0].json()["message"])["payload"]["id"] == 7
    with pytest.raises(ValidationError, match="`body` is required"):
        validate("apprise", {"urls": "{{ payload.url }}"})


@pytest.fixture
def logged(monkeypatch):
    """What reaches the router's log, whatever its level. (pytest's own `caplog` also listens to loggers apart from it.)"""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.DEBUG)
    return lines


async def test_each_target_fails_alone_and_no_url_is_shown(logged):
    event = make_event({"id": 7, "message": "hi", "urls": []})
    with HttpService() as service:
        away = closed_port()
        event.payload["urls"] += [to(service.url), to(away), "nosuch://s3cret-token", "tgram://s3cret"]
        error = await failure({"urls": "{{ payload.urls }}"}, event)
    assert service.received == 1
    shown = {address.partition("://")[0]: error.failures[address] for address in error.failures}
    assert {scheme: type(each) for scheme, each in shown.items()} == {
        "json": TransientError,
        "nosuch": PermanentError,
        "tgram": PermanentError,
    }
    assert len(error.failures) == 3
    assert all(len(address.partition("://")[2]) == 8 for address in error.failures)
    assert str(shown["json"])
    assert "s3cret" not in str(error)
    assert [line for line in logged if "Using selector" not in line] == []


@pytest.mark.parametrize("status", [400, 401, 404, 500, 302])
async def test_what_is_not_accepted_is_tried_again(status):
    async with stand_in() as server:
        server.default = Reply(status, headers={"Location": f"{server.url}/other"} if status == 302 else {})
        error = await failure({"urls": to(server.url)})
    assert type(error) is TransientError
    assert str(status) in str(error)
    assert [seen.path for seen in server.requests] == ["/s3cret-path"]


async def test_an_empty_message_fails_for_good():
    error = await failure(
        {"urls": "json://localhost", "title": " ", "body": "{{ payload.message }}"}, make_event({"message": ""})
    )
    assert type(error) is PermanentError


async def test_a_title_alone_is_the_message():
    """Apprise takes no title without a body, and would refuse it at every attempt."""
    with HttpService() as service:
        async with open_sink("apprise", {"urls": to(service.url), **TEXTS}) as sink:
            await sink.deliver(make_event({"id": 7, "message": ""}))
    sent = service.requests[0].json()
    assert (sent["title"], sent["message"]) == ("", "Order 7")


async def test_an_attempt_that_was_cut_off_asks_nobody_again():
    async with stand_in() as server:
        replies = {"/slow": Reply(how="hang"), "/broken": Reply(500)}
        server.rule = lambda seen: replies.get(seen.path, Reply(200))
        urls = [to(server.url, "quick"), to(server.url, "broken"), f"{to(server.url, 'slow')}?rto=0.5"]
        async with open_sink("apprise", {"urls": urls, **TEXTS}) as sink:
            answered = []
            in_thread = sink.context.run_blocking

            async def counting(*call):
                try:
                    await in_thread(*call)
                finally:
                    answered.append(call)

            sink.context.run_blocking = counting
            first = asyncio.create_task(sink.deliver(EVENT))
            await until(lambda: len(server.requests) == 3 and len(answered) == 2)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            server.rule = None
            with pytest.raises(PartialError) as raised:
                await sink.deliver(EVENT)
    assert len(raised.value.failures) == 1
    paths = [seen.path for seen in server.requests]
    assert (paths.count("/quick"), paths.count("/broken")) == (1, 1)


@pytest.mark.parametrize("url", ["nosuch://s3cret-token", "discord://s3cret-token", "tgram://s3cret"])
def test_a_url_that_can_not_work_is_refused_at_check(url):
    with pytest.raises(ValidationError) as raised:
        validate("apprise", {"urls": [url], "body": "x"})
    assert "`urls`: " in str(raised.value.errors()[0]["msg"])
    assert "s3cret" not in raised.value.errors()[0]["msg"]


def test_what_is_no_url_is_refused():
    with pytest.raises(ValidationError, match="must not be empty"):
        validate("apprise", {"urls": []})
    for value in (5, "s3cret-token", ["json:localhost"]):
        with pytest.raises(ValidationError, match="`urls`: not an Apprise URL: write the name of a service, `://` and"):
            validate("apprise", {"urls": value})
    options = validate("apprise", {"urls": "{{ payload.a }}", "body": "x"}).model_copy(
        update={"urls": ["s3cret-token"]}
    )
    with pytest.raises(TemplateFaults) as faults:
        compile_options(options, TemplateEnvironment())
    assert "s3cret" not in str(faults.value)


def test_without_the_library_check_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ValidationError, match=r"pip install 'event-router\[apprise\]'"):
        validate("apprise", {"urls": "json://localhost"})


CONFIG = """\
version: 1
sources: {web-app: {type: pubsub, channels: [notification]}}
lookups: {user: {type: redis-hash, key: "user:{{ payload.user_id }}"}}
sinks:
  ops: {type: apprise, urls: ["${OPS_URL}", "json://jane:s3cret-word@localhost/s3cret-path"], body: hi}
  jane: {type: apprise, urls: "{{ user.apprise }}", body: hi}
routes: [{id: all, sinks: [ops, jane]}]
"""


def test_urls_in_the_configuration_are_hidden_and_needed_by_no_check(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    loaded = load(file, environ={}, placeholders=True)
    [warned] = [each for each in loaded.problems if each.severity == "warning" and "in clear" in each.message]
    assert warned.path == "sinks.ops.urls[1]"
    assert "s3cret" not in str(warned)
    file.write_text(CONFIG.replace("json://jane:s3cret-word@localhost/s3cret-path", "tgram://s3cret"))
    with pytest.raises(ConfigError) as raised:
        load(file, environ={}, placeholders=True)
    assert "sinks.ops: `urls`: " in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_the_effective_configuration_hides_urls_and_shows_templates(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    shown = effective(file, environ={})
    assert "s3cret" not in shown
    assert "${OPS_URL}" in shown
    assert "{{ user.apprise }}" in shown


def test_the_first_configuration_passes_its_tests_whatever_the_url_is(tmp_path):
    assert run("init", ".", "--sink", "apprise", "--yes", cwd=tmp_path).code == 0
    done = run("test", cwd=tmp_path, env={"APPRISE_URLS": "json://localhost"})
    assert done.code == 0, done.out + done.err


async def test_the_server_of_a_recipient_says_nothing_about_the_sink():
    """Each user may name a server: one that fails must not hold up the others. The target of a team is that of the sink."""
    url = to(closed_port())
    event = make_event({"id": 7, "message": "hi", "url": url})
    assert (await failure({"urls": "{{ payload.url }}"}, event)).scope == "address"
    assert (await failure({"urls": url}, event)).scope is None
