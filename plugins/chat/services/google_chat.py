"""Google Chat: webhooks."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from router.api import SinkError, quote_response

from ..length import BRACKETS, Length, units
from ..markup import BREAK, muted
from ..service import Message, Service, Webhook, text_body
from ..web_api import Seen, judge_webhook


def escape(text: str) -> str:
    """Return text without links and mentions: Google has no escape, so an invisible break follows each `<`."""
    return re.sub(r"<(?=\S|\Z)", f"<{BREAK}", text)


def body(message: Message) -> dict[str, Any]:
    """Return the body of a request; Google puts messages with equal thread keys into one thread."""
    if not message.thread:
        return text_body(message)
    key = hashlib.sha256(message.thread.encode("utf-8", "surrogatepass")).hexdigest()
    return {**text_body(message), "thread": {"threadKey": key}}


def judge(seen: Seen, now: float) -> None:
    """Judge a response. Google responds with 400 if the API key in the URL is wrong."""
    if seen.status == 400 and b"API key" in seen.body:
        raise SinkError(quote_response(seen))
    judge_webhook(seen, now)


GOOGLE_CHAT = Service(
    length=Length(((4_096, units),), BRACKETS),
    plain=escape,
    value=escape,
    mute=muted((r"(?i)<(?=users/)", f"<{BREAK}")),
    mentions=r"(<users/\w+>)",
    # Without this parameter, Google ignores the thread key.
    webhook=Webhook(body, judge, thread_flag="messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"),
)
