"""The recipes for services: each service accepts what its recipe sends, and refuses what breaks its rules."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import yaml

from router.errors import PermanentError, SinkError, TransientError
from router.testing import RecordingRouter
from tests.support.http import stand_in
from tests.support.process import ROOT
from tests.support.services import Matrix, Ntfy, PagerDuty, Service, Twilio, WhatsApp
from tests.support.waiting import until

RECIPES = ROOT / "docs" / "recipes"
LONG = "\U0001f680 y" * 4000
"""A text over every limit, however its length is counted."""
ANN = {"user": {"user:42": {"name": "Ann", "phone": "+4915112345678", "whatsapp": "4915112345678", "wants_sms": "yes"}}}


class Fault(NamedTuple):
    """A change of a recipe that breaks a rule of its service, the error that follows, and a part of its text."""

    path: str
    value: Any
    says: str
    error: type[Exception] = PermanentError


@dataclass(frozen=True)
class Case:
    """A recipe with an event, what the service gets of it, and the faults that the service refuses."""

    recipe: str
    service: type[Service]
    sink: str
    channel: str
    payload: Mapping[str, Any]
    long: str
    """The field of the payload that may be long."""
    taken: Mapping[str, Any]
    """A part of what the service takes."""
    answer: str
    faults: list[Fault]
    wait: float = 5.0
    """The seconds until the next attempt after too many requests. Without Retry-After the sink waits 5 s."""
    lookups: Mapping[str, Any] = field(default_factory=dict)


ALERT = {"severity": "critical", "host": "web-1", "summary": "no answer"}
PAGERDUTY = Case(
    "pagerduty",
    PagerDuty,
    "pagerduty",
    "alerts.web",
    ALERT,
    "summary",
    {"routing_key": PagerDuty.secret, "event_action": "trigger"},
    "HTTP 202",
    [
        Fault("json.routing_key", "short", "routing_key"),
        Fault("json.event_action", "open", "event_action"),
        Fault("json.dedup_key", "{{ 'x' * 256 }}", "dedup_key"),
        Fault("json.payload.severity", "urgent", "severity"),
        Fault("json.payload.summary", LONG, "summary"),
        Fault("json.payload.source", "", "source"),
        Fault("json.payload.timestamp", "noon", "timestamp"),
        Fault("json.payload.custom_details", "{{ payload.host }}", "custom_details"),
        Fault("url", "/v2/alerts", "HTTP 404", SinkError),
        Fault("success", "answer.status == 'stored'", "HTTP 202"),
    ],
)
TWILIO = Case(
    "sms-by-twilio",
    Twilio,
    "news-sms",
    "order-news",
    {"user_id": 42, "message": "Grüße & mehr"},
    "message",
    {"To": "+4915112345678", "From": Twilio.number, "Body": "Grüße & mehr"},
    "HTTP 201, id SM00000000000000000000000000000001",
    [
        Fault("auth.password", "wrong", "20003", SinkError),
        Fault("form.To", "0151 12345", "21211"),
        Fault("form.To", "", "21604"),
        Fault("form.From", "", "21603"),
        Fault("form.From", "+1999", "21659"),
        Fault("form.Body", "", "21602"),
        Fault("form.Body", "{{ payload.message * 200 }}", "21617"),
        Fault("url", "/2010-04-01/Accounts/AC1/Messages.json", "20404", SinkError),
    ],
    wait=2.0,
    lookups=ANN,
)
NTFY = Case(
    "push-by-ntfy",
    Ntfy,
    "phones",
    "alerts.web",
    ALERT,
    "summary",
    {"topic": "example-alerts", "title": "web-1", "message": "no answer", "priority": 5, "tags": ["rotating_light"]},
    "HTTP 200, id m00000000001",
    [
        Fault("auth.bearer", "tk_wrong", "40101", SinkError),
        Fault("json.topic", "two words", "40009"),
        Fault("json.priority", 6, "40007"),
        Fault("json.priority", "high", "40017"),
        Fault("json.tags", [7], "40017"),
        Fault("json.message", LONG, "40014"),
        Fault("url", "/alerts/json", "40401", SinkError),
    ],
)
MATRIX = Case(
    "matrix-room",
    Matrix,
    "room",
    "deployments",
    {"service": "shop", "version": "1.2", "environment": "production", "outcome": "failed", "error": "no disk"},
    "error",
    {"msgtype": "m.text", "body": "shop 1.2 failed: no disk"},
    "HTTP 200, id $event0",
    [
        Fault("auth.bearer", "wrong", "M_UNKNOWN_TOKEN", SinkError),
        Fault("auth", None, "M_MISSING_TOKEN", SinkError),
        Fault("method", "POST", "M_UNRECOGNIZED"),
        Fault("url", "/_matrix/client/v3/rooms/!other:example.org/send/m.room.message/{{ event.key }}", "M_FORBIDDEN"),
        Fault("json", {"msgtype": "m.text"}, "M_BAD_JSON"),
        Fault("json", {"msgtype": "m.text", "body": LONG * 3}, "M_TOO_LARGE"),
        Fault("headers", {"Content-Type": "text/plain"}, "M_NOT_JSON"),
    ],
    wait=2.0,
)
WHATSAPP = Case(
    "whatsapp",
    WhatsApp,
    "whatsapp",
    "order-news",
    {"user_id": 42, "message": "your order A-7\nis on its\tway."},
    "message",
    {"messaging_product": "whatsapp", "to": "4915112345678", "type": "template"},
    "HTTP 200",
    [
        Fault("auth.bearer", "expired", "190", SinkError),
        Fault("json.messaging_product", "sms", "100"),
        Fault("json.to", "ann", "131009"),
        Fault("json.type", "text", "131008"),
        Fault("json.biz_opaque_callback_data", "x" * 513, "100"),
        Fault("json.template.name", "order_news", "132001", SinkError),
        Fault("json.template.components", [], "132000"),
        Fault("json.template.components.0.parameters.1.text", "", "132012"),
        Fault("json.template.components.0.parameters.1.text", "{{ payload.message }}", "new-line"),
        Fault("json.template.components.0.parameters.1.text", "y" * 1024, "132005"),
        Fault("url", "/v23.0/1/messages", "(#33)"),
    ],
    lookups=ANN,
)
CASES = [PAGERDUTY, TWILIO, NTFY, MATRIX, WHATSAPP]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.recipe)


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    """The credentials of all services."""
    names = {"pagerduty": PagerDuty, "twilio": Twilio, "ntfy": Ntfy, "matrix": Matrix, "whatsapp": WhatsApp}
    for name, service in names.items():
        (tmp_path / name).write_text(service.secret)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", Twilio.account)


def document_of(case: Case, url: str) -> dict[str, Any]:
    """The configuration of a recipe, whose service is at a URL of this machine. Its tests are left out."""
    document = yaml.safe_load((RECIPES / f"{case.recipe}.yaml").read_text().replace(case.service.host, url))
    del document["tests"]
    for schema in document.get("schemas", []):
        schema["file"] = str(RECIPES / schema["file"])
    own = {"allow_private": True, "retry": {"initial": "10ms"}}
    common = document.get("defaults", {}).pop("webhook", {})
    sinks = document["sinks"]
    return document | {"sinks": {n: {**common, **s, **own} if s["type"] == "webhook" else s for n, s in sinks.items()}}


def broken(case: Case, document: dict[str, Any], url: str) -> dict[str, Any]:
    """A configuration with one copy of the recipe's sink for each fault, and one route to all of them."""
    sinks = {f"fault-{number}": copy.deepcopy(document["sinks"][case.sink]) for number in range(len(case.faults))}
    for sink, fault in zip(sinks.values(), case.faults, strict=True):
        sink.pop("fallback", None)
        place, (*path, last) = sink, fault.path.split(".")
        for word in path:
            place = place[int(word) if isinstance(place, list) else word]
        place[last] = url + fault.value if fault.path == "url" else fault.value
        if fault.value is None:
            del place[last]
    return document | {"sinks": sinks, "routes": [{"id": "all", "sinks": [*sinks]}]}


