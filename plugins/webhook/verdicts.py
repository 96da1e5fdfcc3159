"""The meaning of a response, by its status (`check_response`) and by the options `success` and `retry_if`."""

from __future__ import annotations

from typing import Any

from router.api import (
    HttpResponse,
    PermanentError,
    TransientError,
    check_response,
    quote_response,
    retry_after,
)

from .webhook_options import WebhookOptions

_IDS = ("id", "message_id", "sid", "event_id")
"""The fields in which services return the id of the event that they accepted."""


def judge(response: HttpResponse, options: WebhookOptions, *, now: float, literal_url: bool) -> str:
    """Return a short text about the response if the service accepted the event, else raise the delivery error.

    `success` is evaluated for responses with a 2xx status. `retry_if` is evaluated for every response that would
    otherwise be a permanent failure.
    """
    answer = _decoded(response)
    try:
        check_response(response, now=now, literal_url=literal_url)
        if options.success is None or options.success.holds(_names(response, answer), now=now):
            return _summary(response.status, answer)
        raise PermanentError(f"{quote_response(response)} (`success` is false)")
    except PermanentError as error:
        if options.retry_if is not None and options.retry_if.holds(_names(response, answer), now=now):
            raise TransientError(str(error), retry_after=retry_after(response.headers, now)) from None
        raise


def _decoded(response: HttpResponse) -> Any:
    """Return the body decoded from JSON, or as text if the body is not JSON."""
    if not response.body:
        return ""
    try:
        return response.json()
    except ValueError:
        return response.body.decode("utf-8", "replace")


def _names(response: HttpResponse, answer: Any) -> dict[str, Any]:
    """Return the values that expressions can use: the status, the headers in lower case, and the decoded body."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return {"status": response.status, "headers": headers, "answer": answer}


def _summary(status: int, answer: Any) -> str:
    """Return the text for the log: the status, and the service's id of the event if the response has such an id."""
    if not isinstance(answer, dict):
        return f"HTTP {status}"
    found = (answer.get(name) for name in _IDS)
    given = next((one for one in found if isinstance(one, str | int) and not isinstance(one, bool) and one), None)
    return f"HTTP {status}" if given is None else f"HTTP {status}, id {given}"
