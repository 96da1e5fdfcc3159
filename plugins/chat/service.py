"""The description of a service, and the senders of messages: a bot, which uses the service's API, or a webhook."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from router.api import PermanentError, Recent, SinkError, TransientError

from .length import Length
from .markup import Change
from .web_api import Judge, NobodyError, NoPageError, Seen, WebApi, judge_webhook

REMEMBERED_CHANNELS = 10_000


class Place(NamedTuple):
    """The place of a message that was sent: the service's ids of the channel and of the message.

    If the message is a reply, `root` is the id of the first message of the thread. Otherwise `root` is empty.
    """

    channel: str
    id: str
    root: str = ""

    @property
    def first(self) -> str:
        """The id of the first message of the thread."""
        return self.root or self.id


class Message(NamedTuple):
    """A message: one text for one address. `key` identifies the message, and is the same on every attempt.

    `thread` is the key of the message's thread; an empty key means no thread. `replies_to` is the first message of the
    thread, or None if that message is not known.
    """

    text: str
    plain: bool
    """True if the service shows the text as written; False if the text is in the service's markup."""
    allow_mentions: bool
    key: str = ""
    thread: str = ""
    replies_to: Place | None = None

    @property
    def nonce(self) -> str:
        """The key, shortened to the 24 characters that services accept."""
        return hashlib.blake2b(self.key.encode(), digest_size=12).hexdigest()


Body = Callable[[Message], dict[str, Any]]


def text_body(message: Message) -> dict[str, Any]:
    """Return the body for a service whose requests have only a text."""
    return {"text": message.text}


class Sender:
    """The base class of the senders: bots and webhooks."""

    edits = False
    """True if the service reports the ids of the sender's messages, and lets the sender change a message later."""

    async def send(self, address: str, message: Message) -> Seen:
        """Send one message and return the service's response. Raises a delivery error for a refusal."""
        raise NotImplementedError

    async def edit(self, place: Place, message: Message) -> Seen:
        """Replace the text of the message at a place.

        Raises `PermanentError` if the service permanently refuses the change.
        """
        raise NotImplementedError


class Bot(Sender):
    """A bot, which sends messages to addresses through a service's API."""

    edits = True
    judge: Judge
    scheme = "Bearer"

    def __init__(self, api: WebApi, token: str) -> None:
        self.api = api
        api.headers = {"Authorization": f"{self.scheme} {token}"}


class Webhook(NamedTuple):
    """A kind of webhook: the body of its requests, the meaning of its responses, and the parameters of its URL.

    `flag` is the parameter that every request must have. `thread_flag` is the parameter of messages with a thread key:
    the service itself puts messages with equal keys into one thread. `edits` is true if the webhook can change its
    messages.
    """

    body: Body = text_body
    judge: Judge = judge_webhook
    flag: str = ""
    thread_flag: str = ""
    edits: bool = False


class WebhookSender(Sender):
    """The sender of messages to one webhook. A webhook has one destination.

    `url` is the whole URL. `api` is the client for the part of the URL before the query.
    """

    def __init__(self, api: WebApi, url: str, kind: Webhook) -> None:
        self.edits = kind.edits
        self._api = api
        self._kind = kind
        self._query = url.partition("?")[2]
        self._path = self._with_query(kind.flag)
        self._path_of_thread = self._with_query(kind.flag, kind.thread_flag)

    async def send(self, address: str, message: Message) -> Seen:  # noqa: ARG002  # a webhook has one destination
        """Send one message."""
        path = self._path_of_thread if message.thread else self._path
        return await self._api.call(path, self._kind.body(message))

    async def edit(self, place: Place, message: Message) -> Seen:
        """Replace the text of a message of this webhook."""
        path = f"/messages/{quote(place.id, safe='')}{self._with_query()}"
        return await self._api.call(path, self._kind.body(message), method="PATCH")

    def _with_query(self, *flags: str) -> str:
        """Return the query of the URL. Parameters in `flags` are added if the URL lacks them."""
        missing = [flag for flag in flags if flag and f"{flag.partition('=')[0]}=" not in self._query]
        whole = "&".join([self._query, *missing] if self._query else missing)
        return f"?{whole}" if whole else ""


