"""Discord: webhooks, and a bot by API v10."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from router.api import PermanentError, SinkError, TransientError, quote_response

from ..length import MARKDOWN_UNITS, Length, units
from ..markup import apart, muted, tagless
from ..service import ChannelBot, Message, Place, Service, Way, Webhook, channel_id, itself
from ..web_api import NobodyError, NoPageError, Seen, bounded, judge_status, judge_webhook

# Discord's error codes: faults of the bot or webhook, temporary failures, and unknown channels or users.
OF_THE_SINK = frozenset({40001, 40002, 50014})
PASSING = frozenset({40003, 40062, 130000})
NOBODY = frozenset({10003, 10013, 50033})
# The codes for a message that can't be changed. 10008: the message is unknown. 30046: the message is older than an hour
# and was edited too often. Discord also sends 30046 with the status 429.
NO_LONGER = frozenset({10008, 30046})


def body(message: Message) -> dict[str, Any]:
    """Return the body of a request. An empty `allowed_mentions.parse` keeps Discord from notifying anybody."""
    allowed: dict[str, Any] = {} if message.allow_mentions else {"allowed_mentions": {"parse": []}}
    return {"content": message.text, **allowed}


def judge(seen: Seen, now: float) -> None:
    """Judge a response to the bot: by Discord's error code if the code is listed above, else by the status."""
    code = seen.data.get("code")
    if seen.done:
        return
    if code in NO_LONGER:
        raise PermanentError(quote_response(seen))
    if code in OF_THE_SINK:
        raise SinkError(quote_response(seen))
    if code in PASSING and seen.status != 429:
        raise TransientError(quote_response(seen), retry_after=bounded(seen.data.get("retry_after")))
    if code in NOBODY:
        raise NobodyError(quote_response(seen))
    if seen.status == 404:
        raise NoPageError(quote_response(seen))
    # Discord's documentation, "Rate Limits": a limit with one of these marks applies to the whole bot. Any other limit
    # applies to one route and one address.
    marks = (seen.headers.get("X-RateLimit-Global", ""), seen.headers.get("X-RateLimit-Scope", ""))
    everywhere = seen.data.get("global") is True or bool({"true", "global"} & {word.strip().lower() for word in marks})
    judge_status(seen, now, seen.data.get("retry_after"), everywhere=everywhere)


def judge_hook(seen: Seen, now: float) -> None:
    """Judge a response to the webhook. If the message to edit does not exist any more, only the edit fails."""
    if not seen.done and seen.data.get("code") in NO_LONGER:
        raise PermanentError(quote_response(seen))
    judge_webhook(seen, now)


class DiscordBot(ChannelBot):
    """The bot of Discord, which sends to `user:ID`, to `channel:ID`, or to an id alone.

    An id alone is tried as a user's id first, then as a channel's id.
    """

    judge = staticmethod(judge)
    scheme = "Bot"

    def ways(self, address: str) -> list[Way]:
        """Return the lookups to try. The user is first, because most ids in events are those of users."""
        known = re.fullmatch(r"(?:(user:|@)|(channel:|#))?([0-9]{1,25})", address)
        if known is None:
            raise PermanentError(f"{address} is not an id of Discord: write digits, user:ID or channel:ID")
        user, channel, name = known.groups()
        ways: list[Way] = [(self.direct, name), (itself, name)]
        return ways[:1] if user else ways[1:] if channel else ways

    async def direct(self, user: str) -> str:
        """Return the channel for direct messages with a user. Discord creates this channel at the first request."""
        try:
            return channel_id(await self.api.call("/users/@me/channels", {"recipient_id": user}))
        except PermanentError as error:
            raise NobodyError(str(error)) from None

    async def post(self, channel: str, message: Message) -> Seen:
        """Send one message. Discord ignores another message with the same nonce within a few minutes."""
        more: dict[str, Any] = {"nonce": message.nonce, "enforce_nonce": True}
        if message.replies_to is not None:  # Discord refuses a reply to an unknown message
            more["message_reference"] = {"message_id": message.replies_to.id}
        return await self.api.call(f"/channels/{channel}/messages", {**body(message), **more})

    async def edit(self, place: Place, message: Message) -> Seen:
        """Replace the text of a message."""
        path = f"/channels/{quote(place.channel, safe='')}/messages/{quote(place.id, safe='')}"
        return await self.api.call(path, body(message), method="PATCH")


DISCORD = Service(
    length=Length(((2_000, units),), MARKDOWN_UNITS),
    plain=tagless,
    value=apart(tagless),
    mute=muted(),
    mentions=r"(<(?:@[!&]?|\#)\d+>)",
    # Without `wait`, Discord responds before it stores the message. The message may get lost, and the response has no
    # id.
    webhook=Webhook(body, judge_hook, flag="wait=true", edits=True),
    bot=DiscordBot,
    api="https://discord.com/api/v10",
)
