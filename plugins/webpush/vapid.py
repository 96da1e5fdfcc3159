"""The proof of the sender's identity: VAPID, RFC 8292."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from py_vapid import Vapid02

from router.api import Clock, Recent, Secret

VALID_FOR = 12 * 3600
"""The lifetime of a token in seconds. A push service refuses a token that is valid for more than 24 hours by the
service's clock."""

RENEWED_BEFORE = 3600
"""A token is replaced this many seconds before it expires. The margin is needed because clocks differ."""

REMEMBERED_SERVICES = 100

_CURVE = "secp256r1"
_KEY_BYTES = 32
_NO_KEY = "is not a private key of the curve P-256: a PEM, or its 32 bytes as base64url"


def read_key(secret: Secret) -> Any:
    """Return the private key in a secret. The secret is a PEM text, or the 32 bytes of the private number as base64url.

    Raises `ValueError` for any other text.
    """
    text = secret.get_secret_value().strip()
    try:
        if text.startswith("-----BEGIN"):
            vapid = Vapid02.from_pem(text.encode())
        else:
            if len(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)) != _KEY_BYTES:
                raise ValueError(_NO_KEY)
            vapid = Vapid02.from_raw(text.rstrip("=").encode())
        if vapid.private_key.curve.name != _CURVE:
            raise ValueError(_NO_KEY)
    except (ValueError, TypeError, AttributeError, binascii.Error, UnsupportedAlgorithm):
        raise ValueError(_NO_KEY) from None
    return vapid


class Signer:
    """Makes the header that proves the sender's identity to a push service.

    One token is used for all messages to a service for hours.
    """

    def __init__(self, key: Secret, subject: str, clock: Clock) -> None:
        self._vapid = read_key(key)
        self._vapid.conf = {
            "no-strict": True
        }  # the options have checked the subject; the library would refuse the path of a URL
        self._subject = subject
        self._clock = clock
        self._made = Recent(REMEMBERED_SERVICES)

    def header(self, origin: str) -> str:
        """Return the value of `Authorization` for a push service, given the origin of its URLs."""
        now = int(self._clock.now())
        until, header = self._made.get(origin, (0, ""))
        if not now < until - RENEWED_BEFORE <= now + VALID_FOR:  # replaced also if the clock was set back
            until = now + VALID_FOR
            claims = {"aud": origin, "exp": until, "sub": self._subject}
            header = self._vapid.sign(claims)["Authorization"]
            self._made[origin] = (until, header)
        return str(header)
