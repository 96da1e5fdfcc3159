"""The webpush sink: sends one encrypted message to each browser of a delivery.

The failure of one browser does not affect the others.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from router.api import (
    Event,
    GoneError,
    HttpResponse,
    PermanentError,
    RecipientResults,
    Recipients,
    Sink,
    SinkContext,
    SinkError,
    TransientError,
    check_response,
    json_line,
    quote_response,
)

from .blame import Blame
from .push_subscriptions import Subscription, read_subscription
from .webpush_options import URGENCIES, WebPushOptions

if TYPE_CHECKING:
    from .vapid import Signer

AT_A_TIME = 8
"""The maximum number of requests of one delivery that are under way at the same time."""

REQUEST_TIMEOUT = 8.0
"""The timeout of one request in seconds. It is less than the default `timeout` of an attempt. So a slow server fails
only the message to its own browser."""

WARNED_EVERY = 60.0
"""The shortest time, in seconds, between two log lines about an app that could not be notified."""

REFUSED = frozenset({401, 403})
GONE = frozenset({404, 410})


class WebPushSink(Sink):
    """Sends each event to every browser that the options name."""

    _context: SinkContext
    _signer: Signer

    def __init__(self, options: WebPushOptions) -> None:
        self._options = options
        self._blame = Blame()
        self._recipients = Recipients()
        self._warned_at = float("-inf")

    async def open(self, context: SinkContext) -> None:
        """Read the key; nothing is sent."""
        from .vapid import Signer  # noqa: PLC0415  # its libraries are an extra

        self._context = context
        self._signer = Signer(self._options.vapid_private_key, self._options.vapid_subject, context.clock)

    async def deliver(self, event: Event, options: WebPushOptions) -> str | None:
        """Send the event to every browser; return the statuses of the responses.

        Raises the error of the delivery, or `PartialError` for the browsers that were not reached.
        """
        if options.urgency not in URGENCIES:
            raise PermanentError(f"`urgency` must be one of {', '.join(URGENCIES)}, but it is {options.urgency[:20]!r}")
        message = options.notification(_tag(event), event)
        turns = asyncio.Semaphore(AT_A_TIME)

        async def one(value: Mapping[str, object]) -> str:
            async with turns:
                return await self._to_one(event, options, message, value)

        with self._recipients.attempt(event) as results:
            async with asyncio.TaskGroup() as tasks:
                for value in options.subscriptions:
                    tasks.create_task(results.settle(str(value["endpoint"]), partial(one, value)))
        if results.failures:
            raise _joint(results, len(options.subscriptions))
        return results.answer

    async def _to_one(self, event: Event, options: WebPushOptions, message: bytes, value: Mapping[str, object]) -> str:
        """Send the message to one browser; return the status of the response. Raises the error of this browser."""
        from .encryption import encrypt  # noqa: PLC0415  # its library is an extra

        to = read_subscription(value)
        body = encrypt(message, to)
        headers = {
            "TTL": str(int(options.ttl)),
            "Urgency": options.urgency,
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "Authorization": self._signer.header(to.origin),
        }
        try:
            answer = await self._post(to.endpoint, body, headers)
            if answer.status in REFUSED:
                raise SinkError(quote_response(answer))
            if answer.status in GONE:
                await self._notify_app(event, options, to, answer)
                raise GoneError(quote_response(answer))
            check_response(answer, now=self._context.clock.now(), literal_url=False)
        except SinkError as error:
            raise self._blame.judge(error, to.endpoint) from None
        except TransientError as error:  # the fault of the push service that this browser uses, not of the sink
            raise TransientError(str(error), retry_after=error.retry_after, scope="address") from None
        self._blame.accepted()
        return f"HTTP {answer.status}"

    async def _post(self, endpoint: str, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """Send one request and return the response. Raises the errors of the client."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await self._context.http.request("POST", endpoint, data=body, headers=headers)
        except TimeoutError:
            raise TransientError(f"the push service did not answer within {REQUEST_TIMEOUT:g} s") from None

    async def _notify_app(self, event: Event, options: WebPushOptions, to: Subscription, answer: HttpResponse) -> None:
        """Publish that a subscription no longer exists.

        A failure is only logged, because the next event for the subscription causes another message.
        """
        redis = self._context.redis
        if options.gone is None or redis is None:
            return
        event_text = json.dumps({"endpoint": to.endpoint, "status": answer.status, "sink": event.sink})
        try:
            await redis.call(
                "PUBLISH", options.gone.publish, event_text[:-1].encode() + b', "event": ' + json_line(event) + b"}"
            )
        except (TransientError, PermanentError, SinkError) as error:
            now = self._context.clock.monotonic()
            if now - self._warned_at >= WARNED_EVERY:
                self._warned_at = now
                message = "the app can't be notified that a push subscription no longer exists"
                self._context.log.warning(message, channel=options.gone.publish, error=str(error))


def _tag(event: Event) -> str:
    """Return the tag of a notification.

    The tag is the same on every attempt, so a repeated notification replaces the first notification in the browser.
    """
    return hashlib.sha256(f"{event.id}:{event.route}:{event.sink}".encode()).hexdigest()[:32]


def _joint(results: RecipientResults, browsers: int) -> Exception:
    """Return the error of a delivery: one error for the only browser or the whole sink, else one for each browser."""
    errors = list(results.failures.values())
    if len(errors) == browsers and (browsers == 1 or all(isinstance(error, SinkError) for error in errors)):
        return errors[0]
    return results.partial_error()
