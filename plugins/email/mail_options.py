"""The options of the mail sink: the server, the recipients and the message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from router.api import Addresses, Html, Key, Secret, SinkOptions, Template, Text, is_template

from .headers import header
from .host_names import host_name
from .mailbox import listed, mailbox

OURS = frozenset(
    "from to cc bcc reply-to subject date message-id mime-version return-path received".split()  # noqa: SIM905  # short
)

THREADING = frozenset({"in-reply-to", "references"})

Recipients = Annotated[list[str], Addresses(kind="mail")]


class EmailOptions(SinkOptions, defer_build=True):
    """The options of a mail sink: the server, the recipients and the message."""

    host: Annotated[str, BeforeValidator(host_name), Field(min_length=1)] = Field(
        default="localhost", description="The mail server."
    )
    port: int | None = Field(
        default=None, ge=1, le=65535, description="The port; default: 587 with starttls, 465 with tls, 25 with none."
    )
    helo: (
        Annotated[
            str, BeforeValidator(host_name), Field(pattern=r"^([A-Za-z0-9_.-]+|\[[0-9A-Za-z:.]+\])$", max_length=255)
        ]
        | None
    ) = Field(
        default=None,
        description="The name of this machine in EHLO; default: this machine's full name, else its address.",
    )
    tls: Literal["starttls", "tls", "none"] = Field(default="starttls", description="How the connection is secured.")
    ca_file: str | None = Field(
        default=None, description="A PEM file with a private CA, trusted in addition to the system's CAs."
    )
    username: str | None = Field(
        default=None, description="The user name; default, if a password is set: the address of `from`."
    )
    password: Secret | None = Field(default=None, description="The password of `username`.")
    from_: Template = Field(alias="from", description="The sender: `shop@example.org` or `Shop <shop@example.org>`.")
    to: Recipients = Field(default=[], description="The recipients: a template, or a list.")
    cc: Recipients = Field(default=[], description="Recipients of copies.")
    bcc: Recipients = Field(default=[], description="Recipients that are not named in the mail.")
    reply_to: Annotated[list[str], Addresses(kind="mail", recipients=False)] = Field(
        default=[], description="The address for replies, if it is not the address of the sender."
    )
    text: Text | None = Field(
        default=None,
        description="The plain text; the default is the JSON line of the event, if `html` is not set and no address is a "
        "template.",
    )
    html: Html | None = Field(
        default=None, description="The HTML; values are escaped. With `text`, the mail has both, as alternatives."
    )
    subject: Text = Field(default=Text("Event on {{ event.channel }}"), description="The subject of the mail.")
    headers: dict[str, Template] = Field(default={}, description="More headers, such as List-Unsubscribe.")
    separate: bool | None = Field(
        default=None, description="Whether each address gets its own mail; default: yes if an address is a template."
    )

    thread: Key | None = Field(
        default=None, description="A key: later mails with this key are replies to the first mail."
    )

    @field_validator("thread")
    @classmethod
    def _headers_are_left_to_us(cls, key: str | None, info: ValidationInfo) -> str | None:
        clash = [name for name in info.data.get("headers", {}) if name.lower() in THREADING]
        if key is not None and clash:
            raise ValueError(f"`thread` writes the header {clash[0]!r}: remove `headers.{clash[0]}` or `thread`")
        return key

    @model_validator(mode="before")
    @classmethod
    def _separate_by_default(cls, values: Any) -> Any:
        """Set the default of `separate` before rendering: a rendered address no longer shows that it was a template."""
        if isinstance(values, Mapping) and values.get("separate") is None:
            return {**values, "separate": _templated(values.get(key) for key in ("to", "cc", "bcc"))}
        return values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        recipients = [*self.to, *self.cc, *self.bcc]
        if not recipients:
            raise ValueError("a mail needs a recipient: set `to`, `cc` or `bcc`")
        if _templated(recipients) and self.text is None and self.html is None:
            raise ValueError(
                "an address is a template, so `text` or `html` is required: without a text, users would get JSON"
            )
        if self.username and not _secret(self):
            raise ValueError("`username` needs a `password`")
        if _secret(self) and not self.username and is_template(self.from_):
            raise ValueError("if `from` is a template, `password` needs a `username`")
        return self

    @property
    def login(self) -> tuple[str, str] | None:
        """The user name and password, or None without a password. The default name is the sender's address."""
        password = _secret(self)
        return (self.username or mailbox(self.from_).address, password) if password else None

    @field_validator("from_", "to", "cc", "bcc", "reply_to")
    @classmethod
    def _addresses_are_some(cls, value: Any) -> Any:
        """Check the literal addresses when the configuration is loaded.

        Templates are checked when they are rendered.
        """
        for text in [value] if isinstance(value, str) else value:
            if not is_template(text):
                (mailbox if isinstance(value, str) else listed)(text)
        return value

    @field_validator("headers")
    @classmethod
    def _headers_are_free(cls, headers: dict[str, str]) -> dict[str, str]:
        seen = set[str]()
        for name, value in headers.items():
            lower = name.lower()
            if not re.fullmatch(r"[!-9;-~]{1,76}", name):  # RFC 5322 section 2.2: printable ASCII without the colon
                raise ValueError(
                    f"{name!r} can't be the name of a header: a name has only printable ASCII characters, without colon or space"
                )
            if lower in OURS or lower.startswith(("content-", "resent-")):
                raise ValueError(f"the header {name!r} is written from the other options and can't be set by hand")
            if lower in seen:
                raise ValueError(f"the header {name!r} is given twice")
            seen.add(lower)
            if not is_template(value):
                header(name, value)
        return headers

    @field_validator("ca_file")
    @classmethod
    def _ca_file_is_absolute(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).is_absolute():
            raise ValueError("it must be an absolute path")
        return path


def _secret(options: EmailOptions) -> str:
    return options.password.get_secret_value() if options.password else ""


def _templated(values: Iterable[Any]) -> bool:
    """Return whether any of these values (strings or lists of strings) contains a template."""
    return any(is_template(str(value)) for value in values)
