"""The apprise sink: one message to each URL of a delivery, in threads. Each URL fails alone."""

from __future__ import annotations

import asyncio

from router.api import Event, PartialError, PermanentError, Recent, Sink, SinkContext, TransientError, json_line

from .apprise_options import AppriseOptions
from .targets import address_of

REMEMBERED_DELIVERIES = 1_000


class AppriseSink(Sink):
    """Sends each event to every URL that the options name."""

    _context: SinkContext

    def __init__(self, options: AppriseOptions) -> None:
        self._options = options
        # By delivery: what the addresses of an attempt said before it was cut off. The next attempt skips them.
        self._known = Recent(REMEMBERED_DELIVERIES)

    async def open(self, context: SinkContext) -> None:
        """Load the library in a thread, because that takes seconds; nothing is sent."""
        self._context = context
        await context.run_blocking(_load)

    async def deliver(self, event: Event, options: AppriseOptions) -> None:
        """Send the event to every URL. Raises the error of the delivery, or `PartialError` for the URLs that failed."""
        body = json_line(event).decode() if options.body is None else options.body
        title: str = options.title
        if not body.strip():  # Apprise refuses a title alone
            title, body = "", title
        if not body.strip():
            raise PermanentError("the message is empty")
        outcomes: dict[str, TransientError | PermanentError | None] = self._known.pop(event.key, {})

        async def one(url: str) -> None:
            address = address_of(url)
            if address in outcomes:
                return
            try:
                await self._context.run_blocking(_send, url, title, body)
                outcomes[address] = None
            except (TransientError, PermanentError) as error:
                outcomes[address] = error

        try:
            async with asyncio.TaskGroup() as tasks:
                for url in options.urls:
                    tasks.create_task(one(url))
        except asyncio.CancelledError:
            self._known[event.key] = outcomes
            raise
        failures = {address: error for address, error in outcomes.items() if error is not None}
        if failures:
            raise next(iter(failures.values())) if len(options.urls) == 1 else PartialError(failures)


def _load() -> None:
    from .library import load  # noqa: PLC0415  # the library is an extra, and takes seconds to load

    load()


def _send(url: str, title: str, body: str) -> None:
    from .library import send  # noqa: PLC0415  # as above

    send(url, title, body)
