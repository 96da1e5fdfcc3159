"""`event-router explain`; floor 7."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.common import (
    config_option,
    env_file_option,
    instance_option,
    json_option,
    load_config,
    payload_of,
    print_json,
    print_message,
)
from router.errors import Exit

if TYPE_CHECKING:
    from router.cli.first_steps.live_records import Simulated
    from router.cli.first_steps.test_entry import Records
    from router.ops.loading import Loaded
    from router.ops.simulation import Simulation

as_test_option = click.option("--as-test", is_flag=True, help="Print the event and its result as an entry of `tests:`.")
"""`--as-test`: print the result as a test of the configuration."""


class _Explained(click.Command):
    """A command that needs either a channel and a payload, or a dead letter."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises `click.MissingParameter` if neither a payload nor a dead letter is given."""
        rest = super().parse_args(ctx, args)
        given = ctx.params
        named = given["letter_id"] is not None or None not in (given["payload"], given["channel"])
        if not named and not ctx.resilient_parsing:
            needed = "Give --channel CHANNEL and PAYLOAD (`-` reads stdin), or --dlq ID."
            raise click.MissingParameter(needed, ctx, param_type="argument", param_hint="'PAYLOAD'")
        return rest


@click.command(cls=_Explained)
@click.argument("payload", required=False)
@click.option("--channel", metavar="CHANNEL", help="The channel, stream or list on which the payload arrives.")
@click.option(
    "--source", metavar="SOURCE", help="The source of the payload; default: the first source that reads the channel."
)
@click.option("--dlq", "letter_id", metavar="ID", help="Explain this dead letter instead of a payload.")
@click.option(
    "--live",
    is_flag=True,
    help="Fetch the records of lookups. Without this option, the output has names of fields in place of values.",
)
@click.option("--fails", is_flag=True, help="Show only failed steps, and the outcome if nothing is delivered.")
@as_test_option
@json_option
@config_option
@env_file_option
@instance_option
def explain(
    payload: str | None,
    channel: str | None,
    source: str | None,
    letter_id: str | None,
    *,
    live: bool,
    fails: bool,
    as_test: bool,
    as_json: bool,
    config: Path | None,
    env_file: Path | None,
    instance: str,
) -> int:
    """Explain step by step what happens to a payload: its schema, the routes, who would get which message.

    If PAYLOAD is `-`, the payload is read from stdin, without the newline at its end. Nothing is sent. Only `--live`
    needs secrets: those of the lookups. `--dlq` reads a dead letter from Redis and explains what its replay would do
    with the current configuration. The exit code is 0 if something would be delivered, else 1.
    """
    from router.cli.first_steps import explanation

    if as_test and (fails or as_json):
        raise click.UsageError("--as-test prints YAML: it can't be combined with --fails or --json")
    if letter_id is not None:
        if payload is not None or channel is not None or source is not None:
            raise click.UsageError(
                "--dlq gives the payload, the channel and the source: leave out PAYLOAD, --channel and --source"
            )
        loaded, simulated = _letter(letter_id, config, env_file, instance, from_start=as_test)
    else:
        assert payload is not None
        assert channel is not None
        loaded = load_config(config, env_file, placeholders=True)
        simulated = _payload(loaded, channel, source, payload_of(payload))
    found, records = _simulated(loaded, simulated, instance if live else None)
    if as_test:
        print_test(found, records)
    elif as_json:
        print_json(explanation.document(found, only_fails=fails))
    elif not explanation.show(found, loaded.config, only_fails=fails):
        print_message("no step failed")
    return Exit.OK if found.delivers else Exit.FINDINGS


def print_test(found: Simulation, records: Records) -> None:
    """Print a simulation as an entry of `tests:`.

    Without the records of lookups, some expectations may be wrong. Then print a warning too.
    """
    from router.cli.first_steps import test_entry

    click.echo(test_entry.entry(found, records), nl=False)
    if warning := test_entry.uncertain(found):
        print_message(warning, "warning")


def _simulated(loaded: Loaded, simulated: Simulated, instance: str | None) -> tuple[Simulation, Records]:
    """Return the simulation and the records of lookups. Without an `instance`, no records are fetched."""
    from router.ops.simulation import Simulator

    if instance is None:
        return simulated(Simulator(loaded)), {}
    from router.cli.first_steps import live_records

    return asyncio.run(live_records.simulated(loaded, simulated, instance))


def _payload(loaded: Loaded, channel: str, source: str | None, raw: bytes) -> Simulated:
    from router.ops.loading.reading.problems import unknown
    from router.ops.simulation import Message

    if source is not None and source not in loaded.config.sources:
        raise click.BadParameter(unknown("source", source, loaded.config.sources), param_hint="--source")
    message = Message(os.fsencode(channel), raw, time.time(), source)
    return lambda simulator: simulator.simulate(message)


def _letter(
    letter_id: str, config: Path | None, env_file: Path | None, instance: str, *, from_start: bool
) -> tuple[Loaded, Simulated]:
    """Read a dead letter. Return the configuration, and a function that simulates a replay of the letter now.

    With `from_start`, the function simulates the letter's event from the start, at the time when the event was
    received.
    """
    from router.cli.operate.dead_letter_views import hiding
    from router.cli.operate.dlq import found, readable
    from router.cli.running_router import configuration
    from router.core.accounts.dead_letter_filter import brief, received_at

    loaded = configuration(config, env_file, instance)
    kept = asyncio.run(found(letter_id, loaded))
    letter = readable(kept)
    if from_start:
        came = received_at(letter).timestamp()
        return loaded, lambda simulator: simulator.from_start(letter, came)
    shown = hiding(loaded.secrets)(kept).letter
    print_message(
        f"note: this dead letter has the reason {shown.reason}: {brief(shown)}. A replay now would do this:", "note"
    )
    now = time.time()
    return loaded, lambda simulator: simulator.replay(letter, now)
