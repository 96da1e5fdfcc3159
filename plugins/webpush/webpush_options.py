"""The options of the webpush sink, and their checks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from router.api import (
    Addresses,
    Duration,
    Event,
    RedisTarget,
    Secret,
    SinkOptions,
    Template,
    Text,
    is_template,
    mailboxes,
    url_fault,
)

URGENCIES = ("very-low", "low", "normal", "high")
LONGEST_TTL = 28 * 86400.0
"""The largest TTL in seconds. Push services keep no message longer, and some refuse a larger TTL."""

MISSING = "its libraries are not installed: pip install 'event-router[webpush]'"


class Gone(SinkOptions, defer_build=True):
    """The action that is taken when a subscription no longer exists."""

    publish: str = Field(
        min_length=1,
        description="The channel of the router's Redis on which the router names subscriptions that no longer exist.",
    )

    @field_validator("publish")
    @classmethod
    def _literal(cls, channel: str) -> str:
        if is_template(channel):
            raise ValueError("must be a literal channel, without a template")
        return channel


class WebPushOptions(SinkOptions, defer_build=True):
    """The options of a webpush sink: the browsers, the sender, and the notification."""

    subscriptions: Annotated[list[Any], Addresses(known_by="endpoint")] = Field(
        description="The browsers: a template that gives one push subscription, or a list of push subscriptions.",
    )
    vapid_private_key: Secret = Field(description="The signing key: PEM, or 32 bytes as base64url.")
    vapid_subject: str = Field(description="Where push services reach you: `mailto:ops@example.org`, or an https URL.")
    text: Text = Field(default=Text(""), description="The text below the title.")
    title: Text = Field(description="The title of the notification.")
    ttl: Duration = Field(
        default=86400.0,
        validate_default=False,
        le=LONGEST_TTL,
        description="How long a push service waits for a browser that is offline.",
    )
    urgency: Template = Field(
        default=Template("normal"),
        description="very-low, low, normal or high: decides whether a sleeping phone wakes up.",
    )
    gone: Gone | None = Field(
        default=None, description="{publish: CHANNEL}: reports to the app which subscriptions no longer exist."
    )

    @model_validator(mode="before")
    @classmethod
    def _installed(cls, values: Any) -> Any:
        """Refuse the options if the libraries are not installed.

        This check runs first: the other checks read the key.
        """
        try:
            import http_ece  # noqa: F401, PLC0415  # slow to import, so only for a sink of this type
            import py_vapid  # noqa: F401, PLC0415
        except ImportError:
            raise ValueError(MISSING) from None
        return values

    @field_validator("subscriptions")
    @classmethod
    def _some(cls, subscriptions: list[Any]) -> list[Any]:
        if not subscriptions:
            raise ValueError('must not be empty: write a template, such as "{{ user.subscriptions }}"')
        return subscriptions

    @field_validator("vapid_private_key")
    @classmethod
    def _is_key(cls, secret: Secret) -> Secret:
        from .vapid import read_key  # noqa: PLC0415  # its libraries are an extra

        if not secret.is_placeholder:
            read_key(secret)
        return secret

    @field_validator("vapid_subject")
    @classmethod
    def _reaches_somebody(cls, subject: str) -> str:
        scheme, _, rest = subject.partition(":")
        if scheme == "mailto":
            boxes = mailboxes(rest)
            if len(boxes) != 1 or boxes[0].name:
                raise ValueError("must name one mail address: mailto:ops@example.org")
        elif scheme != "https" or url_fault(subject, allow_private=True):
            raise ValueError("must be mailto: and a mail address, or an https:// URL")
        return subject

    @field_validator("urgency")
    @classmethod
    def _known(cls, urgency: str) -> str:
        if not is_template(urgency) and urgency not in URGENCIES:
            raise ValueError(f"{urgency!r} must be one of {', '.join(URGENCIES)}")
        return urgency

    @property
    def redis_targets(self) -> Sequence[RedisTarget]:
        """The channel of the option `gone`. The command `check` uses it to find sources that would read the channel."""
        return () if self.gone is None else [RedisTarget("channel", self.gone.publish, "gone")]

    def preview(self, event: Event) -> str:  # noqa: ARG002  # the options are rendered already
        """Return the title of a notification that has no text."""
        return self.title

    def notification(self, tag: str, event: Event) -> bytes:
        """Return the JSON for the service worker. A later notification with the same `tag` replaces the earlier one."""
        fields = {
            "title": self.title,
            "body": self.text,
            "tag": tag,
            "timestamp": int(event.received_at.timestamp() * 1000),
            "data": {"id": event.id, "channel": event.channel},
        }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
