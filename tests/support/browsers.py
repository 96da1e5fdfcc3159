"""Browsers with push subscriptions, and the push service that they use: loopback over TLS."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from router.ops.http import GuardedClient
from tests.support.http import StandIn, stand_in
from tests.support.sinks import FakeContext, OpenSink, open_sink

VAPID_KEY = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
"""A private key of P-256, as libraries for Web Push print it."""

VAPID_PUBLIC = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
SUBJECT = "mailto:ops@example.org"


def bytes_of(text: str) -> bytes:
    """The bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def text_of(content: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _hmac(key: bytes, content: bytes) -> bytes:
    from cryptography.hazmat.primitives.hmac import HMAC

    mac = HMAC(key, hashes.SHA256())
    mac.update(content)
    return mac.finalize()


def _expand(secret: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)


def decrypt(body: bytes, private: ec.EllipticCurvePrivateKey, auth: bytes) -> bytes:
    """The message in a body of one record: RFC 8291 section 3.4, RFC 8188 section 2."""
    salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
    sender, record = body[21 : 21 + length], body[21 + length :]
    assert len(record) <= size, "it is one record"
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    other = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
    shared = _hmac(auth, private.exchange(ec.ECDH(), other))
    ikm = _expand(shared, b"WebPush: info\0" + public + sender, 32)
    pseudorandom = _hmac(salt, ikm)
    key = _expand(pseudorandom, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _expand(pseudorandom, b"Content-Encoding: nonce\0", 12)
    message, delimiter, padding = AESGCM(key).decrypt(nonce, record, None).rpartition(b"\2")
    assert delimiter
    assert not padding.strip(b"\0")
    return message


class Browser:
    """A browser that has subscribed at a push service."""

    def __init__(self, service: str, name: str = "a") -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._auth = os.urandom(16)
        self.path = f"/push/{name}"
        self.endpoint = service + self.path

    @property
    def subscription(self) -> dict[str, Any]:
        """What `JSON.stringify(subscription)` gives the app."""
        public = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": text_of(public), "auth": text_of(self._auth)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    def read(self, body: bytes) -> Any:
        """The notification in a body, decrypted."""
        return json.loads(decrypt(body, self._private, self._auth))


@cache
def authority() -> trustme.CA:
    """The authority that the push service's certificate is from."""
    return trustme.CA()


def serving() -> ssl.SSLContext:
    """The TLS of the push service."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    """The TLS of a client that trusts the push service."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


def options(**more: Any) -> dict[str, Any]:
    """Options of a sink that sends to the browsers in the payload."""
    return {
        "subscriptions": "{{ payload.browsers }}",
        "vapid_private_key": VAPID_KEY,
        "vapid_subject": SUBJECT,
        "title": "Order {{ payload.id }}",
        "text": "{{ payload.message }}",
        **more,
    }


class BrowserContext(FakeContext):
    """A context with a client that trusts the push service, and with the Redis client that the test gives."""

    redis: Any = None


@contextlib.asynccontextmanager
async def pushing(*, allow_private: bool = True, **more: Any) -> AsyncIterator[tuple[StandIn, OpenSink]]:
    """A push service, and an open sink that may reach it."""
    client = GuardedClient(ssl_context=trusting(), allow_private=allow_private)
    try:
        async with (
            stand_in(serving()) as service,
            open_sink("webpush", options(**more), context=BrowserContext(http=client)) as sink,
        ):
            yield service, sink
    finally:
        await client.close()
