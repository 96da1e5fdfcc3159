"""The webpush sink: one encrypted message to each browser of a delivery. Each browser fails alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from router.api import (
    Event,
    GoneError,
    HttpResponse,
    PartialError,
    PermanentError,
    Recent,
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
"""The most requests of one delivery that are under way together."""

REQUEST_TIMEOUT = 8.0
"""Seconds for one request, less than the default `timeout` of the attempt: a slow server is the failure of one browser."""

REMEMBERED_DELIVERIES = 1_000

WARNED_EVERY = 60.0
"""The shortest time, in seconds, between two log lines about an app that could not be told."""

REFUSED = frozenset({401, 403})
GONE = frozenset({404, 410})

Failure = TransientError | PermanentError | GoneError | SinkError


class WebPushSink(Sink):
    """Sends each event to every browser that the options name."""

    _context: SinkContext
    _signer: Signer

    def __init__(self, options: WebPushOptions) -> None:
        self._options = options
        self._blame = Blame()
        # By delivery: the answers and failures of the endpoints before the attempt was cut off. The next attempt skips them.
        self._known = Recent(REMEMBERED_DELIVERIES)
        self._warned_at = float("-inf")

    async def open(self, context: SinkContext) -> None:
        """Read the key; nothing is sent."""
        from .vapid import Signer  # noqa: PLC0415  # its libraries are an extra

        self._context = context
        self._signer = Signer(self._options.vapid_private_key, self._options.vapid_subject, context.clock)

    async def deliver(self, event: Event, options: WebPushOptions) -> str | None:
        """Send the event to every browser; return the statuses of the answers.

        Raises the error of the delivery, or `PartialError` for the browsers that were not reached.
        """
        if options.urgency not in URGENCIES:
            raise PermanentError(f"`urgency` is {options.urgency[:20]!r}, it must be one of {', '.join(URGENCIES)}")
        message = options.notification(_tag(event), event)
        reached: dict[str, str]
        failures: dict[str, Failure]
        reached, failures = self._known.pop(event.key, ({}, {}))
        turns = asyncio.Semaphore(AT_A_TIME)

        async def one(value: Mapping[str, object]) -> None:
            endpoint = str(value["endpoint"])
            if endpoint in reached or endpoint in failures:
                return
            try:
                async with turns:
                    reached[endpoint] = await self._to_one(event, options, message, value)
            except (TransientError, PermanentError, GoneError, SinkError) as error:
                failures[endpoint] = error

        try:
            async with asyncio.TaskGroup() as tasks:
                for value in options.subscriptions:
                    tasks.create_task(one(value))
        except asyncio.CancelledError:
            self._known[event.key] = reached, failures
            raise
        if failures:
            raise _joint(failures, len(options.subscriptions))
        return ", ".join(reached.values())

    async def _to_one(self, event: Event, options: WebPushOptions, message: bytes, value: Mapping[str, object]) -> str:
        """Send the message to one browser; return the status of the answer. Raises the error of this browser."""
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
                await self._tell_app(event, options, to, answer)
                raise GoneError(quote_response(answer))
            check_response(answer, now=self._context.clock.now(), literal_url=False)
        except SinkError as error:
            raise self._blame.judge(error, to.endpoint) from None
        self._blame.accepted()
        return f"HTTP {answer.status}"

    async def _post(self, endpoint: str, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """Send one request and return the answer. Raises the errors of the client."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await self._context.http.request("POST", endpoint, data=body, headers=headers)
        except TimeoutError:
            raise TransientError(f"the push service did not answer within {REQUEST_TIMEOUT:g} s") from None

    async def _tell_app(self, event: Event, options: WebPushOptions, to: Subscription, answer: HttpResponse) -> None:
        """Publish that a subscription no longer exists. The delivery ends in any case: the next event tells it again."""
        redis = self._context.redis
        if options.gone is None or redis is None:
            return
        told = json.dumps({"endpoint": to.endpoint, "status": answer.status, "sink": event.sink})
        try:
            await redis.call(
                "PUBLISH", options.gone.publish, told[:-1].encode() + b', "event": ' + json_line(event) + b"}"
            )
        except (TransientError, PermanentError, SinkError) as error:
            now = self._context.clock.monotonic()
            if now - self._warned_at >= WARNED_EVERY:
                self._warned_at = now
                message = "the app can't be told that a push subscription no longer exists"
                self._context.log.warning(message, channel=options.gone.publish, error=str(error))


def _tag(event: Event) -> str:
    """Return the tag of a notification, the same on every attempt: a repeated one replaces the first in the browser."""
    return hashlib.sha256(f"{event.id}:{event.route}:{event.sink}".encode()).hexdigest()[:32]


def _joint(failures: Mapping[str, Failure], browsers: int) -> Exception:
    """Return the error of a delivery to so many browsers: that of the only one, of the sink, or of each browser."""
    errors = list(failures.values())
    if browsers == 1:
        return errors[0]
    faults = [error for error in errors if isinstance(error, SinkError)]
    if len(faults) == browsers:
        return faults[0]
    return PartialError(
        {
            endpoint: TransientError(str(error), retry_after=error.retry_after)
            if isinstance(error, SinkError)
            else error
            for endpoint, error in failures.items()
        }
    )
