"""The body of a push message, which only the browser can read: RFC 8291, in the encoding `aes128gcm` of RFC 8188."""

from __future__ import annotations

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec

from router.api import PermanentError

from .push_subscriptions import Subscription

LONGEST = 3993
"""The largest number of bytes of a message. Every push service accepts a body of 4,096 bytes, and the header and the
tag need the rest."""


def encrypt(message: bytes, to: Subscription) -> bytes:
    """Return the encrypted body for one browser, made with a new key and salt. Raises `PermanentError`."""
    if len(message) > LONGEST:
        cure = "shorten `text`, for example with `| truncate(500)`"
        raise PermanentError(f"the notification is too large (in bytes: {len(message):,}, at most {LONGEST:,}): {cure}")
    once = ec.generate_private_key(ec.SECP256R1())
    try:
        body: bytes = http_ece.encrypt(message, private_key=once, dh=to.key, auth_secret=to.auth)
    except ValueError:
        raise PermanentError("`keys.p256dh` of the subscription is not a point of the curve P-256") from None
    return body
