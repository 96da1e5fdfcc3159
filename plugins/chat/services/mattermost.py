"""Mattermost: incoming webhooks, and a bot by API v4."""

from __future__ import annotations

import re
from urllib.parse import quote

from router.api import PermanentError, SinkError, quote_response

from ..length import MARKDOWN_UNITS, Length, units
from ..markup import ANYBODY, BREAK, EVERYBODY, SLACK_MENTION, apart, markdown, muted
from ..service import ChannelBot, Message, Place, Service, Way, Webhook, channel_id, itself
from ..web_api import NobodyError, NoPageError, Seen, WebApi, judge_status, judge_webhook


def plain(text: str) -> str:
    """Return text that Mattermost shows as written.

    Markdown is escaped, and so is Slack's syntax for links (`<https://…|text>`), which webhooks accept too.
    """
    return markdown(text).replace("<", "&lt;")


def judge_hook(seen: Seen, now: float) -> None:
    """Judge the response of a webhook.

    Mattermost responds with 400 or 501 for a webhook that is removed or disabled.
    """
    if not seen.done and re.search(r"incoming_webhook\.(?:invalid|disabled)", str(seen.data.get("id"))):
        raise SinkError(quote_response(seen))
    judge_webhook(seen, now)


def judge(seen: Seen, now: float) -> None:
    """Judge a response to the bot.

    Mattermost responds with 403 if a channel does not exist or the bot is not a member of the channel. It responds with
    404 for an unknown user.
    """
    known = bool(seen.data.get("id")) and seen.data.get("id") != "api.context.404.app_error"
    if seen.status == 404 and not known:
        raise NoPageError(quote_response(seen))
    if seen.status in {400, 403, 404}:
        raise NobodyError(quote_response(seen))
    judge_status(seen, now)


class MattermostBot(ChannelBot):
    """The bot of Mattermost, which sends to `@name`, a mail address, `user:ID`, `channel:ID`, or an id alone.

    An id alone is tried as a channel's id first, then as a user's id.
    """

    judge = staticmethod(judge)

    def __init__(self, api: WebApi, token: str) -> None:
        super().__init__(api, token)
        self.me = ""

    def ways(self, address: str) -> list[Way]:
        """Return the lookups to try, by the form of the address."""
        kind, colon, name = address.partition(":")
        if address.startswith("@"):
            return [(self.direct_by_name, address[1:])]
        if "@" in address:
            return [(self.direct_by_mail, address)]
        ways: dict[str, Way] = {"channel": (itself, name if colon else address), "user": (self.direct, name or address)}
        if colon and kind not in ways:
            raise PermanentError(
                f"{address} is not an address of Mattermost: write an id, @name, user:ID or channel:ID"
            )
        return [ways[kind]] if colon else list(ways.values())

    async def direct_by_name(self, name: str) -> str:
        """Return the channel of the direct messages with a user, by the user's name."""
        return await self.direct(await self._get(f"/users/username/{quote(name, safe='')}"))

    async def direct_by_mail(self, address: str) -> str:
        """Return the channel of the direct messages with a user, by the user's mail address."""
        return await self.direct(await self._get(f"/users/email/{quote(address, safe='')}"))

    async def direct(self, user: str) -> str:
        """Return the channel of the direct messages with a user, by the user's id."""
        self.me = self.me or await self._get("/users/me")
        return channel_id(await self.api.call("/api/v4/channels/direct", [self.me, user]))

    async def post(self, channel: str, message: Message) -> Seen:
        """Send one message. The server ignores another message with the same pending id for 30 seconds."""
        body = {"channel_id": channel, "message": message.text, "pending_post_id": message.nonce}
        if message.replies_to is not None:
            body["root_id"] = message.replies_to.first  # Mattermost refuses a reply to a reply
        return await self.api.call("/api/v4/posts", body)

    async def edit(self, place: Place, message: Message) -> Seen:
        """Replace the text of a message. The other properties of the message stay unchanged."""
        path = f"/api/v4/posts/{quote(place.id, safe='')}/patch"
        return await self.api.call(path, {"message": message.text}, method="PUT")

    async def _get(self, path: str) -> str:
        """Return the id of the object at the path."""
        return channel_id(await self.api.call(f"/api/v4{path}", method="GET"))


MATTERMOST = Service(
    length=Length(((16_383, units),), MARKDOWN_UNITS),
    plain=plain,
    value=apart(plain),
    mute=muted(
        (SLACK_MENTION, "&lt;"),
        (r"(?i)(?<!\\)&(?:#0*64|#x0*40|commat);", "@"),
        (EVERYBODY, f"@{BREAK}"),  # also in a URL, because Mattermost finds mentions there too
        names=ANYBODY,
    ),
    webhook=Webhook(judge=judge_hook),
    bot=MattermostBot,
)
