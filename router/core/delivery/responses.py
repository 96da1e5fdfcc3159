"""The meaning of an HTTP response for a delivery, shared by all sinks that speak HTTP; floor 2, pure.

Sources: RFC 9110 section 15 (status codes) and 10.2.3 (Retry-After), RFC 6585 section 4 (429), RFC 8470 (425).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol

from router.errors import PermanentError, SinkError, TransientError

TEMPORARY = frozenset({408, 425, 429})
"""The client errors that are temporary: the request timed out, came too early, or exceeded a rate limit."""

_REFUSED = frozenset({401, 407})
_GONE = frozenset({404, 410})
_QUOTED = 200  # the maximum number of characters of the response in an error

DEFAULT_RETRY_AFTER = 5.0
"""The seconds to wait after a response with status 429 and without a Retry-After."""


class Response(Protocol):
    """The fields of an HTTP response that are judged. Names in `headers` are case-insensitive."""

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
    """Return the seconds that `Retry-After` asks for, as a number or as a date (RFC 9110 section 10.2.3).

    A date is compared with the response's `Date`, because the clock of the service may differ from ours. Without
    `Date`, it is compared with `now` (seconds since the epoch, UTC). `headers` must be a case-insensitive mapping. The
    result is finite and not negative. It is None if the header is missing or invalid.
    """
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        sent_at = _moment(headers.get("Date", ""))
        seconds = _moment(value) - (now if math.isnan(sent_at) else sent_at)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def wait_asked(response: Response, now: float) -> float | None:
    """Return the seconds that a response asks the client to wait; None if it asks for no wait.

    A response with status 429 always asks for a wait.
    """
    wait = retry_after(response.headers, now)
    return DEFAULT_RETRY_AFTER if wait is None and response.status == 429 else wait


def _moment(date: str) -> float:
    """Convert the date of a header to seconds since the epoch; return NaN if the date is invalid."""
    try:
        at = parsedate_to_datetime(date)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def quote_response(response: Response) -> str:
    """Return the status and the beginning of the body on one line, for an error's text: `HTTP 404: no_service`."""
    head = response.body[: 4 * _QUOTED].decode("utf-8", "backslashreplace")
    quoted = " ".join("".join(char if char.isprintable() else " " for char in head).split())
    if len(quoted) > _QUOTED:
        quoted = f"{quoted[:_QUOTED]}…"
    return f"HTTP {response.status}: {quoted}" if quoted else f"HTTP {response.status}"


def check_response(response: Response, *, now: float, literal_url: bool = True) -> None:
    """Return normally for a 2xx status; raise the delivery error for any other status.

    - 408, 425, 429, 5xx: `TransientError` with the seconds of Retry-After, or with `DEFAULT_RETRY_AFTER` for a 429
      without it. A 503 of a `literal_url` pauses the whole sink, because the service as a whole is unavailable.
    - 401, 407, and 404 or 410 of a `literal_url`: `SinkError`, because the failure is the sink's, not the message's:
      every message would fail.
    - all others: `PermanentError`. This includes redirects, which are never followed.

    `literal_url` is true if the URL is the same for all messages. The text of the error quotes the status and the
    beginning of the body, never the URL. `now` is seconds since the epoch, for a Retry-After that is a date.
    """
    status = response.status
    if 200 <= status < 300:
        return
    message = quote_response(response)
    wait = wait_asked(response, now)
    if status in TEMPORARY or status >= 500:
        raise TransientError(message, retry_after=wait, scope="sink" if literal_url and status == 503 else None)
    if status in _REFUSED or (literal_url and status in _GONE):
        raise SinkError(message, retry_after=wait)
    if 300 <= status < 400:
        raise PermanentError(f"{message} (a redirect, which is never followed)")
    raise PermanentError(message)
