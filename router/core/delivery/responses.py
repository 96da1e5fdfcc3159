"""What an HTTP status means for a delivery; floor 2, pure, shared by every sink that speaks HTTP.

Source of the rule: RFC 9110 section 15 (status codes) and 10.2.3 (Retry-After); 429 is RFC 6585 section 4, 425 RFC 8470.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol

from router.errors import PermanentError, SinkError, TransientError

_RETRY = frozenset({408, 425, 429})
_REFUSED = frozenset({401, 407})
_GONE = frozenset({404, 410})
_SHOWN = 200  # characters of the answer that an error quotes

UNSAID = 5.0
"""Seconds that a 429 asks for which does not say how many."""


class Response(Protocol):
    """The part of an HTTP answer that is judged. Its `headers` find a name however it is written."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields."""

    @property
    def body(self) -> bytes:
        """The body, or its beginning."""


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that `Retry-After` asks for, as a number or as a date (RFC 9110 section 10.2.3); None without one.

    A date is compared with the answer's own `Date`, for the two clocks may differ, or else with `now` (seconds since the
    epoch, UTC). `headers` are looked up as given, so hand in a case-insensitive mapping. Never negative, never infinite;
    what can't be read counts as absent.
    """
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        there = _moment(headers.get("Date", ""))
        seconds = _moment(value) - (now if math.isnan(there) else there)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _moment(date: str) -> float:
    """Seconds since the epoch; NaN for what is no date."""
    try:
        at = parsedate_to_datetime(date)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def quote_response(response: Response) -> str:
    """The status and the beginning of the answer on one line, for an error's text: `HTTP 404: no_service`."""
    head = response.body[: 4 * _SHOWN].decode("utf-8", "backslashreplace")
    told = " ".join("".join(char if char.isprintable() else " " for char in head).split())
    if len(told) > _SHOWN:
        told = f"{told[:_SHOWN]}…"
    return f"HTTP {response.status}: {told}" if told else f"HTTP {response.status}"


def check_response(response: Response, *, now: float, literal_url: bool = True) -> None:
    """Return for a 2xx, else raise what the status means.

    408, 425, 429 and 5xx are `TransientError` with the Retry-After that came along, 429 always with one; that of a 503 of a
    `literal_url` is the whole sink's, for it says how long the service is away. 401 and 407, and 404 or 410 of a
    `literal_url`, are `SinkError`: the sink is at fault and not the message. Everything else is `PermanentError`, a
    redirect too, since none is followed. The text quotes the status and the beginning of the answer, never the URL.
    `now` is seconds since the epoch, for a Retry-After that is a date.
    """
    status = response.status
    if 200 <= status < 300:
        return
    message = quote_response(response)
    wait = retry_after(response.headers, now)
    if status in _RETRY or status >= 500:
        wait = UNSAID if wait is None and status == 429 else wait
        raise TransientError(message, retry_after=wait, scope="sink" if literal_url and status == 503 else None)
    if status in _REFUSED or (literal_url and status in _GONE):
        raise SinkError(message, retry_after=wait)
    if 300 <= status < 400:
        raise PermanentError(f"{message} (a redirect, which is never followed)")
    raise PermanentError(message)
