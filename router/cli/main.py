"""The command `event-router`: its groups of commands, and the mapping of errors to exit codes; floor 7.

Each command has its own module. The module is imported only when the command is called, so that `check` starts quickly.
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

COLLECTING = (1_000_000, 20, 20)
"""The thresholds of garbage collection. Frequent collections would be useless: of the 100,000 objects that a start
creates, only a few hundred are garbage."""


class Entry(NamedTuple):
    """A command of the table: the place of its function, and its line in `--help`."""

    place: str
    help: str


COMMANDS: Mapping[str, Mapping[str, Entry]] = {
    "Try": {
        "init": Entry("first_steps.init:init", "Write a first configuration, with a schema and tests."),
        "demo": Entry("first_steps.demo:demo", "Show the router at work with sample events, for a few seconds."),
        "run": Entry("first_steps.run:run", "Run the daemon: read, validate, route, deliver."),
        "publish": Entry("first_steps.publish:publish", "Publish one event, after validating it with its schema."),
        "explain": Entry("first_steps.explain:explain", "Explain step by step what happens to a payload, and why."),
    },
    "Operate": {
        "check": Entry("operate.check:check", "Check a configuration for faults, without sending anything."),
        "reload": Entry("operate.reload:reload", "Load the configuration again in the running router."),
        "status": Entry("operate.status:status", "Show the running router: sources, sinks, queues and counters."),
        "dlq": Entry("operate.dlq:dlq", "Show, replay or remove dead letters."),
        "queue": Entry(
            "operate.queue:queue", "Show or move the deliveries in Redis queues, or turn them into dead letters."
        ),
    },
    "Write": {
        "test": Entry("write.test:test", "Run the tests of the configuration: events and their expected results."),
        "graph": Entry("write.graph:graph", "Draw the configuration: sources, schemas, routes, sinks."),
        "plugins": Entry("write.plugins:plugins", "List the loaded plugins, or the options of a sink or lookup."),
        "send-test": Entry("write.send_test:send_test", "Send a test message to one sink, and show the answer."),
        "new-plugin": Entry("write.new_plugin:new_plugin", "Write a working plugin with its test."),
    },
    "Install": {
        "config": Entry("install.config:config", "Print the effective configuration, or its JSON Schema."),
        "completion": Entry("install.completion:completion", "Print the completion script of a shell."),
    },
}


def _imported(name: str) -> ModuleType:
    """Import a command's module.

    During this import, rich can't be imported, unless it was imported before. structlog would import rich for
    tracebacks that the router does not print, which would take a tenth of the time of a start. Commands that show
    tables import rich when they are called.
    """
    if name in sys.modules:
        return sys.modules[name]
    withheld: dict[str, Any] = sys.modules
    absent = withheld.setdefault("rich", None) is None
    try:
        return importlib.import_module(name)
    finally:
        if absent:
            del sys.modules["rich"]


class Commands(click.Group):
    """The top-level command, which lists its commands in groups."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names of all commands, in the order of the groups."""
        return [name for group in COMMANDS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command; None if no command has that name."""
        for group in COMMANDS.values():
            if cmd_name in group:
                module, _, attribute = group[cmd_name].place.partition(":")
                command: click.Command = getattr(_imported(f"router.cli.{module}"), attribute)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name.

        Raises a usage error with the nearest name if the command is unknown.
        """
        if args[0].startswith("-") or self.get_command(ctx, args[0]):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        close = get_close_matches(args[0], self.list_commands(ctx), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else f" The commands are {', '.join(self.list_commands(ctx))}."
        raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the groups of commands, without importing a command."""
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
    """Read events from Redis, validate them, and deliver them to people and programs."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    gc.set_threshold(*COLLECTING)
    _open_standard_streams()
    code = _guarded(arguments)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _discard_stdout()
    gc.freeze()  # the interpreter's last collections would examine every object, although the process ends anyway
    sys.exit(code)


def _guarded(arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit code. Print an error that a command raises on purpose."""
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
        _discard_stdout()  # click and rich exit with 1 on a broken pipe: the reader of stdout has ended
        return Exit.OK
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _discard_stdout()
        return _report(RouterError(f"can't write the output: {error.strerror}"))
    except RouterError as error:
        return _report(error)
    return returned if isinstance(returned, int) else Exit.OK


def _report(error: RouterError) -> int:
    from router.cli.common import print_message, print_problems

    if isinstance(error, ConfigError):
        print_problems(error.problems)
        return Exit.CONFIG
    print_message(f"event-router: {error}", "error")
    return Exit.UNAVAILABLE if isinstance(error, UnavailableError) else Exit.FINDINGS


def _open_standard_streams() -> None:
    """Open closed standard descriptors on /dev/null.

    Otherwise the next socket would get the number of such a descriptor, and receive our output.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # the system gives the lowest free number, which is `descriptor`
    streams: Any = sys
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(streams, name, os.fdopen(descriptor, "w", closefd=False))


def _discard_stdout() -> None:
    """Redirect stdout to /dev/null, so that the interpreter's last flush of buffered output can't fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
