"""Requests to a chat service, and the default meaning of the service's responses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from router.api import (
    Clock,
    HttpClient,
    PermanentError,
    SinkError,
    TransientError,
    check_response,
    quote_response,
    retry_after,
)

LONGEST_WAIT = 3600.0  # seconds; a larger number in a body is milliseconds, or a mistake


class OutOfReachError(TransientError):
    """Raised if no address can be reached for now: no connection, or too many requests."""


class NobodyError(PermanentError):
    """Raised if the service does not know the address."""


class NoPageError(SinkError):
    """Raised for a 404 that is not from the service's API: most likely `api` is wrong."""


class Seen(msgspec.Struct):
    """A response of a chat service. The secrets of the sink are hidden in it, in case the service echoes them."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    _data: dict[str, Any] | None = None

    @property
    def data(self) -> dict[str, Any]:
        """The JSON object in the body, decoded on first access. Empty if the body is not a JSON object."""
        if self._data is None:
            self._data = _object(self.body)
        return self._data

    def replaced(self, *, status: int | None = None, body: bytes | None = None) -> Seen:
        """Return a copy with another status or body."""
        return Seen(self.status if status is None else status, self.headers, self.body if body is None else body)

    @property
    def done(self) -> bool:
        """True if the status is a success."""
        return 200 <= self.status < 300

    @property
    def understood(self) -> bool:
        """False if the status is a success, but the response is from a login page or a proxy instead of the API."""
        return not self.done or bool(self.data) or self.body.strip() in {b"", b"ok", b"{}"}


def _object(body: bytes) -> dict[str, Any]:
    if not body or body[:1].isalpha():  # `ok`, the response of many webhooks
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


Judge = Callable[[Seen, float], None]
"""A function that judges a response. The second argument is the current time, which a date in Retry-After needs. The
function returns if the message was accepted, and raises a delivery error otherwise."""


def judge_status(seen: Seen, now: float, wait: Any = None, *, everywhere: bool = False) -> None:
    """Judge a response only by its status.

    `wait` is the delay in seconds from the body, or None if the body names no delay. If `everywhere` is true, a rate
    limit applies to the whole bot, else to one address.
    """
    try:
        check_response(seen, now=now)
    except TransientError as error:
        delays = (retry_after(seen.headers, now), bounded(wait), error.retry_after)
        kind = OutOfReachError if seen.status == 429 else TransientError
        scope = "sink" if everywhere else error.scope
        asked = next((seconds for seconds in delays if seconds is not None), None)
        raise kind(str(error), retry_after=asked, scope=scope) from None


def judge_webhook(seen: Seen, now: float) -> None:
    """Judge the response of a webhook by its status.

    The URL of a webhook is its credential, so the status 403 means that the URL was refused. Discord names the time to
    wait in the body.
    """
    if seen.status == 403:
        raise SinkError(quote_response(seen))
    judge_status(seen, now, seen.data.get("retry_after"))


def bounded(value: Any) -> float | None:
    """Return the delay that a body names, in seconds and at most `LONGEST_WAIT`; None if the value is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124  # NaN
        return None
    return max(0.0, min(float(value), LONGEST_WAIT))


class WebApi:
    """A client for one service. It judges every response. `base` is the beginning of every URL.

    If `one_place` is true, all requests have the same destination, so a rate limit applies to all of them.
    """

    def __init__(
        self, http: HttpClient, clock: Clock, base: str, judge: Judge, *, secrets: Sequence[bytes], one_place: bool
    ) -> None:
        self.headers: Mapping[str, str] = {}
        self._http = http
        self._clock = clock
        self._base = base
        self._judge = judge
        self._secrets = secrets
        self._one_place = one_place
        self._quiet_until = 0.0

    async def call(self, path: str, payload: Any = None, method: str = "POST") -> Seen:
        """Send a request and return the response. Raises the delivery error for a refusal.

        If the service asks for a delay of all requests, no request is sent until the delay is over. Deliveries that
        have already begun stop too.
        """
        if (left := self._quiet_until - self._clock.monotonic()) > 0:
            raise OutOfReachError("not sent: the service has asked the router to wait", retry_after=left, scope="sink")
        try:
            answer = await self._http.request(method, self._base + path, json=payload, headers=self.headers)
        except TransientError as error:
            raise OutOfReachError(str(error), retry_after=error.retry_after) from None
        body = answer.body
        if body:
            for secret in self._secrets:
                body = body.replace(secret, b"***")
        seen = Seen(answer.status, answer.headers, body)
        try:
            self._judge(seen, self._clock.now())
        except OutOfReachError as error:
            if error.retry_after is not None and (self._one_place or error.scope == "sink"):
                self._quiet_until = max(self._quiet_until, self._clock.monotonic() + error.retry_after)
            raise
        return seen
