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
    """The place of a message that was sent: its channel and its id as the service names them.

    `root` is the id of the message to which this one replies, if any.
    """

    channel: str
    id: str
    root: str = ""

    @property
    def first(self) -> str:
        """The id of the first message of its thread."""
        return self.root or self.id


class Message(NamedTuple):
    """A message: one text for one address. `key` is the same on every attempt.

    `thread` is the key of messages that belong together; empty if there is none. `answers` is the first message
    with this key, to which this message replies; None if it is not known.
    """

    text: str
    plain: bool
    """True: shown as written. False: the text is in the service's markup."""
    allow_mentions: bool
    key: str = ""
    thread: str = ""
    answers: Place | None = None

    @property
    def nonce(self) -> str:
        """The key, shortened to the 24 characters that services accept."""
        return hashlib.blake2b(self.key.encode(), digest_size=12).hexdigest()


Body = Callable[[Message], dict[str, Any]]


def text_body(message: Message) -> dict[str, Any]:
    """Return the body for a service whose requests have only a text."""
    return {"text": message.text}


class Sender:
    """The base of bots and webhooks."""

    edits = False
    """True if the sender knows the messages that it sent, and can change them."""

    async def send(self, address: str, message: Message) -> Seen:
        """Send one message and return the service's answer. Raises a delivery error if that failed."""
        raise NotImplementedError

    async def edit(self, place: Place, message: Message) -> Seen:
        """Replace the text of the message at a place.

        Raises `PermanentError` if the service refuses that permanently.
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
    """A kind of webhook: the body of its requests, the meaning of its answers, and a required parameter of its URL.

    `thread_flag` is a parameter for messages with a thread key: the service puts messages with equal keys together, and
    the router need not know them. `edits` is true if the webhook can change the messages that it sent.
    """

    body: Body = text_body
    judge: Judge = judge_webhook
    flag: str = ""
    thread_flag: str = ""
    edits: bool = False


class WebhookSender(Sender):
    """The sender of a webhook, which has one destination.

    `url` is the whole URL; the base of `api` is the beginning of `url`.
    """

    def __init__(self, api: WebApi, url: str, kind: Webhook) -> None:
        self.edits = kind.edits
        self._api = api
        self._kind = kind
        self._query = url.partition("?")[2]
        self._path = self._with_query(kind.flag)
        self._path_of_thread = self._with_query(kind.flag, kind.thread_flag)

    async def send(self, address: str, message: Message) -> Seen:  # noqa: ARG002  # it has one destination
        """Send one message."""
        path = self._path_of_thread if message.thread else self._path
        return await self._api.call(path, self._kind.body(message))

    async def edit(self, place: Place, message: Message) -> Seen:
        """Replace the text of a message of this webhook."""
        path = f"/messages/{quote(place.id, safe='')}{self._with_query()}"
        return await self._api.call(path, self._kind.body(message), method="PATCH")

    def _with_query(self, *flags: str) -> str:
        """Return the query of the URL with these parameters, unless the URL has them."""
        missing = [flag for flag in flags if flag and f"{flag.partition('=')[0]}=" not in self._query]
        whole = "&".join([self._query, *missing] if self._query else missing)
        return f"?{whole}" if whole else ""


class Service(NamedTuple):
    """The description of a chat service.

    `length` is the limit of a text; `native_length` replaces it if the service counts its own markup differently. `plain`
    escapes a whole text, `value` escapes an event's value inside the service's markup, and `mute` disables mentions.
    `mentions` are the tokens that are not escaped under `allow_mentions`.
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
    """A bot of Discord or Mattermost, which reaches a user through a channel whose id must be looked up first.

    The channel of each address is remembered. A bare id is looked up as a user and as a channel.
    """

    def __init__(self, api: WebApi, token: str) -> None:
        super().__init__(api, token)
        self.known = Recent(REMEMBERED_CHANNELS)

    async def send(self, address: str, message: Message) -> Seen:
        """Send one message to the channel that the first successful lookup returns."""
        if message.answers is not None:
            return await self.post(message.answers.channel, message)
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
            raise SinkError(f"{refusals[-1]}; is `api` the base URL of the service?")
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


def told(answer: Seen) -> str:
    """Return the service's id of the message. If the answer has no id, as with most webhooks, return its status."""
    return message_id(answer) or f"HTTP {answer.status}"


def message_id(answer: Seen) -> str | None:
    """Return the service's id of the message, or None.

    Discord and Mattermost name it `id`, Slack `ts`, Google Chat `name`, and Telegram `message_id`, in a `result`.
    """
    fields = _fields(answer)
    if not fields:  # the answer of most webhooks
        return None
    return _first(fields.get(name) for name in ("id", "ts", "name", "message_id"))


def place_of(address: str, answer: Seen) -> Place | None:
    """Return the place of the message that was sent to an address; None if the answer does not name its id.

    Slack names the channel `channel`, Discord and Mattermost `channel_id`, and Telegram in a `chat`.
    """
    sent = message_id(answer)
    fields = _fields(answer)
    chat = fields.get("chat")
    named = (fields.get("channel"), fields.get("channel_id"), chat.get("id") if isinstance(chat, dict) else None)
    return None if sent is None else Place(_first(named) or address, sent)


def _fields(answer: Seen) -> Mapping[str, Any]:
    """Return the fields of the answer that describe the message. Telegram nests them in `result`."""
    data = answer.data
    result = data.get("result")
    return result if isinstance(result, dict) else data


def _first(found: Iterable[object]) -> str | None:
    """Return the first id among values of any type."""
    return next((str(one) for one in found if isinstance(one, str | int) and one), None)


def channel_id(answer: Seen) -> str:
    """Return the `id` in an answer about a channel or user."""
    found = answer.data.get("id")
    if not isinstance(found, str | int) or not str(found):
        raise TransientError("the answer of the service contains no id")
    return str(found)