@contextlib.asynccontextmanager
async def recipe(case: Case, *, faults: bool = False) -> AsyncIterator[tuple[Any, RecordingRouter]]:
    """The stand-in of a recipe's service, and a router that sends to it as the recipe says, or with the faults."""
    service = case.service()
    async with stand_in() as server:
        server.rule = service.answer
        document = document_of(case, server.url)
        called = [case.sink]
        if faults:
            document = broken(case, document, server.url)
            called = [*document["sinks"]]
        async with RecordingRouter(document, call=called, lookups=case.lookups) as router:
            yield service, router


@each_case
async def test_the_service_accepts_what_the_recipe_sends(case, secrets):
    async with recipe(case) as (service, router):
        router.publish(case.channel, case.payload)
        await router.settled()
        router.publish(case.channel, {**case.payload, case.long: LONG})
        await router.settled()
        first, second = router.attempts(case.sink)
        assert (first.error, second.error, router.dead_letters) == (None, None, [])
        assert first.answer == case.answer
        assert len(service.taken) == 2
        assert case.taken.items() <= service.taken[0].items()


@each_case
async def test_a_message_that_breaks_a_rule_is_refused(case, secrets):
    """Each fault is that of the message, a dead letter, or that of the sink, which waits until it is corrected."""
    async with recipe(case, faults=True) as (service, router):
        router.publish(case.channel, case.payload)
        for number, fault in enumerate(case.faults):
            await until(lambda sink=f"fault-{number}": router.attempts(sink), fault)
            error = router.attempts(f"fault-{number}")[0].error
            assert type(error) is fault.error, (fault, error)
            assert fault.says in str(error), (fault, error)
        permanent = {f"fault-{number}" for number, fault in enumerate(case.faults) if fault.error is PermanentError}
        await until(lambda: len(router.dead_letters) == len(permanent))
        assert {(letter.sink, letter.reason) for letter in router.dead_letters} == {
            (each, "permanent") for each in permanent
        }
        assert len(service.taken) == sum(fault.path == "success" for fault in case.faults)


