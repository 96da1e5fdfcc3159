"""Microsoft Teams: the webhooks of Workflows, which accept Adaptive Cards."""

from __future__ import annotations

import json
import re
from typing import Any

from ..length import MARKDOWN_UNITS, Length
from ..markup import BREAK, apart, muted, tagless
from ..service import Message, Service, Webhook
from ..web_api import Seen, judge_webhook

CARD_LINES = 100


def octets(text: str) -> int:
    """Return the number of bytes of the text in JSON (UTF-8). Some characters need a backslash in JSON."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")) - 2


def plain(text: str) -> str:
    """Return text that Teams shows as written: escapes Markdown and functions of Adaptive Cards (`{{DATE(…)}}`)."""
    return re.sub(r"\{(?=\{|\Z)", f"{{{BREAK}", tagless(text))


def body(message: Message) -> dict[str, Any]:
    """Return an Adaptive Card. A text block has no line breaks of its own, so each line of a plain text is a block."""
    lines = message.text.split("\n") if message.plain else [message.text]
    if len(lines) > CARD_LINES:
        lines = [*lines[: CARD_LINES - 1], " ".join(lines[CARD_LINES - 1 :])]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "TextBlock", "text": line or BREAK, "wrap": True, "spacing": "None"} for line in lines],
        "msteams": {"width": "Full"},
    }
    kind = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None}
    return {"type": "message", "attachments": [{**kind, "content": card}]}


def judge(seen: Seen, now: float) -> None:
    """Judge a response. Older webhooks respond with 200 even to a refusal, and name its real status in the body."""
    judge_webhook(seen, now)
    hidden = re.search(rb"HTTP error (\d{3})", seen.body)
    if hidden:
        judge_webhook(seen.replaced(status=int(hidden[1])), now)


TEAMS = Service(
    length=Length(((20_000, octets),), MARKDOWN_UNITS),
    plain=plain,
    value=apart(plain),
    mute=muted(),
    webhook=Webhook(body, judge),
)
