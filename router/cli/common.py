"""Code shared by the commands: options, loading the configuration, and output on stdout and stderr; floor 7."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.config.scalars import NAME
from router.errors import ConfigError, Problem, UnavailableError
from router.escaping import escape, escape_json
from router.ops.terminal import colours, journal, terminal

if TYPE_CHECKING:
    from threading import Thread

    from rich.console import Console

    from router.ops.loading import Loaded
    from router.ops.logs import Logs

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "good": "green"}
_PRIORITIES = {"error": "<3>", "warning": "<4>"}
_PLACES = (Path("config.yaml"), Path("/etc/event-router/config.yaml"))


_named_config = partial(
    click.option,
    "-c",
    "--config",
    "config",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    envvar="EVENT_ROUTER_CONFIG",
    show_envvar=True,
)

config_option = _named_config(
    help="The configuration file; default: ./config.yaml, else /etc/event-router/config.yaml."
)
"""`-c FILE`, for every command that reads a configuration."""

_config_of_running_option = _named_config(
    help="The configuration file; default: that of the running router, else ./config.yaml, else /etc/event-router/config.yaml."
)

env_file_option = click.option(
    "--env-file",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    envvar="EVENT_ROUTER_ENV_FILE",
    show_envvar=True,
    help="A file with lines NAME=value, for the ${NAME} in the configuration.",
)
"""`--env-file FILE`: a file with more variables for `${…}`. Variables of the environment take precedence."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""`--json`: output for programs."""


log_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    envvar="EVENT_ROUTER_LOG_LEVEL",
    show_envvar=True,
    help="The lowest level of the log lines to write.",
)
"""`--log-level LEVEL`, for the commands that run plugins."""


def _name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(NAME, value):
        raise click.BadParameter(
            f"{value!r} is not a valid name: a name has 1 to 64 of the characters A-Z a-z 0-9 _ . -"
        )
    return value


instance_option = click.option(
    "--instance",
    metavar="NAME",
    default="default",
    callback=_name,
    envvar="EVENT_ROUTER_INSTANCE",
    show_envvar=True,
    help="The name of the router, if one host runs several.",
)
"""`--instance NAME`: the name of the router, if one host runs several."""


def of_running(function: Callable[..., int | Coroutine[Any, Any, int]]) -> Callable[..., int]:
    """Add `-c`, `--env-file` and `--instance` to a command, and pass the loaded configuration as `loaded`.

    Use this decorator for commands that connect to the Redis of a router. Of the secrets in the configuration, only
    those of `redis` are needed. The command may be a coroutine function, which is run to its end.
    """

    @wraps(function)
    def wrapped(*, config: Path | None, env_file: Path | None, instance: str, **given: Any) -> int:
        import asyncio

        from router.cli.running_router import configuration

        code = function(loaded=configuration(config, env_file, instance), **given)
        return code if isinstance(code, int) else asyncio.run(code)

    return _config_of_running_option(env_file_option(instance_option(wrapped)))


def payload_of(argument: str) -> bytes:
    """Return the payload that a command-line argument gives.

    It is the argument itself. For `-`, it is the content of stdin without the newline at its end.
    """
    if argument != "-":
        return os.fsencode(argument)
    return sys.stdin.buffer.read().removesuffix(b"\n").removesuffix(b"\r")


def find_config(given: Path | None) -> Path:
    """Return the path of the configuration: `given`, else the first of the usual places that exists.

    Raises `ConfigError`, which lists every place that was searched.
    """
    if given is not None:
        return given
    for place in _PLACES:
        if place.exists():
            return place
    looked = ["$EVENT_ROUTER_CONFIG (not set)", *(str(place.absolute()) for place in _PLACES)]
    raise ConfigError(
        [Problem(f"no configuration was found. Searched places: {', '.join(looked)}. Name the file with `-c FILE`")]
    )


def load_config(
    config: Path | None,
    env_file: Path | None,
    *,
    environ: Mapping[str, str] = os.environ,
    pipes: bool = True,
    **options: Any,
) -> Loaded:
    """Find and load the configuration; `options` are those of `router.ops.loading.load`.

    Commands read the file once, so the file may be a pipe. The daemon passes `pipes=False`, because a reload reads the
    file again.
    """
    from router.ops.loading import load

    return load(find_config(config), environ=environ, env_file=env_file, pipes=pipes, **options)


