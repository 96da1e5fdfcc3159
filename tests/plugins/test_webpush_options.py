"""The options of the webpush sink: keys, subject, urgency, and where subscriptions may come from."""

import json
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from router.core.rendering import TemplateEnvironment, compile_options
from router.core.rendering.sandbox.lookup_records import Record
from router.errors import AddressError, Reason
from router.options import RedisTarget
from tests.support.browsers import VAPID_KEY, Browser, options
from tests.support.process import run
from tests.support.sinks import RECEIVED, make_event, validate

JANE, JOE = (Browser("https://push.example.org", name).subscription for name in ("jane", "joe"))


def pem(private, form=PrivateFormat.PKCS8):
    return private.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


P256 = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    "key", [VAPID_KEY, f" {VAPID_KEY}=\n", pem(P256), f"\n{pem(P256, PrivateFormat.TraditionalOpenSSL)}"]
)
def test_a_key_is_a_pem_or_base64url(key):
    validate("webpush", options(vapid_private_key=key))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vapid_private_key": "placeholder-not"}, "not a private key of the curve P-256"),
        ({"vapid_private_key": pem(ec.generate_private_key(ec.SECP384R1()))}, "not a private key of the curve P-256"),
        ({"vapid_private_key": pem(rsa.generate_private_key(65537, 2048))}, "not a private key of the curve P-256"),
        ({"vapid_private_key": "-----BEGIN PRIVATE KEY-----"}, "not a private key of the curve P-256"),
        ({"vapid_private_key": "A" * 43}, "not a private key of the curve P-256"),
        ({"vapid_subject": "ops@example.org"}, "must be mailto: and a mail address, or an https:// URL"),
        ({"vapid_subject": "mailto:ops"}, "is not a mail address"),
        ({"vapid_subject": "mailto:a@example.org,b@example.org"}, "must name one mail address"),
        ({"vapid_subject": "http://example.org"}, "must be mailto:"),
        ({"urgency": "critical"}, "must be one of very-low, low, normal, high"),
        ({"ttl": "30d"}, "less than or equal to 2419200"),
        ({"gone": {"publish": "gone:{{ payload.user_id }}"}}, "must be a literal channel"),
        ({"subscriptions": []}, "must not be empty"),
    ],
)
def test_what_can_not_work_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said) as raised:
        validate("webpush", options(**changes))
    assert VAPID_KEY not in str(raised.value)


def test_check_knows_the_channel_that_the_sink_writes_to():
    assert list(validate("webpush", options()).redis_targets) == []
    told = validate("webpush", options(gone={"publish": "push:gone"})).redis_targets
    assert list(told) == [RedisTarget("channel", "push:gone", "gone")]


def rendered(subscriptions, payload=None, **records):
    """The options of a delivery with these subscriptions."""
    compiled = compile_options(
        validate("webpush", options(title="t", text="", subscriptions=subscriptions)),
        TemplateEnvironment(lookups=["user"]).with_lookups,
    )
    return compiled.render(
        make_event(payload), RECEIVED.timestamp(), {name: Record(fields) for name, fields in records.items()}
    )


@pytest.mark.parametrize(
    ("subscriptions", "payload", "user"),
    [
        ("{{ payload }}", JANE, {}),
        ("{{ payload.browsers }}", {"browsers": [JANE, JOE, JANE]}, {}),
        ("{{ user.browsers }}", {}, {"browsers": [JANE, JOE]}),
        ("{{ user.browsers }}", {}, {"browsers": json.dumps([JANE, JOE])}),
        ("{{ user.browsers }}", {}, {"browsers": [json.dumps(JANE), json.dumps(JOE)]}),
        (["{{ payload.browser }}", "{{ user.browsers }}"], {"browser": JANE}, {"browsers": [JOE, JANE]}),
        (["{{ payload.browser }}", json.dumps(JOE)], {"browser": JANE}, {}),
        (json.dumps([JANE, JOE]), {}, {}),
    ],
)
def test_subscriptions_are_mappings_or_their_json(subscriptions, payload, user):
    found = rendered(subscriptions, payload, user=user)
    expected = [JANE] if payload == JANE else [JANE, JOE]
    assert found.options.subscriptions == expected
    assert list(found.addresses) == [each["endpoint"] for each in expected]


@pytest.mark.parametrize("value", [None, [], "", " ", "null", "[]"])
def test_a_user_without_a_browser_is_no_failure(value):
    assert rendered("{{ payload.browsers }}", {"browsers": value}).suppressed is Reason.NO_ADDRESS
    assert rendered("{{ user.browsers }}", {}, user={}).suppressed is Reason.NO_ADDRESS


@pytest.mark.parametrize(
    "value",
    [True, 7, "https://push.example.org/1", '"[]"', [[JANE]], {"keys": {}}, [JANE, {"endpoint": 7}], "[" * 5000],
)
def test_what_is_no_subscription_is_no_address(value):
    with pytest.raises(AddressError, match=r"^subscriptions: "):
        rendered("{{ payload.browsers }}", {"browsers": value})


def test_a_delivery_for_one_browser_keeps_that_one_alone():
    compiled = compile_options(validate("webpush", options(subscriptions="{{ payload }}")), TemplateEnvironment())
    event = make_event([JANE, JOE], address=JOE["endpoint"])
    event_options = compile_options(
        validate("webpush", options(title="t", text="", subscriptions="{{ payload }}")), TemplateEnvironment()
    ).render(event, 0.0)
    assert event_options.options.subscriptions == [JOE]
    assert compiled.recipients(event_options.options) == (JOE["endpoint"],)


def test_without_the_libraries_check_names_the_command(monkeypatch, tmp_path):
    """In a process of its own the libraries are hidden by a module of the same name that can't be imported."""
    for name in ("http_ece", "py_vapid"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValidationError, match=r"pip install 'event-router\[webpush\]'"):
            validate("webpush", options())
        monkeypatch.undo()
    (tmp_path / "http_ece.py").write_text("raise ImportError")
    config = {
        "version": 1,
        "sources": {"web-app": {"type": "pubsub", "channels": ["notification"]}},
        "sinks": {"browsers": {"type": "webpush", **options(vapid_private_key="${NOT_SET}")}},
        "routes": [{"id": "all", "sinks": ["browsers"]}],
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    missing = run("check", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert missing.code == 78
    assert "sinks.browsers" in missing.err + missing.out
    assert "pip install 'event-router[webpush]'" in missing.err + missing.out
    (tmp_path / "http_ece.py").unlink()
    found = run("check", cwd=tmp_path)
    assert found.code == 0, found.err + found.out
