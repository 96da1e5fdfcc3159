"""Mattermost: incoming webhooks, and a bot by API v4."""

from __future__ import annotations

import re
from urllib.parse import quote

from router.api import PermanentError, SinkError, quote_response

from .length import MARKDOWN_UNITS, Length, units
from .markup import ANYBODY, BREAK, EVERYBODY, SLACK_MENTION, apart, markdown, muted
from .service import Answer, ChannelBot, Message, Service, Way, Webhook, channel_id, itself
from .web_api import NobodyError, NoPageError, Seen, WebApi, judge_status, judge_webhook


def plain(text: str) -> str:
    """Return text that shows as written: Markdown, and Slack's `<https://…|text>`, which the webhooks take."""
    return markdown(text).replace("<", "&lt;")


def judge_hook(seen: Seen, now: float) -> None:
    """Judge the answer of a webhook; one that is gone or switched off is answered with 400 and 501."""
    if not seen.done and re.search(r"incoming_webhook\.(?:invalid|disabled)", str(seen.data.get("id"))):
        raise SinkError(quote_response(seen))
    judge_webhook(seen, now)


def judge(seen: Seen, now: float) -> None:
    """Judge an answer to the bot: 403 for a channel that isn't there or that the bot is not in, 404 for an unknown user."""
    known = bool(seen.data.get("id")) and seen.data.get("id") != "api.context.404.app_error"
    if seen.status == 404 and not known:
        raise NoPageError(quote_response(seen))
    if seen.status in {400, 403, 404}:
        raise NobodyError(quote_response(seen))
    judge_status(seen, now)


class MattermostBot(ChannelBot):
    """Writes to `@name`, a mail address, `user:ID`, `channel:ID`, or an id alone: a channel's, or else a user's."""

    judge = staticmethod(judge)

    def __init__(self, api: WebApi, token: str) -> None:
        super().__init__(api, token)
        self.me = ""

    def ways(self, address: str) -> list[Way]:
        """Return the ways by what the address looks like."""
        kind, colon, name = address.partition(":")
        if address.startswith("@"):
            return [(self.direct_by_name, address[1:])]
        if "@" in address:
            return [(self.direct_by_mail, address)]
        ways: dict[str, Way] = {"channel": (itself, name if colon else address), "user": (self.direct, name or address)}
        if colon and kind not in ways:
            raise PermanentError(f"{address} is no address of Mattermost: write an id, @name, user:ID or channel:ID")
        return [ways[kind]] if colon else list(ways.values())

    async def direct_by_name(self, name: str) -> str:
        """Return the channel of the direct messages with a user, by the user's name."""
        return await self.direct(await self._get(f"/users/username/{quote(name, safe='')}"))

    async def direct_by_mail(self, address: str) -> str:
        """Return the same channel, by the user's mail address."""
        return await self.direct(await self._get(f"/users/email/{quote(address, safe='')}"))

    async def direct(self, user: str) -> str:
        """Return the same channel, by the user's id."""
        self.me = self.me or await self._get("/users/me")
        return channel_id(await self.api.call("/api/v4/channels/direct", [self.me, user]))

    async def post(self, channel: str, message: Message) -> Answer:
        """Send one message; the server takes no second one with the same pending id for half a minute."""
        body = {"channel_id": channel, "message": message.text, "pending_post_id": message.nonce}
        return await self.api.call("/api/v4/posts", body)

    async def _get(self, path: str) -> str:
        """Return the id of what is at the path."""
        return channel_id(await self.api.call(f"/api/v4{path}", method="GET"))


MATTERMOST = Service(
    length=Length(((16_383, units),), MARKDOWN_UNITS),
    plain=plain,
    value=apart(plain),
    mute=muted(
        (SLACK_MENTION, "&lt;"),
        (r"(?i)(?<!\\)&(?:#0*64|#x0*40|commat);", "@"),
        (EVERYBODY, f"@{BREAK}"),  # not even in a URL, where Mattermost might see it
        names=ANYBODY,
    ),
    webhook=Webhook(judge=judge_hook),
    bot=MattermostBot,
)