@each_case
async def test_too_many_requests_are_retried_when_the_service_says(case, secrets):
    async with recipe(case) as (service, router):
        service.busy = True
        router.publish(case.channel, case.payload)
        await until(lambda: router.attempts(case.sink))
        error = router.attempts(case.sink)[0].error
        assert isinstance(error, TransientError)
        assert error.retry_after == case.wait
        assert service.taken == []


async def test_a_limit_of_whatsapp_is_known_by_its_code_whatever_the_status(secrets):
    async with recipe(WHATSAPP) as (service, router):
        service.busy, service.too_many_status = True, 400
        router.publish(WHATSAPP.channel, WHATSAPP.payload)
        await until(lambda: router.attempts("whatsapp"))
        assert isinstance(router.attempts("whatsapp")[0].error, TransientError)


@pytest.mark.parametrize("case", [PAGERDUTY, MATRIX], ids=lambda case: case.recipe)
async def test_a_message_whose_answer_was_lost_is_sent_again_and_kept_once(case, secrets):
    async with recipe(case) as (service, router):
        service.lost_answers = 1
        router.publish(case.channel, case.payload)
        await router.settled()
        key = router.attempts(case.sink)[-1].event.key
        router.publish(case.channel, case.payload)
        await router.settled()
        other = router.attempts(case.sink)[-1].event.key
    if case is PAGERDUTY:
        assert service.alerts == {key: 2, other: 1}
    else:
        assert list(service.events) == [key, other]
