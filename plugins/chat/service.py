"""What tells one service from another, and what its webhook and its bot are spoken to with."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from router.api import PermanentError, Recent, SinkError, TransientError

from .length import Length
from .markup import Change
from .web_api import Judge, NobodyError, NoPageError, WebApi, judge_webhook

REMEMBERED_CHANNELS = 10_000


class Message(NamedTuple):
    """One text on its way to one address. `key` is the same on every attempt."""

    text: str
    plain: bool
    """Whether it is to be shown as written."""
    allow_mentions: bool
    key: str = ""

    @property
    def nonce(self) -> str:
        """The key in the 24 characters that services take."""
        return hashlib.blake2b(self.key.encode(), digest_size=12).hexdigest()


Answer = Mapping[str, Any]
"""The JSON object that a service answers with, empty where it answers with something else."""

Body = Callable[[Message], dict[str, Any]]


def text_body(message: Message) -> dict[str, Any]:
    """Return the body of a service that takes a text and nothing else."""
    return {"text": message.text}


class Bot:
    """Sends messages to addresses through a service's API, as the bot whose token it is."""

    judge: Judge
    scheme = "Bearer"

    def __init__(self, api: WebApi, token: str) -> None:
        self.api = api
        api.headers = {"Authorization": f"{self.scheme} {token}"}

    async def send(self, address: str, message: Message) -> Answer:
        """Send one message and return the service's answer. Raises what kept it from the address."""
        raise NotImplementedError


class Webhook(NamedTuple):
    """How a webhook is spoken to: what is posted, what an answer means, and a flag that its URL has to have."""

    body: Body = text_body
    judge: Judge = judge_webhook
    flag: str = ""

    def address(self, url: str) -> str:
        """Return the URL to post to."""
        query = urlsplit(url).query
        if not self.flag or f"{self.flag}=" in query:
            return url
        return f"{url}{'&' if query else '?'}{self.flag}=true"

    def sender(self, api: WebApi) -> Callable[[str, Message], Awaitable[Answer]]:
        """Return what sends a message; the address says nothing, for the webhook belongs to a place."""
        return lambda _address, message: api.call("", self.body(message))


class Service(NamedTuple):
    """What tells one service from another.

    `length` is the longest text; `native_length` where the service counts its own markup differently. `plain` makes a
    text shown as written, `value` an event's value harmless inside the service's own markup, `mute` takes mentions away.
    `mentions` are the tokens that `allow_mentions` keeps from being escaped.
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
"""How a channel's id is found, and from what."""


class ChannelBot(Bot):
    """What Discord and Mattermost share: a user is reached through a channel, whose id has to be asked for first.

    Which channel an address stands for is remembered. An address that does not say what it is is tried both ways.
    """

    def __init__(self, api: WebApi, token: str) -> None:
        super().__init__(api, token)
        self.known = Recent(REMEMBERED_CHANNELS)

    async def send(self, address: str, message: Message) -> Answer:
        """Send one message by the first way that leads anywhere."""
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
        raise PermanentError(f"{address} is no user and no channel that the bot can write to: {refusals[-1]}")

    def ways(self, address: str) -> list[Way]:
        """Return the ways to try, in order. Raises `PermanentError` for what can be no address."""
        raise NotImplementedError

    async def post(self, channel: str, message: Message) -> Answer:
        """Send one message to a channel."""
        raise NotImplementedError


async def itself(channel: str) -> str:
    """Return the id of a channel that is given by its id."""
    return channel


def message_id(answer: Answer) -> str | None:
    """Return what the service calls the message that it took, None where it does not say.

    Discord and Mattermost name it `id`, Slack `ts`, Google Chat `name`, and Telegram `message_id`, in a `result`.
    """
    result = answer.get("result")
    fields: Answer = result if isinstance(result, dict) else answer
    found = (fields.get(name) for name in ("id", "ts", "name", "message_id"))
    return next((str(one) for one in found if isinstance(one, str | int) and one), None)


def channel_id(answer: Answer) -> str:
    """Return the `id` of what a service found or made."""
    found = answer.get("id")
    if not isinstance(found, str | int) or not str(found):
        raise TransientError("the service's answer has no id in it")
    return str(found)
