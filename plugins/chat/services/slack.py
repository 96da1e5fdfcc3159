"""Slack: incoming webhooks and `chat.postMessage`. Slack gives the reason of a refusal in one word."""

from __future__ import annotations

from typing import Any

from router.api import PermanentError, SinkError, TransientError, quote_response, retry_after

from ..length import BRACKETS, Length, units
from ..markup import SLACK_MENTION, apart_from_ampersand, muted
from ..service import Bot, Message, Place, Service, Webhook
from ..web_api import Seen, judge_status, judge_webhook

# Slack's words for a fault of the token or webhook (OF_THE_SINK) and for temporary failures (PASSING). All other words
# are faults of the message.
OF_THE_SINK = frozenset(
    "invalid_auth not_authed invalid_token token_revoked token_expired not_allowed_token_type account_inactive "  # noqa: SIM905  # short
    "missing_scope no_permission access_denied accesslimited org_login_required ekm_access_denied "
    "team_access_not_granted two_factor_setup_required enterprise_is_restricted deprecated_endpoint method_deprecated "
    "no_service no_service_id no_team no_active_hooks team_disabled action_prohibited".split()
)
PASSING = frozenset(
    "ratelimited rate_limited message_limit_exceeded internal_error fatal_error service_unavailable "  # noqa: SIM905  # short
    "request_timeout rollup_error team_added_to_org".split()
)


def escape(text: str) -> str:
    """Return text without links and mentions, by the three entities that Slack requires."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def body(message: Message) -> dict[str, Any]:
    """Return the body of a request; with `mrkdwn` false, Slack shows `*bold*` as written."""
    return {"text": message.text, "mrkdwn": False} if message.plain else {"text": message.text}


def judge_hook(seen: Seen, now: float) -> None:
    """Judge the response of a webhook. The response is one word, or has the form of a response of the Web API."""
    word = seen.data.get("error") or seen.body[:100].decode("utf-8", "replace").strip()
    if word in OF_THE_SINK or seen.data.get("ok") is False:
        _judge_word(str(word), seen, now)
    judge_webhook(seen, now)


def judge(seen: Seen, now: float) -> None:
    """Judge a response of the Web API. A refusal has the status 200, `ok: false` and one word."""
    if not seen.understood:
        raise TransientError(f"the response is not from Slack: {quote_response(seen)}")
    if seen.data.get("ok") is False:
        _judge_word(str(seen.data.get("error") or "ok is false, without an error code"), seen, now)
    judge_status(seen, now)


def _judge_word(word: str, seen: Seen, now: float) -> None:
    """Raise the delivery error for the word of a refusal.

    Return if only the status decides, because the word is unknown.
    """
    wait, message = retry_after(seen.headers, now), f"Slack reports {word[:100]}"
    needed = seen.data.get("needed")
    if word in OF_THE_SINK:
        raise SinkError(f"{message}: {needed}" if needed else message, retry_after=wait)
    if "rate" in word and word in PASSING:
        judge_status(seen.replaced(status=429, body=message.encode()), now)
    if word in PASSING:
        raise TransientError(message, retry_after=wait)
    if seen.done or seen.status == 400:
        raise PermanentError(message)


class SlackBot(Bot):
    """Sends to a channel by its id or name, or to a user by id as a direct message."""

    judge = staticmethod(judge)

    async def send(self, address: str, message: Message) -> Seen:
        """Send one message."""
        where = {"channel": address}
        if message.replies_to is not None:
            where = {"channel": message.replies_to.channel, "thread_ts": message.replies_to.first}
        return await self.api.call("/chat.postMessage", {**where, **body(message)})

    async def edit(self, place: Place, message: Message) -> Seen:
        """Replace the text of a message; `parse` makes Slack treat the text as `chat.postMessage` does."""
        where = {"channel": place.channel, "ts": place.id, "parse": "none"}
        return await self.api.call("/chat.update", {**where, **body(message)})


SLACK = Service(
    length=Length(((40_000, units),), BRACKETS),
    plain=escape,
    value=apart_from_ampersand(escape),
    mute=muted((SLACK_MENTION, "&lt;")),
    mentions=r"(<(?:!(?:here|channel|everyone)|!subteam\^\w+|@\w+)(?:\|[^<>]*)?>)",
    webhook=Webhook(body, judge_hook),
    bot=SlackBot,
    api="https://slack.com/api",
)
