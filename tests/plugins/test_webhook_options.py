"""The webhook sink: what its options take and refuse."""

import pytest
import trustme
from pydantic import ValidationError

from router.core.rendering import TemplateEnvironment, TemplateFaults, compile_options
from tests.support.sinks import sink_type, validate
from tests.support.webhooks import WHSEC

URL = "https://hooks.example.org/in"
PEM = "-----BEGIN CERTIFICATE-----\nPRIVATE\n-----END CERTIFICATE-----\n"
LOCAL = "a private address; set `allow_private: true` on the sink"


def test_is_registered_with_the_defaults_of_a_durable_sink():
    registered = sink_type("webhook")
    assert (registered.queue, registered.concurrency, registered.local) == ("redis", 4, False)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"url": "http://127.0.0.1:1/x", "allow_private": True},
        {"url": "https://hooks.example.org/{{ payload.id }}/{% if payload.a %}b{% endif %}"},
        {"url": "https://hooks.example.org?q={{ payload.id }}"},
        {"body": "line", "batch_as": "lines"},
        {"signing_secret": WHSEC},
        {"signing_secret": [WHSEC, "c2VjcmV0IHdpdGhvdXQgaXRzIHByZWZpeA"]},
        {"signing_secret": "placeholder"},
        {"auth": {"username": "shop", "password": ""}},
        {"cloudevents": {}},
        {"cloudevents": {"source": "https://shop.example/{{ payload.shop }}"}},
        {"cloudevents": {"mode": "structured"}, "batch_as": "array"},
        {"cloudevents": {"mode": "binary"}, "json": {"a": 1}},
        {"client_certificate": {"certificate": "placeholder"}},
    ],
)
def test_takes(values):
    assert validate("webhook", {"url": URL, **values}).method == "POST"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"url": ""}, "`url` is not an http:// or https:// URL"),
        ({"url": "ftp://hooks.example.org/"}, "`url` is not an http:// or https:// URL"),
        ({"url": "https://hooks.example.org/a b"}, "`url` has a space"),
        ({"url": "https://hooks.example.org/é/{{ payload.id }}"}, "`url` has a space"),
        ({"url": "{{ payload.url }}"}, "write scheme and host without templates"),
        ({"url": "https://{{ payload.host }}/x"}, "write scheme and host without templates"),
        ({"url": "https://hooks.example.org{{ payload.path }}"}, "write scheme and host without templates"),
        ({"url": "https://user:pw@hooks.example.org/"}, "write `auth: {username"),
        ({"url": "https://user@hooks.example.org/{{ payload.id }}"}, "write `auth: {username"),
        ({"url": "http://127.0.0.1:8080/x"}, f"leads to 127.0.0.1, {LOCAL}"),
        ({"url": "http://localhost/{{ payload.id }}"}, f"leads to localhost, {LOCAL}"),
        ({"url": "http://2130706433/"}, LOCAL),
        ({"url": "http://[::ffff:10.0.0.1]/"}, LOCAL),
        ({"method": "POKE"}, "'POST', 'PUT', 'PATCH', 'DELETE' or 'GET'"),
        ({"headers": {"X A": "b"}}, "'X A' is not a valid name of a header"),
        ({"headers": {"": "b"}}, "'' is not a valid name of a header"),
        ({"headers": {"Content-Length": "1"}}, "the HTTP client sets the header Content-Length itself, so it can't be given here"),
        ({"headers": {"X-A": "b", "x-a": "c"}}, "the header x-a is given twice"),
        ({"headers": {"Webhook-Id": "x"}, "signing_secret": WHSEC}, "Webhook-Id, but `signing_secret` sets this header"),
        ({"headers": {"authorization": "x"}, "auth": {"bearer": "y"}}, "authorization, but `auth` sets this header"),
        ({"headers": {"ce-type": "x"}, "cloudevents": {}}, "ce-type, but `cloudevents` sets this header"),
        ({"headers": {"Content-Type": "x"}, "cloudevents": {}}, "Content-Type, but `cloudevents` sets this header"),
        ({"headers": {"X-Hub-Signature-256": "x"}, "hmac_secret": "y"}, "but `hmac_secret` sets this header"),
        ({"body": "raw", "json": {"a": 1}}, "only one of `body`, `json` can be given"),
        ({"body": "xml"}, "'line' or 'raw'"),
        ({"json": {"a": 1}, "form": {"a": "1"}}, "only one of `json`, `form` can be given"),
        ({"json": {"a": float("nan")}}, "JSON can't represent this number"),
        ({"json": ["a"]}, "valid dictionary"),
        ({"form": {"a": 1.5}}, "valid string"),
        ({"method": "GET", "json": {}}, "GET has no body, so `json` can't be given"),
        ({"method": "DELETE", "batch_as": "array"}, "DELETE has no body, so `batch_as` can't be given"),
        ({"form": {}, "batch_as": "array"}, "a `form` contains one event"),
        ({"cloudevents": {"source": "/my shop"}}, "is not a URI reference"),
        ({"cloudevents": {}, "form": {"a": "b"}}, "so `form` can't be given"),
        ({"cloudevents": {}, "body": "line"}, "so `body: line` can't be given"),
        ({"cloudevents": {}, "batch_as": "array"}, "`mode: structured` and `batch_as: array`"),
        ({"cloudevents": {"mode": "structured"}, "batch_as": "lines"}, "`mode: structured` and `batch_as: array`"),
        ({"signing_secret": "whsec_not base64!"}, "is not a secret of Standard Webhooks"),
        ({"signing_secret": "whsec_"}, "must not be empty"),
        ({"signing_secret": []}, "must not be empty"),
        ({"signing_secret": [WHSEC, "whsec_é"]}, "is not a secret of Standard Webhooks"),
        ({"signing_secret": "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "is an asymmetric key"),
        ({"hmac_secret": ""}, "must not be empty"),
        ({"auth": {}}, "give `bearer`, or `username` and `password`"),
        ({"auth": {"bearer": "a", "username": "b", "password": "c"}}, "give `bearer`, or `username` and `password`"),
        ({"auth": {"username": "b"}}, "`username` and `password` must be given together"),
        ({"auth": {"username": "a:b", "password": "c"}}, "has a colon"),
        ({"auth": {"bearer": "a b"}}, "a character that is not allowed in a token"),
        ({"success": ""}, "at least 1 character"),
        ({"client_certificate": {"certificate": "PRIVATE"}}, "is not a PEM text (`-----BEGIN …`): write `${file:PATH}`"),
        ({"client_certificate": {"certificate": PEM, "key": "PRIVATE"}}, "is not a PEM text"),
        ({"client_certificate": {"certificate": PEM}}, "certificate and key can't be used"),
    ],
)  # fmt: skip
def test_refuses(values, says):
    with pytest.raises(ValidationError) as caught:
        validate("webhook", {"url": URL, **values})
    shown = "; ".join(error["msg"] for error in caught.value.errors())
    assert says in shown
    for secret in (WHSEC, "pw@", "PRIVATE", "whsec_not"):
        assert secret not in shown


def test_an_expression_is_compiled_with_the_options():
    options = validate("webhook", {"url": URL, "success": "answer.ok and payload.x", "retry_if": "{{ status }}"})
    with pytest.raises(TemplateFaults) as caught:
        compile_options(options, TemplateEnvironment())
    assert [(fault.path, fault.message) for fault in caught.value.faults] == [
        (("success",), "there is no `payload`; an expression can use answer, headers, status"),
        (("retry_if",), "write this expression without `{{` and `}}`"),
    ]


def test_a_certificate_that_does_not_fit_its_key_is_refused():
    one, other = (trustme.CA().issue_cert("client.example.org") for _ in range(2))
    pem = [blob.bytes().decode() for blob in (one.cert_chain_pems[0], other.private_key_pem)]
    with pytest.raises(ValidationError, match="key values mismatch"):
        validate("webhook", {"url": URL, "client_certificate": {"certificate": pem[0], "key": pem[1]}})
