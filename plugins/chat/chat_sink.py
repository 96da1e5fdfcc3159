"""The chat sink: sends a text by a webhook, or to each address by a bot, and says who has not got it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from router.api import (
    Event,
    PartialError,
    PermanentError,
    Recent,
    Sink,
    SinkContext,
    SinkError,
    TransientError,
    json_line,
)

from .chat_options import ChatOptions, stripped
from .service import Answer, Message, message_id
from .web_api import OutOfReachError, WebApi

REMEMBERED_DELIVERIES = 1_000

CUTS_QUIET = 60.0
"""Seconds between two lines about texts that were cut."""

Failure = TransientError | PermanentError


class ChatSink(Sink):
    """Sends each event to a chat: one message by a webhook, or one to each address by a bot."""

    _context: SinkContext
    _send: Callable[[str, Message], Awaitable[Answer]]

    def __init__(self, options: ChatOptions) -> None:
        self._options = options
        # Who has got a delivery that was cut off between two of its addresses: its next attempt leaves them out.
        self._reached = Recent(REMEMBERED_DELIVERIES)
        self._cuts = 0
        """Texts cut since the last line that says so."""
        self._cuts_told_at = float("-inf")

    async def open(self, context: SinkContext) -> None:
        """Prepare the way; nothing is sent."""
        self._context = context
        options, rules = self._options, self._options.rules
        api = partial(WebApi, context.http, context.clock, secrets=options.secrets, one_place=options.one_place)
        if options.token is not None and rules.bot is not None:
            self._send = rules.bot(api(options.base, rules.bot.judge), stripped(options.token)).send
        elif rules.webhook is not None:
            url = rules.webhook.address(stripped(options.url))
            self._send = rules.webhook.sender(api(url, rules.webhook.judge))

    async def deliver(self, event: Event, options: ChatOptions) -> str | None:
        """Send the event to every address of `options`; returns the ids of the messages where the service gives any.

        Raises what kept the event from any of the addresses.
        """
        text = self._text(event, options)
        addresses = [""] if self._options.token is None else list(dict.fromkeys(options.to))  # a webhook has one place
        reached: set[str] = self._reached.pop(event.key, set())
        failures: dict[str, Failure] = {}
        sent: list[str] = []
        try:
            for address in addresses:
                if address in reached:
                    continue
                failure = _hopeless(failures) or await self._to_one(event, options, text, address, sent)
                if isinstance(failure, SinkError):
                    if not reached and not failures:
                        raise failure
                    failure = OutOfReachError(str(failure), retry_after=failure.retry_after)
                if failure is None:
                    reached.add(address)
                else:
                    failures[address] = failure
        except asyncio.CancelledError:
            self._reached[event.key] = reached
            raise
        if failures:
            raise failures[addresses[0]] if len(addresses) == 1 else PartialError(failures)
        return ", ".join(sent) or None

    async def _to_one(
        self, event: Event, options: ChatOptions, text: str, address: str, sent: list[str]
    ) -> Failure | SinkError | None:
        """Send to one address and return what went wrong; the message's id is added to `sent`."""
        key = f"{event.id}:{event.route}:{event.sink}:{address}"
        try:
            answer = await self._send(address, Message(text, options.markup == "plain", options.allow_mentions, key))
        except (TransientError, PermanentError, SinkError) as error:
            return error
        if (taken := message_id(answer)) is not None:
            sent.append(taken)
        return None

    def _text(self, event: Event, options: ChatOptions) -> str:
        """Return the text as it is sent. A cut is logged, at most once a minute: events may make every text too long."""
        text = options.text
        if text is None:
            text = options.escape_value(json_line(event).decode())
        if not text.strip():
            raise PermanentError("the text is empty")
        finished, cut = options.finish(text)
        self._cuts += cut
        now = self._context.clock.monotonic()
        if cut and now - self._cuts_told_at >= CUTS_QUIET:
            limit = options.length.limits[0][0]
            self._context.log.info("text cut to the service's limit", event_id=event.id, limit=limit, number=self._cuts)
            self._cuts, self._cuts_told_at = 0, now
        return finished


def _hopeless(failures: Mapping[str, Failure]) -> Failure | None:
    """Return the failure that makes it pointless to try the next address now, if there was one.

    A limit of one address stops the others too, for the host has to hear of it before anything else is sent to that
    address. They come right after.
    """
    found = next((failure for failure in failures.values() if isinstance(failure, OutOfReachError)), None)
    if found is None or found.retry_after is None or found.scope == "sink":
        return found
    return OutOfReachError(f"not sent yet, another address was refused: {found}", retry_after=0.0)
