"""The decision who is at fault if a push service refuses the sender: the sink, or one subscription."""

from __future__ import annotations

from router.api import Recent, SinkError, TransientError

REMEMBERED_ENDPOINTS = 1_000

ASK_AGAIN = 600.0
"""Seconds until the next message to a subscription whose service refuses a sender that other services accept."""


class Blame:
    """The record of whether any service has accepted the sink's credentials.

    Subscriptions come from browsers, so any user can name a server that refuses everything. The refusal of one server
    must not hold back the messages to all other users. So the sink counts as at fault only while no service has
    accepted one of its messages, and only for the first refusal of each subscription. After that, other subscriptions
    are tried.
    """

    def __init__(self) -> None:
        self._accepted = False
        self._refused = Recent(REMEMBERED_ENDPOINTS)

    def accepted(self) -> None:
        """Record that a push service has accepted a message."""
        self._accepted = True

    def judge(self, error: SinkError, endpoint: str) -> SinkError | TransientError:
        """Return the error for a refusal: the sink's error unchanged, or an error that concerns only this subscription."""
        if not self._accepted and endpoint not in self._refused:
            self._refused[endpoint] = True
            return error
        wait = ASK_AGAIN if error.retry_after is None else error.retry_after
        return TransientError(str(error), retry_after=wait, scope="address")
