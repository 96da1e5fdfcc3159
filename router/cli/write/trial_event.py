"""The event of a test message, with a payload from a file, or a sample that fits the channel's schema; floor 7."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from router.cli.first_steps import samples
from router.config.models import PubSubConfig
from router.core.decoding import SourceFormat, read
from router.core.ids import Ids
from router.core.matching import example_of, is_glob
from router.core.verdict import opened
from router.core.wiring.readers import pattern_of, reader_of
from router.engine.trial_delivery import ORIGIN
from router.errors import RejectedError
from router.events import JSON, TEXT, Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from router.core.routing import Routing
    from router.core.validation import Schema
    from router.ops.loading import Loaded

MESSAGE = "This is a test message from event-router."
SAMPLE = {"user_id": 42, "message": MESSAGE, "test": True}
"""The payload of a test message if there is neither a file nor a schema."""


class Place(NamedTuple):
    """The channel of a test message, and the source that reads the channel, or None."""

    channel: str
    source: str | None


def place_of(loaded: Loaded, sink: str, channel: str | None) -> Place:
    """Return the channel of a test message: the given channel, else the first from which a route leads to the sink."""
    if channel is not None:
        return Place(channel, reader_of(loaded.config.sources, os.fsencode(channel)))
    routing = loaded.routing()
    places = list(_places(loaded))
    leading = (place for place in places if _leads(routing, place, sink))
    return next(leading, places[0] if places else Place(ORIGIN, None))


def event_of(loaded: Loaded, sink: str, place: Place, raw: bytes | None, now: float) -> Event:
    """Return the event of a test message. `raw` is the payload as it would be published; None means the sample.

    Raises `click.BadParameter` if the source of the channel could not decode the payload.
    """
    config = None if place.source is None else loaded.config.sources[place.source]
    channel = os.fsencode(place.channel)
    event = Event(
        f"{ORIGIN}-{Ids(os.urandom(5).hex()).next(now)}",
        ORIGIN,
        place.channel,
        None if config is None else pattern_of(config, channel),
        datetime.fromtimestamp(now, UTC),
        b"",
        route=ORIGIN,
        sink=sink,
    )
    if raw is None:
        is_text = config is not None and config.format == TEXT
        sample = MESSAGE if is_text else _sample(loaded, place)
        return msgspec.structs.replace(event, raw=sample.encode(), format=TEXT if is_text else JSON)
    source = SourceFormat.of(place.source or "", config or PubSubConfig(type="pubsub", channels=[place.channel]))
    try:
        message = read(raw, source)
    except RejectedError as error:
        raise click.BadParameter(error.detail, param_hint="--payload") from None
    return msgspec.structs.replace(opened(event, message), id=event.id)


def _places(loaded: Loaded) -> Iterator[Place]:
    """Yield a channel for each name and glob that a source reads."""
    for name, source in loaded.config.sources.items():
        for each in source.reads:
            channel = example_of(each) if source.type == "pubsub" and is_glob(each) else each
            if channel:
                yield Place(channel, name)


def _leads(routing: Routing, place: Place, sink: str) -> bool:
    """Return whether a route may take events of this channel to the sink."""
    plan = routing.plan(place.source or "", os.fsencode(place.channel))
    return any(target.sink == sink for step in plan.steps for target in step.targets)


def _sample(loaded: Loaded, place: Place) -> str:
    """Return a payload that the schema of the channel accepts, with as many fields of `SAMPLE` as possible."""
    rule = loaded.routing().plan(place.source or "", os.fsencode(place.channel)).schema
    schema = None if rule is None else rule.schema
    made = None if schema is None else samples.sample(loaded, place.channel)
    if schema is None or made is None:
        return json.dumps(SAMPLE)
    return json.dumps(_improved(json.loads(made), schema), ensure_ascii=False)


def _improved(made: Any, schema: Schema) -> Any:
    """Return a sample with each field of `SAMPLE` that the schema accepts.

    These fields tell the recipients that the message is a test.
    """
    for name, value in SAMPLE.items():
        if isinstance(made, dict) and (name not in made or name == "message"):
            changed = {**made, name: value}
            made = changed if schema.is_valid(changed) else made
    return made
