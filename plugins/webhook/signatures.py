"""The headers that sign a request. A signature proves who sent the request, and that nobody has changed it.

Standard Webhooks signs id, time and body (https://www.standardwebhooks.com). GitHub signs only the body
(https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from router.api import Secret

PREFIX = "whsec_"
ASYMMETRIC = ("whsk_", "whpk_")


def secret_fault(secret: Secret) -> str | None:
    """Return why a secret can't be used for Standard Webhooks, or None if the secret is valid.

    A valid secret is base64, with or without `whsec_`.
    """
    text = secret.get_secret_value()
    if secret.is_placeholder:
        return None
    if text.startswith(ASYMMETRIC):
        return "is an asymmetric key, but only a shared secret can be used here: `whsec_` followed by base64"
    try:
        # The library accepts base64 without padding, and ignores other characters. Here, other characters are refused.
        key = base64.b64decode(_padded(text.removeprefix(PREFIX)), validate=True)
    except (binascii.Error, ValueError):
        return "is not a secret of Standard Webhooks: write `whsec_` followed by base64"
    return None if key else "must not be empty"


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def message_id(keys: Iterable[str]) -> str:
    """Return the id of a message, made from the idempotency keys of its deliveries. Every attempt has the same id."""
    return f"msg_{hashlib.sha256(chr(10).join(keys).encode()).hexdigest()[:32]}"


class Signer:
    """The signer of one sink, which signs with each of the sink's secrets."""

    def __init__(self, signing_secrets: Sequence[Secret], hmac_secret: Secret | None) -> None:
        self._webhooks = [Webhook(secret.get_secret_value()) for secret in signing_secrets]
        self._hmac = None if hmac_secret is None else hmac_secret.get_secret_value().encode()

    def headers(self, message: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers that sign a body.

        `message` is the message's id, `now` the time in seconds since the epoch.
        """
        found: dict[str, str] = {}
        if self._webhooks:
            at = datetime.fromtimestamp(int(now), UTC)
            text = body.decode()
            signatures = [webhook.sign(message, at, text) for webhook in self._webhooks]
            found = {"webhook-timestamp": str(int(now)), "webhook-signature": " ".join(signatures)}
        if self._hmac is not None:
            found["X-Hub-Signature-256"] = f"sha256={hmac.new(self._hmac, body, hashlib.sha256).hexdigest()}"
        return found
