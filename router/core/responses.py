"""What an HTTP status means for a delivery; pure, shared by every sink that speaks HTTP.

Source of the rule: RFC 9110 section 15 (status codes) and 10.2.3 (Retry-After); 429 is RFC 6585 section 4, 425 RFC 8470.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol

from router.errors import PermanentError, SinkError, TransientError

_RETRY = frozenset({408, 425, 429})
_REFUSED = frozenset({401, 407})
_GONE = frozenset({404, 410})
_SHOWN = 200  # bytes of the answer that an error quotes


class Response(Protocol):
    """What is judged of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that `Retry-After` asks for, as a number or as a date (RFC 9110 section 10.2.3); None without one.

    `headers` are looked up as given, so hand in a case-insensitive mapping. `now` is seconds since the epoch, UTC.
    """
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
    return max(seconds, 0.0) if seconds == seconds and seconds != float("inf") else None  # noqa: PLR0124  # NaN


def check_response(response: Response, *, now: float, literal_url: bool = True) -> None:
    """Return for a 2xx, else raise what the status means.

    408, 425, 429 and 5xx are `TransientError` with the Retry-After that came along; 401 and 407, and 404 or 410 of a
    `literal_url`, are `SinkError`: the sink is at fault and not the message. Everything else is `PermanentError`. The
    text quotes the status and the beginning of the answer, never the URL. `now` is seconds since the epoch, for a
    Retry-After that is a date.
    """
    status = response.status
    if 200 <= status < 300:
        return
    told = " ".join(response.body[:_SHOWN].decode("utf-8", "backslashreplace").split())
    message = f"HTTP {status}: {told}" if told else f"HTTP {status}"
    wait = retry_after(response.headers, now)
    if status in _RETRY or status >= 500:
        raise TransientError(message, retry_after=wait)
    if status in _REFUSED or (literal_url and status in _GONE):
        raise SinkError(message, retry_after=wait)
    raise PermanentError(message)
