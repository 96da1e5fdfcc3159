"""The options of the webhook sink, and their checks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from router.api import (
    Condition,
    Event,
    Json,
    Secret,
    SinkOptions,
    Template,
    Url,
    is_header_name,
    is_template,
    url_fault,
)

from . import bodies
from .client_certificates import ClientCertificate
from .cloud_events import TEMPLATES, CloudEvents
from .signatures import secret_fault

_LITERAL_HOST = re.compile(r"https?://[^/?#{}]+[/?#]", re.IGNORECASE)
_VISIBLE = re.compile(r"[!-~]+")
_OF_HTTP = frozenset(
    "accept-encoding connection content-length expect keep-alive proxy-authorization te trailer transfer-encoding upgrade".split()  # noqa: SIM905  # short
)
_WITHOUT_BODY = frozenset({"GET", "DELETE"})


def _form_text(value: Any) -> Any:
    """Return a number or a boolean as text. An operator may write such a value without quotes in YAML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


FormValue = Annotated[Template, BeforeValidator(_form_text)]
Answered = Annotated[Condition, Condition(names=("status", "headers", "answer"))]


class Auth(SinkOptions, defer_build=True):
    """The credentials in each request: a bearer token, or a user name and a password."""

    bearer: Secret | None = Field(default=None, description="The token of `Authorization: Bearer`.")
    username: str | None = Field(default=None, description="The user of `Authorization: Basic`; requires `password`.")
    password: Secret | None = Field(default=None, description="The password of `Authorization: Basic`.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        by_password = self.username is not None or self.password is not None
        if (self.bearer is not None) == by_password:
            raise ValueError("give `bearer`, or `username` and `password`")
        if by_password and (self.username is None or self.password is None):
            raise ValueError("`username` and `password` must be given together")
        if self.username is not None and (":" in self.username or not self.username.isprintable()):
            raise ValueError("`username` has a colon or a control character, which HTTP can't send")
        if self.bearer is not None and not _VISIBLE.fullmatch(self.bearer.get_secret_value().strip()):
            raise ValueError("`bearer` is empty or has a character that is not allowed in a token")
        return self


class WebhookOptions(SinkOptions, defer_build=True):
    """The options of a webhook sink: the destination, the content, the signatures, and the meaning of responses."""

    url: Url = Field(description="The URL; scheme and host must be literal, templates may follow.")
    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = Field(
        default="POST", description="The HTTP method; GET and DELETE have no body."
    )
    headers: dict[str, Template] = Field(default={}, description="Headers; the values are templates.")
    body: Literal["line", "raw"] | None = Field(
        default=None, description="line (default): the JSON line of the event. raw: the payload as it was published."
    )
    json_: Json | None = Field(
        default=None, alias="json", description="A JSON body: a mapping, whose values may be templates."
    )
    form: dict[str, FormValue | list[FormValue]] | None = Field(
        default=None, description="The fields of a form; a list repeats its field."
    )
    success: Answered | None = Field(
        default=None,
        description="An expression on `status`, `headers` and `answer` of a 2xx response; false: the delivery failed.",
    )
    retry_if: Answered | None = Field(
        default=None,
        description="An expression on `status`, `headers` and `answer` of a refusal; true: the delivery is retried.",
    )
    signing_secret: Secret | list[Secret] | None = Field(
        default=None,
        description="The secret that signs by Standard Webhooks: `whsec_…`; a list while one secret replaces another.",
    )
    hmac_secret: Secret | None = Field(
        default=None, description="The secret that signs as GitHub does (X-Hub-Signature-256)."
    )
    cloudevents: CloudEvents | None = Field(default=None, description="Sends each event as a CloudEvent.")
    auth: Auth | None = Field(
        default=None, description="The credentials: {bearer: TOKEN}, or {username: …, password: …}."
    )
    client_certificate: ClientCertificate | None = Field(
        default=None, description="The certificate that the sink shows to the server."
    )
    batch_as: Literal["array", "lines"] | None = Field(
        default=None,
        description="Sends several events in one request: as a JSON array, or as one JSON document on each line.",
    )

    @field_validator("headers")
    @classmethod
    def _named(cls, headers: dict[str, str]) -> dict[str, str]:
        seen: set[str] = set()
        for name in headers:
            if not is_header_name(name):
                raise ValueError(f"{name!r} is not a valid name of a header")
            if name.lower() in _OF_HTTP:
                raise ValueError(f"the HTTP client sets the header {name} itself, so it can't be given here")
            if name.lower() in seen:
                raise ValueError(f"the header {name} is given twice (upper and lower case make no difference)")
            seen.add(name.lower())
        return headers

    @field_validator("signing_secret")
    @classmethod
    def _usable(cls, secret: Secret | list[Secret] | None) -> Secret | list[Secret] | None:
        secrets = secret if isinstance(secret, list) else [secret]
        if not secrets:
            raise ValueError("must not be empty: at least one secret is needed")
        for each in secrets:
            if each is not None and (fault := secret_fault(each)):
                raise ValueError(fault)
        return secret

    @field_validator("hmac_secret")
    @classmethod
    def _filled(cls, secret: Secret | None) -> Secret | None:
        if secret is not None and not secret.get_secret_value():
            raise ValueError("must not be empty")
        return secret

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> Self:
        allow_private = (info.context or {}).get("allow_private", True)  # not known while `defaults` is checked
        found = _url_fault(self.url, allow_private=allow_private)
        faults = [*([f"`url` {found}"] if found else []), *_clashes(self), *_taken(self)]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def preview(self, event: Event) -> str:
        """Return the body for an event; if there is no body, the method and the URL."""
        made = bodies.make([event], [self])
        return f"{self.method} {self.url}" if made is None else made.content.decode("utf-8", "backslashreplace")

    @property
    def has_body(self) -> bool:
        """True if the requests have a body."""
        return self.method not in _WITHOUT_BODY

    @property
    def signing_secrets(self) -> list[Secret]:
        """The secrets for Standard Webhooks; empty if the requests are not signed by Standard Webhooks."""
        found = self.signing_secret
        return found if isinstance(found, list) else [] if found is None else [found]


def _url_fault(url: str, *, allow_private: bool) -> str | None:
    """Return the fault of a URL. For a URL with templates, only the literal parts are checked."""
    where = _LITERAL_HOST.match(url)
    if not is_template(url):
        found = url_fault(url, allow_private=allow_private)
    elif where is None:
        return "has a template in its scheme or host; write scheme and host without templates, so that an event can't choose the server"
    else:
        found = url_fault(where[0] + TEMPLATES.sub("", url[where.end() :]), allow_private=allow_private)
    if found is None and "@" in re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        return "contains a user name; write `auth: {username: …, password: …}`"
    return found


def _clashes(options: WebhookOptions) -> Iterator[str]:
    """Yield the faults of options that exclude each other."""
    forms = {"body": options.body, "json": options.json_, "form": options.form}
    given = [name for name, value in forms.items() if value is not None]
    if len(given) > 1:
        yield f"only one of {', '.join(f'`{name}`' for name in given)} can be given"
    more = {**forms, "cloudevents": options.cloudevents, "batch_as": options.batch_as}
    if not options.has_body and (there := [name for name, value in more.items() if value is not None]):
        yield f"{options.method} has no body, so `{there[0]}` can't be given"
    if options.form is not None and options.batch_as is not None:
        yield "a `form` contains one event, so `batch_as` can't be given"
    events = options.cloudevents
    if events is None:
        return
    if options.form is not None or options.body == "line":
        yield f"a CloudEvent contains the payload or `json`, so `{'form' if options.form is not None else 'body: line'}` can't be given"
    if options.batch_as is not None and not (events.mode == "structured" and options.batch_as == "array"):
        yield "CloudEvents can be sent in batches only with `mode: structured` and `batch_as: array`"


def _taken(options: WebhookOptions) -> Iterator[str]:
    """Yield a fault for each header that another option sets."""
    signed = {"webhook-timestamp", "webhook-signature", "webhook-id"}
    by: Mapping[str, tuple[bool, frozenset[str] | set[str]]] = {
        "signing_secret": (options.signing_secret is not None, signed),
        "hmac_secret": (options.hmac_secret is not None, {"x-hub-signature-256"}),
        "auth": (options.auth is not None, {"authorization"}),
        "cloudevents": (options.cloudevents is not None, {"content-type"}),
    }
    for name in options.headers:
        for option, (given, names) in by.items():
            if given and (name.lower() in names or (option == "cloudevents" and name.lower().startswith("ce-"))):
                yield f"`headers` has {name}, but `{option}` sets this header"
