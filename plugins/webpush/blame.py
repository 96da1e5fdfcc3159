"""Who is at fault if a push service refuses the sender: the sink, or the one subscription."""

from __future__ import annotations

from router.api import Recent, SinkError, TransientError

REMEMBERED_ENDPOINTS = 1_000

ASK_AGAIN = 600.0
"""Seconds until the next message to a subscription whose service refuses a sender that others accept."""


class Blame:
    """The memory of who accepted the sink's credentials.

    Subscriptions come from browsers, so any user can name a server that refuses everything. The refusal of one server must
    not hold back the messages to all other users. So the sink is at fault only as long as no service has accepted a message
    of it, and for the first refusal of each subscription: then another subscription is tried.
    """

    def __init__(self) -> None:
        self._accepted = False
        self._refused = Recent(REMEMBERED_ENDPOINTS)

    def accepted(self) -> None:
        """Record that a push service has accepted a message."""
        self._accepted = True

    def judge(self, error: SinkError, endpoint: str) -> SinkError | TransientError:
        """Return the error for a refusal: of the sink as it is, or one that concerns this subscription."""
        if not self._accepted and endpoint not in self._refused:
            self._refused[endpoint] = True
            return error
        wait = ASK_AGAIN if error.retry_after is None else error.retry_after
        return TransientError(str(error), retry_after=wait, scope="address")
