"""`event-router init`; floor 7."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.brief_redis import ask_briefly
from router.cli.common import print_message, print_text, wrapped
from router.errors import Exit
from router.ops.terminal import terminal

if TYPE_CHECKING:
    from router.cli.first_steps.starter.composing import Answers
    from router.cli.first_steps.starter.trial import Starter

_ELSEWHERE = "name another folder with `event-router init FOLDER`"
"""The advice if one of the files exists already."""


def _settings(_context: click.Context, _parameter: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    """Return the options of the sink by key."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} has no `=`: write KEY=VALUE, such as path=audit.jsonl")
        found[key] = value
    return found


@click.command()
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--redis", metavar="URL", help="The address of Redis: a URL, `embedded`, or a variable such as ${REDIS_URL}."
)
@click.option("--source", type=click.Choice(["pubsub", "stream", "list"]), help="How events are sent; default: pubsub.")
@click.option(
    "--channel",
    "channels",
    metavar="CHANNEL",
    multiple=True,
    help="A channel, stream or list; repeat the option for more. Default: notification.",
)
@click.option(
    "--sink",
    metavar="SINK",
    help="The type of the sink: log (default), email, chat, or a type that a plugin registers.",
)
@click.option(
    "--set",
    "values",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_settings,
    help="An option of the sink, such as path=audit.jsonl; repeat the option for more.",
)
@click.option("--yes", is_flag=True, help="Ask nothing; use defaults for missing options.")
def init(
    folder: Path,
    *,
    redis: str | None,
    source: str | None,
    channels: tuple[str, ...],
    sink: str | None,
    values: dict[str, str],
    yes: bool,
) -> int:
    """Write a first configuration into FOLDER, with a schema and tests, and print the next commands.

    On a terminal the command asks for the address of Redis, the channels, and the sink. The configuration is tested
    before it is written. Secrets are not written: the configuration names variables, and the command prints which
    variables to set. The exit code is 2 if an answer is wrong or one of the files exists already.
    """
    from router.cli import new_files
    from router.cli.first_steps.starter import asking
    from router.cli.first_steps.starter.composing import CONFIG, SCHEMA
    from router.cli.first_steps.starter.trial import Workbench

    if values and sink is None:
        raise click.UsageError("--set gives an option of a sink: name the type of this sink with --sink")
    new_files.refuse_existing(folder, (CONFIG, SCHEMA), _ELSEWHERE)
    bench = Workbench(folder)
    given = asking.Given(redis, source, channels, sink, values)
    try:
        answers = asking.unattended(bench, given) if yes or not terminal(0) else asking.asked(bench, given)
        starter = bench.starter(answers)
        new_files.write_new(folder, starter.files, _ELSEWHERE)
    except (click.Abort, KeyboardInterrupt):
        print_message("\nnothing was written")
        raise
    for remark in starter.remarks:
        print_message(wrapped(f"warning: {remark}", 2), "warning")
    _show_redis(starter.redis_url)
    _show_next(folder, answers, starter)
    return Exit.OK


def _show_redis(url: str) -> None:
    """Warn if the Redis server can't be reached.

    Also warn if the router will start an embedded server, although another Redis server runs on the usual port.
    """
    from router.broker.embedded_server.embedded_process import PORT, find, redis_answers
    from router.config.redis_url import shown
    from router.ops.loading.reading.placeholders import WORD
    from router.ops.state import state_path

    note = ""
    if url == "embedded":
        running = find(state_path(os.environ))
        if (running is None or running.port != PORT) and redis_answers():
            cure = f"write `url: redis://127.0.0.1:{PORT}` into the configuration"
            note = (
                f"a Redis server runs on port {PORT} of this machine, but the router will not read from this server; "
                f"to use it, {cure}"
            )
    elif WORD not in url:
        error = ask_briefly(url, lambda client: client.ping())
        if error is not None:
            from router.broker.server.client import explain

            note = f"{explain(error, shown(url))}; the configuration was written anyway"
    if note:
        print_message(wrapped(f"note: {note}", 2), "note")


def _show_next(folder: Path, answers: Answers, starter: Starter) -> None:
    """Print the names of the written files, and the next commands."""
    from router.cli.first_steps.samples import ours
    from router.cli.first_steps.starter.composing import CONFIG, when_to_send

    config = folder / CONFIG
    print_text("\n".join(f"wrote {folder / path}" for path in reversed(list(starter.files))))
    print_text("Next: run its tests, explain an event, run the daemon.")
    print_text(f"  {ours('test', config)}")
    option = "--channel=" if starter.channel.startswith("-") else "--channel "
    print_text(f"  {ours('explain', config)} {option}{shlex.quote(starter.channel)} {shlex.quote(starter.payload)}")
    print_text(f"  {ours('run', config)}")
    if answers.needed:
        why = (
            ""
            if answers.redis_url is None
            else "; set REDIS_URL to the URL that you gave. The URL has a password, so it is not in the configuration"
        )
        print_text(wrapped(f"`run` needs {' and '.join(answers.needed)}{why}.", indent=0))
    if answers.prints:
        print_text(
            wrapped(
                f"`run` shows who would get what, and sends nothing. Delete `deliver: print` {when_to_send(answers)}.",
                indent=0,
            )
        )
