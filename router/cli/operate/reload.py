"""`event-router reload`; floor 7."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from router.admin.sockets import RELOAD
from router.cli.common import (
    config_option,
    env_file_option,
    instance_option,
    json_option,
    print_json,
    print_message,
    print_problems,
    print_text,
    verbose_option,
)
from router.cli.running_router import running
from router.errors import Exit, Problem
from router.wording import counted

PATIENCE = 120.0
"""Seconds allowed for a reload: reading, connecting, and waiting for an earlier reload."""

REFUSED = 422
"""The HTTP status of a response that lists the faults of the configuration."""


@click.command()
@config_option
@env_file_option
@instance_option
@json_option
@verbose_option
def reload(config: Path | None, env_file: Path | None, instance: str, *, as_json: bool) -> int:
    """Load the configuration again in the running router, and print the changes.

    The router loads the file that it was started with. The command uses `-c` only to find the router's admin address.
    If the new configuration can't work, the router goes on with the old configuration, and every fault is listed. The
    exit code is then 78, or 69 if a Redis server could not be reached.
    """
    answer = running(config, env_file, instance, prefers_socket=True).post(RELOAD, PATIENCE, refusal=REFUSED)
    if as_json:
        print_json(answer)
    else:
        print_problems(Problem(**problem) for problem in answer["problems"])
        if answer["ok"]:
            _show(answer)
        else:
            print_message("refused: the router goes on with the old configuration", "error")
    if answer["ok"]:
        return Exit.OK
    return Exit.UNAVAILABLE if answer["unavailable"] else Exit.CONFIG


def _show(answer: Mapping[str, Any]) -> None:
    lines = list(_lines(answer["changed"]))
    print_text("\n".join(["reloaded:", *lines]) if lines else "reloaded: nothing has changed")
    for sink, number in answer["waiting"].items():
        print_message(
            f"warning: {counted(number, 'delivery waits', 'deliveries wait')} for {sink}, which is no longer configured; run `event-router queue list`",
            "warning",
        )


def _lines(changed: Mapping[str, Any]) -> list[str]:
    """Return the changes, one line for each kind."""
    found = []
    for kind in ("sources", "sinks", "routes", "lookups"):
        each = changed[kind]
        parts = [f"{', '.join(each[what])} {what}" for what in ("added", "changed", "removed") if each[what]]
        if parts:
            untouched = f" ({each['kept']} untouched)" if each["kept"] else ""
            found.append(f"  {kind}: {'; '.join(parts)}{untouched}")
    others = [kind for kind in ("sections", "files") if changed[kind]]
    return [*found, *(f"  {kind}: {', '.join(changed[kind])}" for kind in others)]
