"""The chat sink: sends a text by a webhook, or to each address by a bot, and reports the addresses that failed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from router.api import (
    Event,
    PermanentError,
    Recipients,
    Sink,
    SinkContext,
    SinkError,
    json_line,
)

from .chat_options import ChatOptions, stripped
from .conversations import NO_EARLIER, Conversations, Earlier, Keys
from .service import Message, Sender, WebhookSender, result_text
from .web_api import OutOfReachError, WebApi

CUTS_QUIET = 60.0
"""The shortest time, in seconds, between two log lines about texts that were cut."""


class ChatSink(Sink):
    """Sends each event to a chat: one message by a webhook, or one to each address by a bot."""

    _context: SinkContext
    _conversations: Conversations

    def __init__(self, options: ChatOptions) -> None:
        self._options = options
        self._recipients = Recipients()
        self._cuts = 0
        """The number of texts that were cut since the last log line about cut texts."""
        self._cuts_logged_at = float("-inf")

    async def open(self, context: SinkContext) -> None:
        """Create the client of the service; nothing is sent."""
        self._context = context
        options, rules = self._options, self._options.rules
        api = partial(WebApi, context.http, context.clock, secrets=options.secrets, one_place=options.one_place)
        sender = Sender()
        if options.token is not None and rules.bot is not None:
            sender = rules.bot(api(options.base, rules.bot.judge), stripped(options.token))
        elif rules.webhook is not None:
            url = stripped(options.url)
            sender = WebhookSender(api(url.partition("?")[0], rules.webhook.judge), url, rules.webhook)
        self._conversations = Conversations(options.service, sender, context)

    async def deliver(self, event: Event, options: ChatOptions) -> str | None:
        """Send the event to every address of `options`; return the id of each message, or the status of each response.

        Raises the error of the delivery, or `PartialError` if only some addresses failed.
        """
        text = self._text(event, options)
        to_webhook = self._options.token is None
        addresses = [""] if to_webhook else list(dict.fromkeys(options.to))  # a webhook has one destination
        earlier = NO_EARLIER
        if options.thread or options.update:
            keys = Keys(options.thread or "", options.update or "")
            earlier = await self._conversations.find(keys, addresses)
        message = Message(text, options.markup == "plain", options.allow_mentions)
        if to_webhook:  # there is one destination, so no partial results have to be remembered
            return await self._to_one(event, "", message, earlier)
        with self._recipients.attempt(event) as results:
            for address in addresses:
                if address in results:
                    continue
                if hopeless := _hopeless(results.failures):
                    results.failures[address] = hopeless
                    continue
                failure = await results.settle(address, partial(self._to_one, event, address, message, earlier))
                if isinstance(failure, SinkError):
                    if len(results) == 1:
                        break  # the other addresses would not be reached either
                    results.failures[address] = OutOfReachError(str(failure), retry_after=failure.retry_after)
        if not results.failures:
            return results.answer
        first = next(iter(results.failures.values()))
        raise first if len(addresses) == 1 or isinstance(first, SinkError) else results.partial_error()

    async def _to_one(self, event: Event, address: str, message: Message, earlier: Earlier) -> str:
        """Send to one address; return the id of the message, or the response's status.

        Raises the error of this address.
        """
        text, plain, allow_mentions, *_ = message
        key = f"{event.id}:{event.route}:{event.sink}:{address}"
        message = Message(text, plain, allow_mentions, key)  # `_replace` takes five times as long
        return result_text(await self._conversations.send(address, message, earlier))

    def _text(self, event: Event, options: ChatOptions) -> str:
        """Return the text to send. A cut is logged at most once a minute, because every event may be too long."""
        text = options.text
        if text is None:
            text = options.escape_value(json_line(event).decode())
        if not text.strip():
            raise PermanentError("the text is empty")
        finished, cut = options.finish(text)
        if not cut:
            return finished
        self._cuts += 1
        now = self._context.clock.monotonic()
        if now - self._cuts_logged_at >= CUTS_QUIET:
            limit = options.length.limits[0][0]
            self._context.log.info("text cut to the service's limit", event_id=event.id, limit=limit, number=self._cuts)
            self._cuts, self._cuts_logged_at = 0, now
        return finished


def _hopeless(failures: Mapping[str, Exception]) -> OutOfReachError | None:
    """Return the error for the addresses that are still left in this attempt. None means that they are tried.

    After a rate limit of one address, the other addresses are not tried either. So the router can apply the limit
    before it sends another delivery to the limited address. The router retries the other addresses at once.
    """
    found = next((failure for failure in failures.values() if isinstance(failure, OutOfReachError)), None)
    if found is None or found.retry_after is None or found.scope == "sink":
        return found
    return OutOfReachError(f"not sent yet, because another address was refused: {found}", retry_after=0.0)
