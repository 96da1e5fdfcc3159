"""Google Chat: webhooks."""

from __future__ import annotations

import re

from router.api import SinkError, quote_response

from .length import BRACKETS, Length, units
from .markup import BREAK, muted
from .service import Service, Webhook
from .web_api import Seen, judge_webhook


def escape(text: str) -> str:
    """Return text without links and mentions: Google has no escape, so an invisible break follows each `<`."""
    return re.sub(r"<(?=\S|\Z)", f"<{BREAK}", text)


def judge(seen: Seen, now: float) -> None:
    """Judge an answer; a wrong key is a 400 at Google."""
    if seen.status == 400 and b"API key" in seen.body:
        raise SinkError(quote_response(seen))
    judge_webhook(seen, now)


GOOGLE_CHAT = Service(
    length=Length(((4_096, units),), BRACKETS),
    plain=escape,
    value=escape,
    mute=muted((r"(?i)<(?=users/)", f"<{BREAK}")),
    mentions=r"(<users/\w+>)",
    webhook=Webhook(judge=judge),
)
