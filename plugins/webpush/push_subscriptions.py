"""Push subscriptions as browsers give them: `{endpoint, keys: {p256dh, auth}}`.

This is the result of `PushSubscription.toJSON` in the W3C Push API.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from router.api import PermanentError

_POINT_BYTES = 65
_AUTH_BYTES = 16
_PORT = 443


class Subscription(NamedTuple):
    """The subscription of one browser: the URL for messages, the origin of the URL, and the keys for the encryption."""

    endpoint: str
    origin: str
    key: bytes
    """The public key of the browser: an uncompressed point of P-256."""
    auth: bytes
    """The secret that the browser shares with the app."""


def read_subscription(value: Mapping[str, Any]) -> Subscription:
    """Return the subscription in a mapping. Raises `PermanentError`, whose text quotes no part of the subscription."""
    keys = value.get("keys")
    if not isinstance(keys, Mapping):
        raise PermanentError("the subscription has no `keys`: store the whole JSON that the browser gave")
    key = _bytes(keys.get("p256dh"), "p256dh", _POINT_BYTES)
    auth = _bytes(keys.get("auth"), "auth", _AUTH_BYTES)
    endpoint = str(value.get("endpoint"))
    return Subscription(endpoint, _origin(endpoint), key, auth)


def _origin(endpoint: str) -> str:
    """Return the origin of a URL in the format of RFC 6454. The HTTP client checks whether the address is allowed."""
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if not host or url.scheme != "https":
        raise PermanentError("the endpoint of the subscription is not an https:// URL")
    if ":" in host:  # py-vapid can't sign for this origin
        raise PermanentError("the endpoint of the subscription is an IPv6 address, but a push service has a host name")
    return f"https://{host}" if port in {None, _PORT} else f"https://{host}:{port}"


def _bytes(value: Any, name: str, length: int) -> bytes:
    """Return the bytes of a key. Some libraries store plain base64 instead of base64url, and some keep the padding."""
    text = value.strip().rstrip("=").replace("+", "-").replace("/", "_") if isinstance(value, str) else ""
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != length:
        raise PermanentError(
            f"`keys.{name}` of the subscription is not base64url of the right size (in bytes: {length})"
        )
    return found
