"""`event-router publish`; floor 7."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.common import config_option, env_file_option, load_config, tell
from router.errors import Exit, RejectedError, UnavailableError

if TYPE_CHECKING:
    from router.config import PubSubSource
    from router.ops.loading import Loaded


@click.command()
@click.argument("channel")
@click.argument("payload")
@click.option("--no-check", is_flag=True, help="Publish it whatever the schema says.")
@config_option
@env_file_option
def publish(channel: str, payload: str, config: Path | None, env_file: Path | None, *, no_check: bool) -> int:
    """Publish one event, checked against its schema first.

    PAYLOAD `-` is read from stdin, without the newline at its end. It goes to the Redis of the first source that reads
    CHANNEL. Exit code 1 when the payload does not fit: nothing is published then.
    """
    loaded = load_config(config, env_file)
    raw = _stdin() if payload == "-" else os.fsencode(payload)
    source = _source(loaded, channel)
    if source is None:
        tell(f"warning: no source of {loaded.path.name} reads {channel!r}", "warning")
    if not no_check and not _fits(loaded, source, channel, raw):
        return Exit.FINDINGS
    url = (source.url if source else None) or loaded.config.redis.url
    address, receivers = asyncio.run(_publish(url, channel, raw))
    click.echo(f"published on {channel} at {address}: {receivers} subscriber{'s' * (receivers != 1)} received it")
    if not receivers:
        tell("warning: nobody was subscribed, so this event is gone; is `event-router run` running?", "warning")
    return Exit.OK


def _stdin() -> bytes:
    raw = sys.stdin.buffer.read()
    return raw.removesuffix(b"\n").removesuffix(b"\r")


def _source(loaded: Loaded, channel: str) -> PubSubSource | None:
    """The first source that reads the channel."""
    from router.core.matching import any_of

    wanted = os.fsencode(channel)
    for source in loaded.config.sources.values():
        if any_of([*source.channels, *source.patterns])(wanted):
            return source
    return None


def _fits(loaded: Loaded, source: PubSubSource | None, channel: str, raw: bytes) -> bool:
    """Whether the router would take the payload; says why not."""
    from router.cli.samples import schema_for
    from router.config import PubSubSource
    from router.core.decoding import decode

    read = source or PubSubSource(type="pubsub", channels=[channel])
    try:
        decoded = decode(raw, read.format, read.max_bytes)
    except RejectedError as error:
        tell(f"{error.reason}: {error.detail}", "error")
        return False
    entry = schema_for(loaded, channel)
    violations = entry.schema.errors(decoded) if entry and entry.schema else []
    if not entry or not violations:
        return True
    enforced = entry.mode == "enforce"
    for violation in violations:
        pointer = violation.pointer or "/"
        tell(f"{pointer} {violation.keyword}: {violation.message}", "error" if enforced else "warning")
    if enforced:
        tell(f"not published: it does not fit {entry.file} (--no-check publishes it all the same)")
    return not enforced


async def _publish(url: str, channel: str, raw: bytes) -> tuple[str, int]:
    """Publish and return the address that was published to, and the number of subscribers that received it."""
    from redis.exceptions import RedisError

    from router.broker import client

    server = client.server(_embedded() if url == "embedded" else url, client_name="event-router-publish")
    connection = server.client()
    try:
        return server.shown, await connection.publish(os.fsencode(channel), raw)
    except (OSError, RedisError, TimeoutError) as error:
        raise client.explain(error, server.shown) from None
    finally:
        await connection.aclose()


def _embedded() -> str:
    """The address of the embedded server that `run` started. Raises `UnavailableError` when there is none."""
    from router.broker.embedded import find
    from router.ops.state import state_directory

    running = find(state_directory(os.environ))
    if running is None:
        raise UnavailableError("the embedded server is not running: start `event-router run` first, or set REDIS_URL")
    return running.url
