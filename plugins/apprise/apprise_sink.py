"""The apprise sink: sends one message to each URL of a delivery, in threads.

The failure of one URL does not affect the others.
"""

from __future__ import annotations

import asyncio
from functools import partial

from router.api import Event, PermanentError, Recipients, Sink, SinkContext, TransientError, json_line

from .apprise_options import AppriseOptions
from .targets import address_of


class AppriseSink(Sink):
    """Sends each event to every URL that the options name."""

    _context: SinkContext

    def __init__(self, options: AppriseOptions) -> None:
        self._options = options
        self._recipients = Recipients()

    async def open(self, context: SinkContext) -> None:
        """Load the library in a thread, because loading takes seconds; nothing is sent."""
        self._context = context
        await context.run_blocking(_load)

    async def deliver(self, event: Event, options: AppriseOptions) -> None:
        """Send the event to every URL. Raises the error of the delivery, or `PartialError` for the URLs that failed."""
        body = json_line(event).decode() if options.body is None else options.body
        title: str = options.title
        if not body.strip():  # Apprise refuses a message that has only a title
            title, body = "", title
        if not body.strip():
            raise PermanentError("the message is empty")
        with self._recipients.attempt(event) as results:
            async with asyncio.TaskGroup() as tasks:
                for url in options.urls:
                    tasks.create_task(results.settle(address_of(url), partial(self._to_one, url, title, body)))
        if results.failures:
            raise next(iter(results.failures.values())) if len(options.urls) == 1 else results.partial_error()

    async def _to_one(self, url: str, title: str, body: str) -> None:
        """Send the message to one URL. Raises the error of this URL."""
        try:
            await self._context.run_blocking(_send, url, title, body)
        except TransientError as error:
            if url in self._options.urls:
                raise
            # The URL comes from a template, so it belongs to one recipient. Its failure must not stop the whole sink,
            # because the other recipients have other services.
            raise TransientError(str(error), scope="address") from None


def _load() -> None:
    from .library import load  # noqa: PLC0415  # the library is an extra, and takes seconds to load

    load()


def _send(url: str, title: str, body: str) -> None:
    from .library import send  # noqa: PLC0415  # as above

    send(url, title, body)
