"""`event-router run`; floor 7."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
import structlog
from msgspec.structs import replace

from router.cli.common import (
    config_option,
    env_file_option,
    find_config,
    instance_option,
    leave_threads_behind,
    log_level_option,
    print_message,
    verbose_option,
)
from router.errors import ConfigError, Exit, Problem
from router.escaping import escape
from router.version import __version__
from router.wording import counted

if TYPE_CHECKING:
    from router.broker.embedded_server.embedded import Embedded
    from router.ops.loading import Loaded
    from router.ops.logs import Logs

EMBEDDED = "embedded"


@click.command()
@config_option
@env_file_option
@instance_option
@verbose_option
@click.option(
    "--deliver",
    type=click.Choice(["print"]),
    envvar="EVENT_ROUTER_DELIVER",
    show_envvar=True,
    help="Show who would get what; send nothing and write nothing to Redis.",
)
@click.option("--watch", "watches", is_flag=True, help="Reload when a file of the configuration changes.")
@log_level_option
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    envvar="EVENT_ROUTER_LOG_FORMAT",
    show_envvar=True,
    help="The format of the log. auto: lines for people on a terminal, JSON elsewhere.",
)
def run(
    config: Path | None,
    env_file: Path | None,
    instance: str,
    *,
    deliver: str | None,
    watches: bool,
    log_level: str,
    log_format: str,
) -> int:
    """Run the daemon: read, validate, route, deliver, until SIGTERM or Ctrl-C.

    After such a signal, the daemon finishes the attempts under way. SIGHUP or the command `reload` makes the daemon
    load its configuration again.

    If the configuration has no `redis.url`, the daemon uses the Redis of $REDIS_URL. If this variable is not set or is
    empty, the daemon starts an embedded server on this machine.
    """
    from router.ops import logs

    before = threading.enumerate()
    active = logs.configure(level=log_level, format=cast("logs.Format", log_format))
    path = find_config(config)
    try:
        code = _run(path, env_file, instance, deliver, active, watches=watches)
    finally:
        active.flush()
    leave_threads_behind(code, active, before)
    return code


def _run(path: Path, env_file: Path | None, instance: str, deliver: str | None, active: Logs, *, watches: bool) -> int:
    """Load the configuration, start or find Redis, and serve until a signal; return the exit code."""
    from router.admin.server import admin_side
    from router.cli.common import load_config
    from router.engine.life.app import serve
    from router.ops.loading.checking.sinks import url_secrets
    from router.ops.state import InstanceLock, state_directory
    from router.ops.watching import available

    if watches and not available():
        raise click.UsageError("--watch needs a library that is not installed: pip install 'event-router[watch]'")

    secrets: set[str] = set()

    def load() -> Loaded:
        loaded = load_config(path, env_file, deliver=deliver, pipes=False)
        # Old secrets stay hidden. Such a secret may still be used, or be in a response that arrives later.
        secrets.update(loaded.secrets)
        active.hide(secrets)
        _log_problems(loaded)
        return loaded

    loaded = load()
    embedded = loaded.config.redis.url == EMBEDDED
    if embedded:
        _refuse_forgotten_url(loaded)
    state = state_directory(os.environ)
    signal.signal(signal.SIGTERM, _ended)
    with InstanceLock(state, instance), _redis(loaded, state) as url, _printer(active) as printer:
        secrets.update(url_secrets(url))  # the embedded server's password, which is in no file
        active.hide(secrets)

        def ready() -> None:
            if embedded or sys.stderr.isatty():
                active.flush()
                _welcome(loaded, path, url, embedded=embedded)

        admin = admin_side(loaded.config.admin, state, instance)
        return serve(
            loaded,
            instance=instance,
            redis_url=url,
            printer=printer,
            ready=ready,
            load=load,
            admin=admin,
            watch_files=watches,
        )


def _ended(_number: int, _frame: object) -> None:
    """Handle a SIGTERM that arrives before the daemon serves: exit, so that the embedded server is stopped too."""
    raise SystemExit(Exit.OK)


def _log_problems(loaded: Loaded) -> None:
    """Log the problems of a configuration: warnings at the level warning, notes at the level debug.

    `check` prints the notes, so the log does not need them.
    """
    log = structlog.stdlib.get_logger(__name__)
    for problem in loaded.problems:
        write = log.warning if problem.severity == "warning" else log.debug
        about = {"place": problem.place, "key": problem.path}
        write(problem.message, **{name: value for name, value in about.items() if value})


def _refuse_forgotten_url(loaded: Loaded) -> None:
    """Refuse an embedded server under a service manager, unless the configuration names it explicitly."""
    from router.ops import systemd

    if not systemd.managed() or not loaded.redis_origin.forgotten:
        return
    variable = loaded.redis_origin.variable
    message = (
        f"no Redis is configured, because {variable} is not set or is empty. The router would start an "
        f"embedded server, to which nobody publishes. Set {variable}=redis://HOST:6379 (the shipped unit reads /etc/event-router/environment), or write "
        "`redis: {url: redis://HOST:6379}`; write `redis: {url: embedded}` if you want the embedded server"
    )
    raise ConfigError([Problem(message, file=str(loaded.path), path="redis.url")])


@contextmanager
def _redis(loaded: Loaded, state: Path) -> Iterator[str]:
    """Yield the URL of the router's own Redis: the configured server, or an embedded server for this run."""
    if loaded.config.redis.url != EMBEDDED:
        yield loaded.config.redis.url
        return
    from router.broker.embedded_server.embedded import Embedded
    from router.broker.embedded_server.embedded_process import PORT, redis_answers

    server = Embedded(state, appendfsync=loaded.config.redis.appendfsync)
    try:
        running = server.ensure()
    except ConfigError as error:
        cure = loaded.redis_origin.cure()
        raise ConfigError([replace(each, message=f"{each.message}; or {cure}") for each in error.problems]) from None
    try:
        if running.port != PORT and redis_answers():
            print_message(
                f"note: another Redis server runs on port {PORT}, but the router does not read from this server; "
                f"to use it: {_listen_to(loaded, f'redis://127.0.0.1:{PORT}')}",
                "note",
            )
        with _supervised(server):
            yield running.url
    finally:
        server.stop()