class Service(NamedTuple):
    """The description of a chat service.

    `length` is the limit on a text. `native_length` is the limit on a text in the service's own markup, if the service
    counts such a text differently. `plain` escapes a whole text, `value` escapes an event's value inside the service's
    markup, and `mute` disables mentions. `mentions` is the pattern of the mentions that are not escaped if the options
    allow mentions.
    """

    length: Length
    plain: Change
    value: Change
    mute: Change
    mentions: str | None = None
    webhook: Webhook | None = None
    bot: type[Bot] | None = None
    api: str = ""
    native_length: Length | None = None


Way = tuple[Callable[[str], Awaitable[str]], str]
"""A lookup: the function that finds a channel's id, and its argument."""


class ChannelBot(Bot):
    """A bot of Discord or Mattermost. To write to a user, the bot first looks up the channel for messages to this user.

    The bot remembers the channel of each address. An id without `user:` or `channel:` may be either.
    """

    def __init__(self, api: WebApi, token: str) -> None:
        super().__init__(api, token)
        self.known = Recent(REMEMBERED_CHANNELS)

    async def send(self, address: str, message: Message) -> Seen:
        """Send one message to the channel that the first successful lookup returns."""
        if message.replies_to is not None:
            return await self.post(message.replies_to.channel, message)
        refusals: list[NobodyError | NoPageError] = []
        ways = self.ways(address)
        if address in self.known:
            ways.insert(0, (itself, self.known[address]))
        for find, name in ways:
            try:
                channel = await find(name)
                answer = await self.post(channel, message)
            except (NobodyError, NoPageError) as error:
                self.known.pop(address, None)
                refusals.append(error)
            else:
                self.known[address] = channel
                return answer
        if all(isinstance(refusal, NoPageError) for refusal in refusals):
            raise SinkError(f"{refusals[-1]}; check that `api` is the base URL of the service")
        raise PermanentError(f"{address} is neither a user nor a channel that the bot can write to: {refusals[-1]}")

    def ways(self, address: str) -> list[Way]:
        """Return the lookups to try, in order. Raises `PermanentError` for an invalid address."""
        raise NotImplementedError

    async def post(self, channel: str, message: Message) -> Seen:
        """Send one message to a channel."""
        raise NotImplementedError


async def itself(channel: str) -> str:
    """Return the id itself, for an address that is the id of a channel."""
    return channel


def result_text(answer: Seen) -> str:
    """Return the service's id of the message. If the response has no id, as with most webhooks, return the status."""
    return message_id(answer) or f"HTTP {answer.status}"


def message_id(answer: Seen) -> str | None:
    """Return the service's id of the message, or None.

    The id is in the field `id` (Discord and Mattermost), `ts` (Slack), `name` (Google Chat) or `result.message_id`
    (Telegram).
    """
    fields = _fields(answer)
    if not fields:  # the response of most webhooks
        return None
    return _first(fields.get(name) for name in ("id", "ts", "name", "message_id"))


def place_of(address: str, answer: Seen) -> Place | None:
    """Return the place of the message that was sent to an address; None if the response has no message id.

    The channel is in the field `channel` (Slack), `channel_id` (Discord and Mattermost) or `chat.id` (Telegram).
    """
    sent = message_id(answer)
    fields = _fields(answer)
    chat = fields.get("chat")
    named = (fields.get("channel"), fields.get("channel_id"), chat.get("id") if isinstance(chat, dict) else None)
    return None if sent is None else Place(_first(named) or address, sent)


def _fields(answer: Seen) -> Mapping[str, Any]:
    """Return the fields of the response that describe the message. Telegram nests these fields in `result`."""
    data = answer.data
    result = data.get("result")
    return result if isinstance(result, dict) else data


def _first(found: Iterable[object]) -> str | None:
    """Return the first number or text that is not empty, as text. Return None if there is no such value."""
    return next((str(one) for one in found if isinstance(one, str | int) and one), None)


def channel_id(answer: Seen) -> str:
    """Return the field `id` of a response about a channel or user. Raises `TransientError` if there is no id."""
    found = answer.data.get("id")
    if not isinstance(found, str | int) or not str(found):
        raise TransientError("the response of the service contains no id")
    return str(found)
