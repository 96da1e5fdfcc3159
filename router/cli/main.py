"""The command `event-router`: its groups, and how every ending becomes an exit code; floor 7.

Commands live in modules of their own and are imported when they are called, so that `check` answers at once.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import click

from router.errors import ConfigError, Exit, RouterError, UnavailableError
from router.version import __version__


class Entry(NamedTuple):
    """A command of the table: where it is, and what `--help` says of it."""

    place: str
    help: str


COMMANDS: Mapping[str, Mapping[str, Entry]] = {
    "Try": {
        "demo": Entry("first_steps.demo:demo", "A tour that ends by itself: what goes in, where it goes and why."),
        "run": Entry("first_steps.run:run", "The daemon: read, validate, route, deliver."),
        "publish": Entry("first_steps.publish:publish", "Publish one event, checked against its schema first."),
        "explain": Entry(
            "first_steps.explain:explain",
            "What becomes of a payload, step by step: schema, routes, who gets which message.",
        ),
    },
    "Operate": {
        "check": Entry("operate.check:check", "Everything that can be known of a configuration without sending."),
        "reload": Entry("operate.reload:reload", "Load the configuration again, and say what changed."),
        "status": Entry("operate.status:status", "How the running router does: sources, sinks, queues and the books."),
        "dlq": Entry("operate.dlq:dlq", "The dead letters: look at them, send them again, remove them."),
        "queue": Entry(
            "operate.queue:queue", "What waits in Redis, for sinks that are gone too: list it, move it, give it up."
        ),
    },
    "Write": {
        "graph": Entry("write.graph:graph", "A picture of the configuration: sources, schemas, routes, sinks."),
        "plugins": Entry("write.plugins:plugins", "What is loaded, from where, and what failed."),
    },
    "Install": {
        "config": Entry("install.config:config", "The effective configuration, or its JSON Schema for editors."),
        "completion": Entry("install.completion:completion", "The completion script of a shell."),
    },
}


def _imported(name: str) -> ModuleType:
    """A module, imported while the garbage collector rests: what it would walk again and again is there to stay."""
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


class Commands(click.Group):
    """The top of the command line, in its four groups."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Every command, in the order of the groups."""
        return [name for group in COMMANDS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # as above
        """The command, imported now; None when there is none of that name."""
        for group in COMMANDS.values():
            if cmd_name in group:
                module, _, attribute = group[cmd_name].place.partition(":")
                command: click.Command = getattr(_imported(f"router.cli.{module}"), attribute)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name; an unknown one is answered with what comes close."""
        if args[0].startswith("-") or self.get_command(ctx, args[0]):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        close = get_close_matches(args[0], self.list_commands(ctx), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else f" The commands are {', '.join(self.list_commands(ctx))}."
        raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # as above
        """The four groups, without importing a command."""
        for title, group in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in group.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 findings, 2 usage, 69 Redis unreachable, 78 configuration, 130 Ctrl-C.",
)
@click.version_option(__version__, "--version", "-V", prog_name="event-router", message="%(prog)s %(version)s")
def cli() -> None:
    """Read events from Redis, validate them, and tell who needs to know."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    _open_standard_streams()
    code = _guarded(arguments)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _discard_stdout()
    sys.exit(code)


def _guarded(arguments: Sequence[str] | None) -> int:
    """Run a command and give its exit code, whatever it raises on purpose."""
    try:
        returned = cli.main(
            args=None if arguments is None else list(arguments), prog_name="event-router", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except SystemExit as ended:
        if ended.code != 1:
            raise
        _discard_stdout()  # click's and rich's way to say that the reader of our output has seen enough
        return Exit.OK
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _discard_stdout()
        return _told(RouterError(f"can't write what there is to say: {error.strerror}"))
    except RouterError as error:
        return _told(error)
    return returned if isinstance(returned, int) else Exit.OK


def _told(error: RouterError) -> int:
    from router.cli.common import say_problems, tell

    if isinstance(error, ConfigError):
        say_problems(error.problems)
        return Exit.CONFIG
    tell(f"event-router: {error}", "error")
    return Exit.UNAVAILABLE if isinstance(error, UnavailableError) else Exit.FINDINGS


def _open_standard_streams() -> None:
    """Open closed standard descriptors on /dev/null, lest the next socket takes their number and gets our talk."""
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number, which is this one
    streams: Any = sys
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(streams, name, os.fdopen(descriptor, "w", closefd=False))


def _discard_stdout() -> None:
    """Let what is still buffered go nowhere, so that the interpreter's last flush can't fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
