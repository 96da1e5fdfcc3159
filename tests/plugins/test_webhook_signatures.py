"""The webhook sink: requests that prove who sent them, verified by other code than the sink's."""

import base64
import hashlib
import hmac
import ssl
import time

import pytest
import trustme
from standardwebhooks import Webhook, WebhookVerificationError

from router.errors import SinkError, TransientError
from tests.support.http import stand_in
from tests.support.javascript import asked_of_javascript, needs_javascript
from tests.support.sinks import make_event
from tests.support.webhooks import WHSEC as OLD
from tests.support.webhooks import posting, webhook

NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
UNPADDED = "c2VjcmV0IHdpdGhvdXQgaXRzIHByZWZpeA"  # neither prefix nor padding
STRANGER = "whsec_" + base64.b64encode(b"another secret, of somebody else").decode()
EVENT = make_event({"text": 'quotes ", {{ braces }}, \n, 😀 and \u2028'})


async def signed(**options):
    """The request of an event, signed as the options say."""
    async with posting(**options) as (server, sink):
        await sink.deliver(EVENT)
    return server.last


FORMS = [
    {},
    {"body": "raw"},
    {"json": {"text": "{{ payload.text }}"}},
    {"form": {"text": "{{ payload.text }}"}},
    {"cloudevents": {"mode": "structured"}},
    {"method": "GET"},
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secrets", [OLD, [OLD, NEW], UNPADDED])
async def test_the_reference_library_verifies_every_form(form, secrets):
    seen = await signed(signing_secret=secrets, **form)
    for secret in secrets if isinstance(secrets, list) else [secrets]:
        Webhook(secret).verify(seen.body, dict(seen.headers), json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(STRANGER).verify(seen.body, dict(seen.headers), json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(seen.body + b" ", dict(seen.headers), json_parse=False)


async def test_the_signature_is_that_of_the_standard():
    """By the text of the standard: HMAC-SHA256 of `id.timestamp.body` by the decoded secret, in base64, after `v1,`."""
    seen = await signed(signing_secret=[OLD, NEW])
    at = seen.headers["webhook-timestamp"]
    assert abs(int(at) - time.time()) < 60
    content = f"{seen.headers['webhook-id']}.{at}.".encode() + seen.body
    expected = [
        base64.b64encode(hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), content, "sha256")).decode()
        for secret in (OLD, NEW)
    ]
    assert seen.headers["webhook-signature"] == " ".join(f"v1,{one}" for one in expected)


async def test_the_id_is_of_the_key_and_the_same_on_every_attempt():
    expected = f"msg_{hashlib.sha256(b'e-1:notify:sink-under-test').hexdigest()[:32]}"
    async with posting(signing_secret=OLD) as (server, sink):
        await sink.deliver(EVENT)
        await sink.deliver(make_event({}, attempt=2))
        await sink.deliver(make_event({}, address="jane"))
    first, again, other = (seen.headers["webhook-id"] for seen in server.requests)
    assert first == again == expected
    assert other != expected


@needs_javascript
async def test_the_reference_library_in_javascript_verifies_every_form():
    requests = []
    for form in FORMS:
        if "form" not in form and "method" not in form:  # this library reads the body as JSON
            seen = await signed(signing_secret=[OLD, NEW], **form)
            headers = {name.lower(): value for name, value in seen.headers.items()}
            one = {"kind": "webhook", "headers": headers, "body": seen.body.decode()}
            requests += [{**one, "secret": OLD}, {**one, "secret": NEW}, {**one, "secret": STRANGER}]
    told = asked_of_javascript(requests)
    assert len(told) == 12
    for place, answer in enumerate(told):
        if place % 3 == 2:
            assert "No matching signature" in answer["error"]
        else:
            assert "error" not in answer


async def test_github_s_signature_is_that_of_its_documentation():
    async with posting(hmac_secret="It's a Secret to Everybody", body="raw") as (server, sink):
        await sink.deliver(make_event(raw=b"Hello, World!", format="text"))
    # The values that GitHub gives for testing an implementation.
    expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert server.last.headers["X-Hub-Signature-256"] == expected


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ({"bearer": " T0P.SECRET= "}, "Bearer T0P.SECRET="),
        ({"username": "Aladdin", "password": "open sesame"}, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ({"username": "jané", "password": "pä:ss"}, f"Basic {base64.b64encode('jané:pä:ss'.encode()).decode()}"),
    ],
)
async def test_credentials(auth, header):
    seen = await signed(auth=auth)
    assert seen.headers.getall("Authorization") == [header]


# --- client certificates ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def demanding(authority):
    """The TLS of a server that asks for a certificate of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def pem(issued):
    return "".join(blob.bytes().decode() for blob in issued.cert_chain_pems), issued.private_key_pem.bytes().decode()


@pytest.mark.parametrize("apart", [True, False])
async def test_the_server_gets_the_client_s_certificate(authority, tmp_path, monkeypatch, apart):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    certificate, key = pem(authority.issue_cert("client.example.org"))
    given = {"certificate": certificate, "key": key} if apart else {"certificate": key + certificate}
    async with stand_in(demanding(authority)) as server:
        async with webhook({"url": server.url, "client_certificate": given}) as sink:
            assert await sink.deliver(EVENT) == "HTTP 200"
        own = pem(trustme.CA().issue_cert("client.example.org"))
        async with webhook(
            {"url": server.url, "client_certificate": {"certificate": own[0], "key": own[1]}}
        ) as stranger:
            with pytest.raises((TransientError, SinkError)):
                await stranger.deliver(EVENT)
    assert len(server.requests) == 1