@contextmanager
def _supervised(server: Embedded) -> Iterator[None]:
    """Run a thread that restarts the embedded server when it dies."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.supervise())

    def watch() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=watch, name="embedded", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(5.0)


def _listen_to(loaded: Loaded, url: str) -> str:
    """Return what the user can do to read from another Redis: run this command with a variable, or write a line."""
    from router.cli.first_steps.samples import ourselves

    origin = loaded.redis_origin
    return (
        f"{origin.variable}={url} {shlex.join([*ourselves(), *sys.argv[1:]])}" if origin.variable else origin.cure(url)
    )


@contextmanager
def _printer(active: Logs) -> Iterator[Callable[[str], None]]:
    """Yield a function that prints a line on stdout.

    A separate thread prints, without secrets and control characters.
    """
    from router.ops.logs import Writer

    writer = Writer(
        1,
        lost_line=lambda count: (
            f"({counted(count, 'line is', 'lines are')} not shown, because stdout was not read in time)"
        ),
    )
    writer.start()
    try:
        yield lambda line: writer.put(escape(active.redactor.text(line)))
    finally:
        writer.stop(timeout=5.0)


def _welcome(loaded: Loaded, config: Path, url: str, *, embedded: bool) -> None:
    """Print the address of Redis, the channels of each source, and a command to publish a sample event."""
    from router.cli.first_steps.samples import publish_lines
    from router.config.redis_url import shown

    where = "embedded Valkey" if embedded else f"from {loaded.redis_origin}"
    print_message(f"event-router {__version__} listens at {shown(url)} ({where})", "good")
    for name, source in loaded.config.sources.items():
        place = f" at {shown(source.url)}" if source.url else ""
        print_message(f"  {name}: {', '.join(source.reads)}{place}")
    # Publishing to the embedded server needs no password.
    lines = publish_lines(loaded, shown(url) if embedded else url, config)
    if lines:
        print_message("Publish an event from another terminal, with one of these commands:")
        for line in lines:
            print_message(f"  {line}")
    if loaded.config.deliver == "print":
        print_message(
            "With `deliver: print`, the router shows here who would get what. "
            "It sends nothing, and prints dead letters instead of storing them."
        )
    elif loaded.config.deliver != "send":
        print_message(
            f"With `deliver.only`, the router sends only to {', '.join(loaded.config.deliver.only)}, and prints the other deliveries here."
        )
    print_message("Press Ctrl-C to end the router.")
