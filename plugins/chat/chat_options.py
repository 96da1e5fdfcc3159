"""The options of the chat sink, and their checks."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from router.api import Addresses, Key, Secret, SinkOptions, Text, is_template, url_fault

from .length import Length
from .markup import spare
from .service import Service
from .services import SERVICES

VISIBLE = r"[!-~]+"


class ChatOptions(SinkOptions, defer_build=True):
    """The options of a chat sink: the service, its webhook or bot, the recipients and the text."""

    service: Literal["slack", "discord", "teams", "mattermost", "telegram", "google-chat"] = Field(
        description="The chat service."
    )
    url: Secret | None = Field(default=None, description="The URL of a webhook; it is a credential.")
    token: Secret | None = Field(default=None, description="The token of a bot; requires `to`.")
    to: Addresses = Field(default=Addresses(), description="The channels or users that the bot writes to.")
    api: str | None = Field(default=None, description="The base URL of the service, if it is not the public one.")
    text: Annotated[str, Text(escape="escape_value")] | None = Field(
        default=None,
        description="The message. Required if an address is a template; otherwise the default is the event as a JSON line.",
    )
    markup: Literal["plain", "native"] = Field(
        default="plain", description="plain: shown as written. native: the text is the service's own markup."
    )
    allow_mentions: bool = Field(
        default=False, description="Whether mentions such as `@everyone` take effect, including those in events."
    )

    thread: Key | None = Field(
        default=None, description="A key: later messages with this key are replies in the thread of the first message."
    )
    update: Key | None = Field(
        default=None, description="A key: a later message with this key replaces the earlier message."
    )

    @field_validator("thread", "update")
    @classmethod
    def _webhook_can(cls, key: str | None, info: ValidationInfo) -> str | None:
        """Refuse a key that the webhook does not support.

        A sink without `url` passes this check, because a bot supports both keys.
        """
        service, url = info.data.get("service", ""), info.data.get("url")
        webhook = SERVICES[service].webhook if service in SERVICES and url is not None else None
        if key is None or webhook is None:
            return key
        if info.field_name == "thread" and not webhook.thread_flag:
            raise ValueError(f"a webhook of {service} can't reply to a message{_cure(service)}")
        if info.field_name == "update" and not webhook.edits:
            raise ValueError(f"a webhook of {service} can't change a message{_cure(service)}")
        return key

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> Self:
        # While `defaults` is checked, `allow_private` is not known, because the sink itself may set it.
        allow_private = (info.context or {}).get("allow_private", True)
        faults = [*_way_faults(self), *_value_faults(self, allow_private=allow_private)]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def escape_value(self, value: str) -> str:
        """Return a value of an event as it is put into `text`.

        With the markup `native`, the value is escaped here. With `plain`, the value stays unchanged, because `finish`
        escapes the whole text.
        """
        if self.markup == "plain":
            return value
        return spare(self.length.start(value), self.mentions, self.rules.value)

    def finish(self, text: str) -> tuple[str, bool]:
        """Return the text to send, and whether it was cut.

        With the markup `plain`, the text is escaped. Mentions are disabled if the options don't allow them. A text
        above the service's limit is cut.
        """
        whole, rules, length = True, self.rules, self.length
        if self.markup == "plain":
            start = length.start(text)
            whole, text = start == text, spare(start, self.mentions, rules.plain)
        if not self.allow_mentions:
            text = rules.mute(text)
        short = length.shorten(text)
        return short, not whole or short != text

    @property
    def length(self) -> Length:
        """The limit on the length of a text."""
        rules = self.rules
        return (rules.native_length if self.markup == "native" else None) or rules.length

    @property
    def mentions(self) -> str | None:
        """The pattern of the mentions that escaping must leave unchanged. None means that there are none."""
        return self.rules.mentions if self.allow_mentions else None

    @property
    def rules(self) -> Service:
        """The rules of the service."""
        return SERVICES[self.service]

    @property
    def one_place(self) -> bool:
        """True if every message goes to the same place, because no address is a template."""
        return not any(map(is_template, self.to))

    @property
    def base(self) -> str:
        """The base URL of the service, without a slash at its end."""
        return (self.api or self.rules.api).strip().rstrip("/").removesuffix("/api/v4")

    @property
    def secrets(self) -> list[bytes]:
        """The secrets to hide in responses of the service.

        They are the token, the URL of the webhook, the path of the URL, and each part of the path with 8 characters or
        more.
        """
        whole = stripped(self.url)
        url = urlsplit(whole)
        path = f"{url.path}?{url.query}"
        parts = {part for part in re.split(r"[/?&=]", path) if len(part) >= 8}
        found = {stripped(self.token), whole, path, url.path, *parts}
        return sorted((part.encode() for part in found if len(part) > 4), key=len, reverse=True)


def _cure(service: str) -> str:
    """Return the end of a message about a key that a webhook does not support."""
    can = "; a bot can: give `token` and `to` instead of `url`"
    return can if SERVICES[service].bot else "; event-router has no bot for this service, so remove this option"


def stripped(secret: Secret | None) -> str:
    """Return a secret as text, without spaces around it. Return an empty text if the option is not set."""
    return secret.get_secret_value().strip() if secret else ""


def _way_faults(options: ChatOptions) -> list[str]:
    """Return a list with the first fault in the combination of `url`, `token`, `to` and `api`, or an empty list."""
    rules, name = options.rules, options.service
    by_url, by_bot = options.url is not None, options.token is not None or bool(options.to)
    ways = {"`url` (a webhook)": rules.webhook, "`token` and `to` (a bot)": rules.bot}
    faults = {
        "give `url` (a webhook) or `token` and `to` (a bot), not both": by_url and by_bot,
        f"{name} has no webhooks: give `token` and `to` instead of `url`": by_url and not rules.webhook,
        f"the router reaches {name} only by a webhook: give `url` instead of `token` and `to`": by_bot
        and not rules.bot,
        f"{name} needs {' or '.join(way for way, has in ways.items() if has)}": not by_url and not by_bot,
        "`token` is missing: a bot needs `token` and `to`": by_bot and not options.token,
        "`to` is missing: a bot needs `token` and `to`": by_bot and not options.to,
        f"{name} needs `api`, the address of your server, such as https://chat.example.org": by_bot
        and not options.base,
    }
    return [fault for fault, is_there in faults.items() if is_there][:1]


def _value_faults(options: ChatOptions, *, allow_private: bool) -> list[str]:
    """Return the faults of the values of `url`, `token`, `to` and `api`, without quoting the values."""
    urls = {"url": None if options.url is None else stripped(options.url), "api": options.api and options.api.strip()}
    found = {key: None if text is None else url_fault(text, allow_private=allow_private) for key, text in urls.items()}
    faults = [f"`{key}` {fault}" for key, fault in found.items() if fault]
    if options.token is not None and not re.fullmatch(VISIBLE, stripped(options.token)):
        faults.append("`token` is empty or has a character that is not allowed in a token")
    if any(re.match("(?i)https?://", address.strip()) for address in options.to):
        faults.append("`to` is a URL: write the name or the id of the channel or user instead")
    if options.text is None and not options.one_place:
        faults.append("`to` is a template, so `text` is required: without `text`, users would get JSON")
    return faults
