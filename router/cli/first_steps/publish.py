"""`event-router publish`; floor 7."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from router.cli.common import of_running, payload_of, print_message, print_text, redis_url
from router.errors import Exit
from router.wording import counted

if TYPE_CHECKING:
    from router.config.models import SourceConfig
    from router.ops.loading import Loaded


@click.command()
@click.argument("channel")
@click.argument("payload")
@click.option("--no-check", is_flag=True, help="Publish without checking the schema.")
@of_running
def publish(channel: str, payload: str, *, loaded: Loaded, no_check: bool) -> int:
    """Publish one event, after validating it with its schema.

    If PAYLOAD is `-`, the payload is read from stdin, without the newline at its end. The event goes to the Redis of
    the first source that reads CHANNEL, by PUBLISH (pub/sub), XADD (stream) or LPUSH (list). The output is the number
    of subscribers that received the event, the id of the entry, or the length of the list. If the payload does not fit
    the schema, nothing is published, and the exit code is 1.
    """
    from router.cli.first_steps.samples import publish_command

    raw = payload_of(payload)
    name, source = _source(loaded, channel)
    if source is None:
        print_message(f"warning: no source in {loaded.path} reads the channel {channel!r}", "warning")
    if not no_check and not _fits(loaded, name, source, channel, raw):
        return Exit.FINDINGS
    url = (source.url if source else None) or redis_url(loaded)
    address, answer = asyncio.run(_publish(url, publish_command(source, os.fsencode(channel), raw)))
    if isinstance(answer, bytes):
        print_text(f"added to the stream {channel} at {address}: entry {answer.decode()}")
        return Exit.OK
    if source is not None and source.type == "list":
        print_text(f"pushed to the list {channel} at {address}: {counted(answer, 'item waits', 'items wait')} there")
        return Exit.OK
    print_text(f"published on {channel} at {address}: {counted(answer, 'subscriber')} received it")
    if not answer:
        print_message(
            "warning: no subscriber received this event, so the event is lost. Is `event-router run` running?",
            "warning",
        )
    return Exit.OK


def _source(loaded: Loaded, channel: str) -> tuple[str, SourceConfig | None]:
    """Return the name of the first source that reads the channel, and the source itself.

    Without such a source, return an empty name and None. Raises `ConfigError` if the URL of the source is not known.
    """
    from router.core.wiring.readers import reader_of
    from router.ops.loading.reading.nodes import child_path

    name = reader_of(loaded.config.sources, os.fsencode(channel))
    if name is None:
        return "", None
    loaded.require(child_path("sources", name))
    return name, loaded.config.sources[name]


def _fits(loaded: Loaded, name: str, source: SourceConfig | None, channel: str, raw: bytes) -> bool:
    """Return True if the payload fits the schema of the channel; otherwise print the faults."""
    from router.config.models import PubSubConfig
    from router.core.decoding import SourceFormat
    from router.core.verdict import Rejected, judge
    from router.events import Event

    plan = loaded.routing().plan(name, os.fsencode(channel))
    read = source or PubSubConfig(type="pubsub", channels=[channel])
    now = datetime.now(UTC)
    event = Event("", name, channel, None, now, raw)
    verdict = judge(event, SourceFormat.of(name, read), plan, now.timestamp())
    rejected = isinstance(verdict, Rejected)
    for violation in verdict.violations:
        pointer = violation.pointer or "/"
        print_message(f"{pointer} {violation.keyword}: {violation.message}", "error" if rejected else "warning")
    if isinstance(verdict, Rejected) and plan.schema and verdict.violations:
        print_message(f"not published: the payload does not fit {plan.schema.file} (--no-check publishes it anyway)")
    elif isinstance(verdict, Rejected):
        print_message(f"{verdict.reason}: {verdict.detail}", "error")
    return not rejected


async def _publish(url: str, command: list[bytes]) -> tuple[str, int | bytes]:
    """Send the command; return the address of the server and the server's reply."""
    from redis.exceptions import RedisError

    from router.broker.server import client

    server = client.server(url, client_name="event-router-publish")
    connection = server.client()
    try:
        return server.shown, await connection.execute_command(*command)  # type: ignore[no-untyped-call]
    except (OSError, RedisError, TimeoutError) as error:
        raise client.explain(error, server.shown) from None
    finally:
        await connection.aclose()
