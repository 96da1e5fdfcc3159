"""The judgement of refusals by push services: a refusal concerns the whole sink, or only one subscription."""

from __future__ import annotations

from router.api import Recent, SinkError, TransientError

REMEMBERED_ENDPOINTS = 1_000

ASK_AGAIN = 600.0
"""Seconds until the next attempt for a subscription after a refusal that does not stop the whole sink."""


class Blame:
    """The record of whether any service has accepted the sink's credentials.

    Subscriptions come from browsers, so any user can name a server that refuses everything. Such a server must not
    delay the messages to all other users. A refusal therefore stops the whole sink only under two conditions. No
    service has accepted a message of the sink yet, and it is the first refusal of the subscription. Every other refusal
    concerns only the subscription.
    """

    def __init__(self) -> None:
        self._accepted = False
        self._refused = Recent(REMEMBERED_ENDPOINTS)

    def accepted(self) -> None:
        """Record that a push service has accepted a message."""
        self._accepted = True

    def judge(self, error: SinkError, endpoint: str) -> SinkError | TransientError:
        """Return the error for a refusal: `error` if it concerns the whole sink, else an error for one subscription."""
        if not self._accepted and endpoint not in self._refused:
            self._refused[endpoint] = True
            return error
        wait = ASK_AGAIN if error.retry_after is None else error.retry_after
        return TransientError(str(error), retry_after=wait, scope="address")
