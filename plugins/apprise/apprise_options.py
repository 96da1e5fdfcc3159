"""The options of the apprise sink, and their checks."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from router.api import Addresses, Event, SinkOptions, Text, is_placeholder, is_template

from .targets import address_of

MISSING = "its library is not installed: pip install 'event-router[apprise]'"


class AppriseOptions(SinkOptions, defer_build=True):
    """The options of an apprise sink: the targets, each a URL of Apprise, and the message."""

    urls: Annotated[list[str], Addresses(known_by=address_of)] = Field(
        description="The targets: Apprise URLs (each is a credential), or a template that gives such URLs."
    )
    body: Text | None = Field(
        default=None,
        description="The message. Required if a URL is a template; otherwise the default is the event as a JSON line.",
    )
    title: Text = Field(default=Text(""), description="The title, for services that have one.")

    @model_validator(mode="before")
    @classmethod
    def _installed(cls, values: Any) -> Any:
        """Refuse the options if the library is not installed. This check runs before all others."""
        if importlib.util.find_spec("apprise") is None:
            raise ValueError(MISSING)
        return values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.urls:
            raise ValueError("`urls` must not be empty")
        if self.body is None and any(map(is_template, self.urls)):
            raise ValueError("`urls` has a template, so `body` is required: without `body`, users would get JSON")
        literal = [url for url in self.urls if not is_template(url) and not is_placeholder(url)]
        if literal:
            faults = [f"`urls`: {fault}" for url in literal if (fault := _fault_of(url))]
            if faults:
                raise ValueError("; ".join(faults))
        return self

    def preview(self, event: Event) -> str:  # noqa: ARG002  # the options are rendered already
        """Return the title of a message that has no body."""
        return self.title


def _fault_of(url: str) -> str | None:
    """Return why a URL of the configuration can't be used, or None if the URL is usable.

    The text does not quote the URL.
    """
    from .library import fault_of  # noqa: PLC0415  # the library is an extra, and takes seconds to load

    try:
        address_of(url)
    except ValueError as error:
        return str(error)
    return fault_of(url)
