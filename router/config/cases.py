"""The entries of `tests:`: an event, and the expectations about it; floor 1.

The models define how an entry is written. `Case` and `CaseStep` are a checked entry, with its payload as bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from router.config.scalars import seconds_of
from router.options import STRICT

START = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
"""The default time of the fake clock at which a test begins, in seconds since the epoch."""

_AFTER = re.compile(r"\+(.+)", re.DOTALL)


def _time(value: str) -> str:
    moment_of(value, START)
    return value


def moment_of(written: str, start: float) -> float:
    """Return a time in seconds since the epoch: RFC 3339, or a duration after the start such as `+10m`.

    Raises `ValueError` for any other string.
    """
    after = _AFTER.fullmatch(written)
    if after is not None:
        return start + seconds_of(after[1])
    wrong = f"{written!r} is not a time: write RFC 3339 (2026-01-31T12:00:00Z), or a duration after the start (+10m)"
    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        raise ValueError(wrong) from None
    if found.tzinfo is None:
        raise ValueError(f"{written!r} has no time zone; end it with Z or +00:00")
    if found.year < 1970 or found.year > 9000:
        raise ValueError(wrong)
    return found.timestamp()


CaseTime = Annotated[str, AfterValidator(_time)]
"""A time of the fake clock, as written in the configuration."""

Text = Annotated[str, StringConstraints(min_length=1)]
Texts = str | list[str]


class CaseModel(BaseModel):
    """The base of the models of an entry. Their validators are built for the first entry."""

    model_config = {**STRICT, "validate_default": False, "defer_build": True}


class CaseEvent(CaseModel):
    """The event that a test sends through the configuration."""

    channel: Text = Field(description="name the channel, stream or list on which the event arrives")
    source: str | None = Field(
        None, description="the source that receives the event; default: the first source that reads the channel"
    )
    payload: Any = Field(
        None, description="the published message: a string is published unchanged, anything else is encoded as JSON"
    )
    file: Text | None = Field(
        None,
        description="the path of a file that holds the published message, relative to the file that contains this key; replaces `payload`",
    )
    headers: dict[str, str] = Field(default_factory=dict, description="the other fields of a stream entry")
    at: CaseTime | None = Field(
        None,
        description="the time of receipt: RFC 3339, or +10m after the start; default: the time of the test's clock",
    )

    @model_validator(mode="after")
    def _one_payload(self) -> CaseEvent:
        if {"payload", "file"} <= self.model_fields_set:
            raise ValueError("`payload` and `file` can't be used together; keep one of them")
        if not {"payload", "file"} & self.model_fields_set:
            raise ValueError(
                "`payload` or `file` is required: write the published message, or the path of a file that holds it"
            )
        return self


class Expected(CaseModel):
    """The expectations of a test about its event. Results without an expectation are ignored, except failures."""

    sinks: list[str] | None = Field(
        None, description="all sinks that deliver, and no others; a sink with two deliveries is listed twice"
    )
    not_sinks: list[str] | None = Field(None, description="sinks that do not deliver")
    routes: list[str] | None = Field(None, description="all routes that take the event, and no others")
    to: dict[str, Texts] | None = Field(None, description="for each sink: all addresses, and no others")
    text: dict[str, Texts] | None = Field(None, description="for each sink: the whole text of a delivery")
    contains: dict[str, Texts] | None = Field(None, description="for each sink: parts of the text of one delivery")
    thread: dict[str, Texts] | None = Field(
        None, description="for each sink: the rendered option `thread` of a delivery"
    )
    update: dict[str, Texts] | None = Field(
        None, description="for each sink: the rendered option `update` of a delivery"
    )
    suppressed: dict[str, str] | None = Field(
        None, description="for each sink: the reason why a delivery is suppressed"
    )
    dead: dict[str, str] | None = Field(
        None, description="for each sink: the reason why a delivery becomes a dead letter before any attempt"
    )
    rejected: bool | str | None = Field(None, description="true if the event is rejected for any reason, or the reason")
    unmatched: bool | None = Field(None, description="true if no route takes the event")

    @model_validator(mode="after")
    def _something(self) -> Expected:
        if all(value is None for _, value in self):
            raise ValueError(
                f"`expect` is empty, so the test would always pass; write at least one of {', '.join(type(self).model_fields)}"
            )
        return self


class StepConfig(CaseModel):
    """A step of a test with several events."""

    at: CaseTime | None = Field(None, description="the time of the test's clock: RFC 3339, or +10m after the start")
    event: CaseEvent = Field(description="write the event: {channel, payload}")
    expect: Expected = Field(description="write the expected result")


class CaseConfig(CaseModel):
    """An entry of `tests`: `event` and `expect`, or `steps`."""

    name: Text = Field(description="give the test a unique name")
    event: CaseEvent | None = Field(None, description="the event: {channel, payload}")
    expect: Expected | None = Field(None, description="the expected result")
    lookups: dict[str, dict[str, dict[str, Any] | None]] = Field(
        default_factory=dict,
        description="for each lookup: the records that it finds, by their rendered keys; no other records exist",
    )
    steps: Annotated[list[StepConfig], Field(min_length=1)] | None = Field(
        None, description="several events in sequence, instead of `event` and `expect`"
    )

    @model_validator(mode="after")
    def _one_form(self) -> CaseConfig:
        if self.steps is not None and (self.event is not None or self.expect is not None):
            raise ValueError(
                "`steps` can't be used together with `event` or `expect`; remove `steps`, or move `event` and `expect` into a step"
            )
        if self.steps is None and (self.event is None or self.expect is None):
            missing = "event" if self.event is None else "expect"
            raise ValueError(f"a test needs `event` and `expect`, or `steps`; `{missing}` is missing")
        return self


class CaseStep(msgspec.Struct, frozen=True):
    """An event of a test and its expectations. Times are seconds since the epoch. `now` is the time of the clock."""

    channel: bytes
    raw: bytes
    source: str
    headers: Mapping[str, str]
    received_at: float
    now: float
    expect: Expected


class Case(msgspec.Struct, frozen=True):
    """A checked test: its name, its place, its steps, and the records of lookups by name and key."""

    name: str
    file: str
    line: int
    steps: tuple[CaseStep, ...]
    lookups: Mapping[str, Mapping[str, Mapping[str, Any] | None]]
