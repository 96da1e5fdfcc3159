"""The description of a service, and the base classes of its webhook and its bot."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from router.api import PermanentError, Recent, SinkError, TransientError

from .length import Length
from .markup import Change
from .web_api import Judge, NobodyError, NoPageError, Seen, WebApi, judge_webhook

REMEMBERED_CHANNELS = 10_000


class Message(NamedTuple):
    """A message: one text for one address. `key` is the same on every attempt."""

    text: str
    plain: bool
    """True: shown as written. False: the text is in the service's markup."""
    allow_mentions: bool
    key: str = ""

    @property
    def nonce(self) -> str:
        """The key, shortened to the 24 characters that services accept."""
        return hashlib.blake2b(self.key.encode(), digest_size=12).hexdigest()


Body = Callable[[Message], dict[str, Any]]


def text_body(message: Message) -> dict[str, Any]:
    """Return the body for a service whose requests have only a text."""
    return {"text": message.text}


class Bot:
    """A bot, which sends messages to addresses through a service's API."""

    judge: Judge
    scheme = "Bearer"

    def __init__(self, api: WebApi, token: str) -> None:
        self.api = api
        api.headers = {"Authorization": f"{self.scheme} {token}"}

    async def send(self, address: str, message: Message) -> Seen:
        """Send one message and return the service's answer. Raises a delivery error if that failed."""
        raise NotImplementedError


class Webhook(NamedTuple):
    """A kind of webhook: the body of its requests, the meaning of its answers, and a required part of its URL."""

    body: Body = text_body
    judge: Judge = judge_webhook
    flag: str = ""

    def address(self, url: str) -> str:
        """Return the URL to post to."""
        query = urlsplit(url).query
        if not self.flag or f"{self.flag}=" in query:
            return url
        return f"{url}{'&' if query else '?'}{self.flag}=true"

    def sender(self, api: WebApi) -> Callable[[str, Message], Awaitable[Seen]]:
        """Return the function that sends a message; it ignores the address, because a webhook has one destination."""
        return lambda _address, message: api.call("", self.body(message))


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
    """Return the service's id of the message; the status of the answer if it has no id, as those of most webhooks.

    Discord and Mattermost name the id `id`, Slack `ts`, Google Chat `name`, and Telegram `message_id`, in a `result`.
    """
    data = answer.data
    result = data.get("result")
    fields: Mapping[str, Any] = result if isinstance(result, dict) else data
    found = (fields.get(name) for name in ("id", "ts", "name", "message_id"))
    return next((str(one) for one in found if isinstance(one, str | int) and one), f"HTTP {answer.status}")


def channel_id(answer: Seen) -> str:
    """Return the `id` in an answer about a channel or user."""
    found = answer.data.get("id")
    if not isinstance(found, str | int) or not str(found):
        raise TransientError("the service's answer has no id in it")
    return str(found)
