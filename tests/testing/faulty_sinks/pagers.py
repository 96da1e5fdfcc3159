"""Sinks that post to an HTTP service: good ones of every kind, and others with one fault each."""

import asyncio
import contextlib
import socket
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from router.api import Secret, SinkOptions, Text, TransientError, check_response, hookimpl


class Options(SinkOptions):
    url: str
    text: Text
    token: Secret = Secret("hidden-token-1234")


async def post(event, options, context):
    headers = {"Authorization": options.token.get_secret_value()}
    answer = await context.http.request("POST", options.url, json={"text": options.text}, headers=headers)
    check_response(answer, now=context.clock.now())


async def good(event, options, context):
    await post(event, options, context)


def good_in_thread(event, options):
    """A plain function, with a client of its own."""
    request = urllib.request.Request(options.url, options.text.encode(), {"Authorization": "x"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.headers["Date"]
    except urllib.error.HTTPError as error:
        with error:
            raise TransientError(f"HTTP {error.code}", retry_after=int(error.headers["Retry-After"] or 1)) from None
    except OSError as error:
        raise TransientError(str(error)) from None


class GoodBatch:
    def __init__(self, options):
        self.options = options

    async def open(self, context):
        self.context = context

    async def deliver_batch(self, batch):
        return [await self.one(event, options) for event, options in batch]

    async def one(self, event, options):
        try:
            await post(event, options, self.context)
        except Exception as error:  # noqa: BLE001  # the failure of this delivery
            return error
        return f"id {event.id}"

    async def close(self):
        pass


async def swallows_cancellation(event, options, context):
    """Takes a cancelled delivery for done."""
    with contextlib.suppress(asyncio.CancelledError):
        await post(event, options, context)


async def goes_on(event, options, context):
    """Goes on when it is cancelled."""
    try:
        await post(event, options, context)
    except asyncio.CancelledError:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)


async def wraps_cancellation(event, options, context):
    """Takes a cancellation for a failure."""
    try:
        await post(event, options, context)
    except asyncio.CancelledError:
        raise TransientError("too slow") from None


class Blocks(GoodBatch):
    """Blocks the event loop at its first delivery."""

    slept = False

    async def one(self, event, options):
        if not Blocks.slept:
            Blocks.slept = True
            time.sleep(1)  # noqa: ASYNC251  # the fault
        return await super().one(event, options)


async def swallows_failures(event, options, context):
    """Logs a failure, and returns."""
    try:
        await post(event, options, context)
    except Exception as error:  # noqa: BLE001  # the fault
        context.log.warning("not sent", error=str(error))


class WrongLength(GoodBatch):
    """Gives the failures alone."""

    async def deliver_batch(self, batch):
        results = await super().deliver_batch(batch)
        return [result for result in results if isinstance(result, Exception)] or None


class LeaksTask(GoodBatch):
    """Starts a task that nothing ends."""

    async def open(self, context):
        await super().open(context)
        self.heartbeat = asyncio.create_task(asyncio.sleep(3600))


class LeaksSocket(GoodBatch):
    """Opens a connection for each delivery, and keeps it."""

    async def one(self, event, options):
        url = urlsplit(options.url)
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (url.hostname, url.port))
        connection.detach()
        return await super().one(event, options)


async def logs_secret(event, options, context):
    context.log.info("calling", headers={"Authorization": options.token.get_secret_value()})
    await post(event, options, context)


async def raises_secret(event, options, context):
    try:
        await post(event, options, context)
    except TransientError as error:
        raise TransientError(f"{error} for {options.token.get_secret_value()}", retry_after=error.retry_after) from None


async def ignores_retry_after(event, options, context):
    """Takes every failure for one that a retry at any time may mend."""
    try:
        await post(event, options, context)
    except TransientError as error:
        raise TransientError(str(error)) from None


async def changes_event(event, options, context):
    event.payload["seen"] = True
    await post(event, options, context)


async def fails_on_unicode(event, options, context):
    options.text.encode("latin-1")
    await post(event, options, context)


async def accident(event, options, context):
    """Raises something of its own when the service fails."""
    try:
        await post(event, options, context)
    except TransientError:
        raise KeyError("answer") from None


async def sends_nothing(event, options):
    pass


async def exits(event, options):
    raise SystemExit(2)


async def cancels_itself(event, options):
    raise asyncio.CancelledError


async def hangs(event, options):
    await asyncio.sleep(3600)


class DoesNotOpen(GoodBatch):
    async def open(self, context):
        raise TransientError("no connection")


class DoesNotClose(GoodBatch):
    async def close(self):
        raise ValueError("not open")


SINKS = (
    good,
    good_in_thread,
    GoodBatch,
    swallows_cancellation,
    goes_on,
    wraps_cancellation,
    Blocks,
    swallows_failures,
    WrongLength,
    LeaksTask,
    LeaksSocket,
    logs_secret,
    raises_secret,
    ignores_retry_after,
    changes_event,
    fails_on_unicode,
    accident,
    sends_nothing,
    exits,
    cancels_itself,
    hangs,
    DoesNotOpen,
    DoesNotClose,
)


@hookimpl
def register_sinks(register):
    for sink in SINKS:
        register(sink.__name__, sink, options=Options)
