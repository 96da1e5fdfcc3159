"""Telegram: a bot by the Bot API; native markup is Telegram's HTML."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from router.api import PermanentError, TransientError, quote_response

from ..length import TAG, Length, units
from ..markup import ANYBODY, apart_from_ampersand, muted
from ..service import Bot, Message, Place, Service
from ..web_api import Seen, WebApi, judge_status

NOT_MODIFIED = "message is not modified"
HTML_UNITS = (r"<a\b[^<>]*+>(?:[^<]++|<(?!/?a\b))*+</a>", r"</?[a-z][^<>]*+>", r"&#?\w{1,31};")


def visible(text: str) -> int:
    """Return the length of HTML in UTF-16 units as Telegram counts it: without tags, each entity as its character."""
    entity = r"(?i)&(?:lt|gt|amp|quot|#(\d{1,7})|#x([0-9a-f]{1,6}));"
    return units(re.sub(entity, _one_entity, re.sub(TAG, "", text)))


def _one_entity(entity: re.Match[str]) -> str:
    number = int(entity[1]) if entity[1] else int(entity[2], 16) if entity[2] else ord(" ")
    if not 0 < number < 0x10FFFF:
        return entity[0]  # Telegram shows an unknown entity as written
    return "  " if number > 0xFFFF else " "


def html_octets(text: str) -> int:
    """Return the number of bytes of HTML in UTF-8, plus the room for a closing tag for every opening tag."""
    ends = sum(len(name) + 3 for slash, name in re.findall(TAG, text) if not slash)
    return len(text.encode("utf-8", "surrogatepass")) + ends


def judge(seen: Seen, now: float) -> None:
    """Judge a response. A refusal has a code, a description, and parameters such as the time to wait."""
    data = seen.data
    if seen.done and data.get("ok") is not False:
        if not seen.understood:
            raise TransientError(f"the response is not from Telegram: {quote_response(seen)}")
        return
    if NOT_MODIFIED in str(data.get("description")).lower():
        return  # the message already has this text, because the response to an earlier attempt was lost
    parameters = data.get("parameters")
    hints: Mapping[str, Any] = parameters if isinstance(parameters, dict) else {}
    code = data.get("error_code")
    status = code if isinstance(code, int) and 400 <= code < 600 else seen.status if not seen.done else 400
    described = seen.replaced(status=status, body=str(data.get("description") or "").encode() or seen.body)
    if "migrate_to_chat_id" in hints:
        raise PermanentError(
            f"{quote_response(described)}; the group now has the chat id {hints['migrate_to_chat_id']}"
        )
    judge_status(described, now, hints.get("retry_after"))


class TelegramBot(Bot):
    """The bot of Telegram, which sends to a chat or a user by id, or to a public channel by `@name`."""

    judge = staticmethod(judge)

    def __init__(self, api: WebApi, token: str) -> None:
        self.api = api
        self.path = f"/bot{quote(token, safe=':')}"

    async def send(self, address: str, message: Message) -> Seen:
        """Send one message."""
        body = text_for(address, message)
        if message.replies_to is not None:
            body["reply_parameters"] = {"message_id": number(message.replies_to.id)}
        return await self.api.call(f"{self.path}/sendMessage", body)

    async def edit(self, place: Place, message: Message) -> Seen:
        """Replace the text of a message."""
        body = {**text_for(place.channel, message), "message_id": number(place.id)}
        answer = await self.api.call(f"{self.path}/editMessageText", body)
        return answer if answer.data.get("ok") else answer.replaced(body=json.dumps({"id": place.id}).encode())


def text_for(chat: str, message: Message) -> dict[str, Any]:
    """Return the part of a request that names the chat and the text."""
    body = {"chat_id": number(chat), "text": message.text}
    return body if message.plain else {**body, "parse_mode": "HTML"}


def number(text: str) -> int | str:
    """Return the id of a chat or message. Telegram requires numbers, so an id of digits becomes a number."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text


TELEGRAM = Service(
    length=Length(((4_096, units),)),
    native_length=Length(((4_096, visible), (32_768, html_octets)), HTML_UNITS, html=True),
    plain=str,  # without `parse_mode`, Telegram reads no markup
    value=apart_from_ampersand(html.escape),
    mute=muted(
        (r"(?i)(href\s*=\s*[\"']?)tg:(?://)?user\?id=\d*", r"\1#"),
        (r"(?i)&(?:#0*64(?![0-9])|#x0*40(?![0-9a-f]));?", "@"),
        names=ANYBODY,
    ),
    bot=TelegramBot,
    api="https://api.telegram.org",
)