def redis_url(loaded: Loaded) -> str:
    """Return the URL of the router's own Redis. Raises `UnavailableError` if the embedded server is not running."""
    from router.broker.embedded_server.embedded_process import find
    from router.ops.state import state_directory

    url = loaded.config.redis.url
    if url != "embedded":
        return url
    running = find(state_directory(os.environ))
    if running is None:
        raise UnavailableError(
            f"the embedded server is not running: start `event-router run` first, or {loaded.redis_origin.cure()}"
        )
    return running.url


def redis_queues(loaded: Loaded) -> frozenset[str]:
    """Return the sinks with a queue in Redis, even if `deliver: print` makes the router ignore the queue."""
    config, types = loaded.config, loaded.types
    kinds = {
        name: (sink.host.queue and sink.host.queue.type) or types[name].queue for name, sink in config.sinks.items()
    }
    return frozenset(name for name, kind in kinds.items() if kind == "redis")


def leave_threads_behind(code: int, active: Logs, before: Collection[Thread]) -> None:
    """End the process at once if threads of plugins still run. At a normal exit, Python would wait for these threads.

    `before` are the threads that ran before the plugins were loaded. Daemon threads are ignored.
    """
    import threading

    left = [thread.name for thread in threading.enumerate() if thread not in before and not thread.daemon]
    if left:
        import structlog

        message = "threads of plugins still run; the process ends without waiting for them"
        structlog.stdlib.get_logger(__name__).warning(message, threads=left)
        active.flush()
        os._exit(code)


def print_message(text: str, colour: str | None = None) -> None:
    """Print a message on stderr.

    `colour` is the kind of message: `error`, `warning`, `note` or `good`. The kind decides the colour of the first
    word.
    """
    text = escape(text, newlines=True)
    head, space, rest = text.partition(" ") if colour else ("", "", text)
    _print_on_stderr(f"{click.style(head, fg=_COLOURS[colour], bold=True)}{space}{rest}" if colour else text, colour)


def print_text(text: str) -> None:
    """Print one or more lines of data on stdout."""
    click.echo(escape(text, newlines=True))


def _print_on_stderr(text: str, severity: str | None) -> None:
    """Print a text on stderr. If stderr is the journal, put the priority before each line."""
    if journal(os.environ, 2):
        priority = _PRIORITIES.get(severity or "", "<6>")
        text = "\n".join(f"{priority}{line}" for line in text.splitlines())
    click.echo(text, err=True, color=colours(os.environ, 2))


def print_json(document: Any, *, indent: int = 0) -> None:
    """Print data as JSON: one line, or indented for people."""
    import msgspec

    encoded = escape_json(msgspec.json.encode(document))
    click.echo(msgspec.json.format(encoded, indent=indent) if indent else encoded)


def console(*, width: int, err: bool = False, markup: bool = True) -> Console:
    """Return a console for tables, bars and colours; `width` applies if there is no terminal.

    Without colours, bold text is off too.
    """
    from rich.console import Console

    stream, descriptor = (sys.stderr, 2) if err else (sys.stdout, 1)
    return Console(
        stderr=err,
        width=None if stream.isatty() else width,
        highlight=False,
        markup=markup,
        color_system="auto" if colours(os.environ, descriptor) else None,
    )


_verbose: ContextVar[bool] = ContextVar("verbose", default=False)


def _be_verbose(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # click's signature
    _verbose.set(value)


verbose_option = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_be_verbose,
    help="In messages, list all allowed names, however many there are.",
)
"""`--verbose`: messages list all allowed names."""


def print_problems(problems: Iterable[Problem], *, err: bool = True) -> None:
    """Print each problem on one line, with the faulty line of the file below. Without `err`, print on stdout."""
    for problem in problems:
        if err:
            _print_on_stderr(_styled(problem, 2), problem.severity)
        else:
            click.echo(_styled(problem, 1), color=colours(os.environ, 1))


def _styled(problem: Problem, descriptor: int) -> str:
    line = wrapped(escape(problem.headline(verbose=_verbose.get())), descriptor)
    place = problem.place if line.startswith(problem.place) else ""
    if place:
        line = click.style(place, fg=_COLOURS.get(problem.severity), bold=True) + line.removeprefix(place)
    # There are many notes, and they are harmless, so their excerpts are only in the JSON.
    frame = "" if problem.severity == "note" else escape(problem.frame(), newlines=True)
    return f"{line}\n{frame}" if frame else line


def wrapped(text: str, descriptor: int = 1, *, indent: int = 4) -> str:
    """Return a line wrapped between words for a terminal, with `indent` spaces before each further line.

    Without a terminal, the line is returned unchanged.
    """
    if not terminal(descriptor):
        return text
    import shutil
    import textwrap

    return textwrap.fill(
        text,
        shutil.get_terminal_size().columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
