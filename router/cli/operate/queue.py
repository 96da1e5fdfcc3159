"""`event-router queue`: show, move and give up deliveries that wait in Redis, also of removed sinks; floor 7."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
import msgspec

from router.broker.queues.queue_admin import Bounds, Due, Progress, QueueAdmin, Standing, State, claim_idle_of
from router.broker.server import client
from router.cli.common import json_option, of_running, print_json, print_message, redis_queues, redis_url
from router.cli.operate.bulk import ago, agreed, dry_run_option, progress, yes_option
from router.cli.tables import Column, show_table
from router.config.models import QueueConfig
from router.engine.dead_letters.dead_letter_factory import of_waiting
from router.errors import Exit, Reason, RouterError
from router.events import DeadLetter, Event, timestamp
from router.ops.loading.reading.problems import did_you_mean
from router.wording import counted

if TYPE_CHECKING:
    from router.ops.loading import Loaded

PATIENCE = 30.0
"""Seconds allowed for a reply of Redis."""

_COLUMNS = (
    Column("sink"),
    Column("state"),
    Column("waiting"),
    Column("delayed", rank=2),
    Column("in flight", rank=3),
    Column("oldest", rank=1),
)
_OF_DELAYED = (Column("next due", rank=4), Column("last error", rank=5, least=12))


@click.group()
def queue() -> None:
    """Show or move the deliveries that wait in Redis, or turn them into dead letters.

    The commands also work for the queues of removed sinks.
    """


# list


@queue.command(name="list")
@json_option
@of_running
async def list_queues(*, loaded: Loaded, as_json: bool) -> int:
    """List every queue in Redis, with its deliveries (waiting, delayed, in flight) and the age of the oldest.

    If deliveries are delayed, the list shows the due time and the last error of the next delivery. The state of a queue
    is `gone` if the configuration has no sink with the name of the queue. The state is `memory` if the sink now has its
    queue in memory. No router delivers from a queue with one of these states. `--json` prints one object per line.
    """
    working = redis_queues(loaded)
    async with _queues(loaded) as queues:
        found = await queues.names()
        ours = [name for name in loaded.config.sinks if name in working]
        names = [*ours, *(name for name in found if name not in working)]
        standings = {name: await queues.look(name) for name in names}
    # An emptied queue still has a key in Redis. Such a queue is shown only if its sink is configured.
    standings = {name: found for name, found in standings.items() if found.held or name in working}
    states = {name: _state(name, loaded, working) for name in standings}
    if as_json:
        for name, standing in standings.items():
            print_json(_document(name, states[name], standing))
    elif standings:
        _show(standings, states)
    else:
        print_message("there are no queues in Redis")
    left = sum(standing.held for name, standing in standings.items() if name not in working)
    if left:
        waiting = counted(left, "delivery waits", "deliveries wait")
        print_message(
            f"{waiting} in queues that no sink of this configuration reads; use `queue move` or `queue dead-letter`",
            "warning",
        )
    return Exit.OK


def _state(name: str, loaded: Loaded, working: frozenset[str]) -> str:
    if name in working:
        return "ok"
    return "memory" if name in loaded.config.sinks else "gone"


def _show(standings: Mapping[str, Standing], states: Mapping[str, str]) -> None:
    """Print the queues as a table.

    The columns of the next due time and the last error are shown only if any delivery is delayed.
    """
    now = time.time()
    delayed = any(standing.next_due for standing in standings.values())
    rows = [
        [*_row(name, states[name], standing, now), *(_of_delayed(standing.next_due, now) if delayed else ())]
        for name, standing in standings.items()
    ]
    show_table((*_COLUMNS, *_OF_DELAYED) if delayed else _COLUMNS, rows)


def _row(name: str, state: str, standing: Standing, now: float) -> tuple[str, ...]:
    numbers = (standing.waiting, standing.delayed, standing.in_flight)
    return name, state, *map(str, numbers), "-" if standing.oldest is None else _age(standing.oldest, now)


def _of_delayed(due: Due | None, now: float) -> tuple[str, str]:
    if due is None:
        return "-", "-"
    return f"in {ago(max(due.at - now, 0.0))}", due.error or "-"


def _document(name: str, state: str, standing: Standing) -> dict[str, Any]:
    due = standing.next_due
    return {
        "sink": name,
        "state": state,
        "waiting": standing.waiting,
        "delayed": standing.delayed,
        "in_hand": standing.in_flight,
        "oldest": _stamp(standing.oldest),
        "next_due": due and {"at": _stamp(due.at), "attempts": due.attempts, "error": due.error},
    }


# move and dead-letter


class Arguments(msgspec.Struct, frozen=True):
    """The arguments of `move` and `dead-letter`, the commands that take deliveries out of a queue."""

    name: str
    loaded: Loaded
    limit: int | None
    dry_run: bool
    yes: bool
    as_json: bool

    @property
    def idle(self) -> float:
        """The idle time, in seconds, after which deliveries in flight may be taken out of the queue."""
        sink = self.loaded.config.sinks.get(self.name)
        return claim_idle_of(sink.host.timeout if sink else None)


def with_arguments(function: Callable[..., Any]) -> Callable[..., int]:
    """Add the options that `move` and `dead-letter` share, and pass them as one `Arguments`."""

    @wraps(function)
    def wrapped(
        *, name: str, loaded: Loaded, limit: int | None, dry_run: bool, yes: bool, as_json: bool, **given: Any
    ) -> Any:
        return function(Arguments(name, loaded, limit, dry_run, yes, as_json), **given)

    limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N deliveries.")
    return limit_option(dry_run_option(yes_option(json_option(of_running(wrapped)))))


@queue.command()
@click.argument("name", metavar="FROM")
@click.argument("to", metavar="TO")
@with_arguments
async def move(arguments: Arguments, to: str) -> int:
    """Move the waiting deliveries of the sink FROM to the sink TO, which delivers them with its own templates.

    FROM may be a removed sink; TO must be configured, with its queue in Redis. Deliveries in flight in a running router
    stay in FROM. If TO becomes full, the command ends with exit code 1. `--json` prints one object.
    """
    loaded = arguments.loaded
    _check_target(arguments.name, to, loaded)
    config = loaded.config.sinks[to].host.queue or QueueConfig()
    async with _queues(loaded) as queues:
        held = (await queues.look(to)).held
        room = max(config.max_events - held, 0)

        def act(on_progress: Progress) -> Awaitable[None]:
            return queues.move(
                arguments.name,
                to,
                bounds=Bounds(config.max_events, config.max_bytes),
                overriding=loaded.overriding(to),
                idle=arguments.idle,
                limit=arguments.limit,
                progress=on_progress,
            )

        job = _Job(
            verbs=("would move", "moving", "moved"),
            where=f" to {to}",
            full=f"{to} is full (max_events {config.max_events}, max_bytes {config.max_bytes})",
            room=room,
            document={"from": arguments.name, "to": to},
            count_key="moved",
            act=act,
        )
        return await _carry_out(queues, arguments, job)


def _check_target(name: str, to: str, loaded: Loaded) -> None:
    wrong = None
    if name == to:
        wrong = "FROM and TO are the same sink"
    elif to not in loaded.config.sinks:
        wrong = f"there is no sink {to!r} in {loaded.path}{did_you_mean(to, loaded.config.sinks)}"
    elif to not in redis_queues(loaded):
        wrong = f"the sink {to!r} has its queue in memory; deliveries can be moved only to a sink with `queue: redis`"
    if wrong:
        raise click.BadParameter(wrong, param_hint="TO")


@queue.command(name="dead-letter")
@click.argument("name", metavar="NAME")
@with_arguments
async def dead_letter(arguments: Arguments) -> int:
    """Turn the waiting deliveries of the sink NAME into dead letters.

    The reason of the dead letters is `exhausted`, or `orphaned` if the sink is removed. Deliveries in flight in a
    running router stay in the queue. The command evicts no older letter: if `dead_letters.max_events` is reached, the
    command ends with exit code 1. `--json` prints one object.
    """
    loaded = arguments.loaded
    most = loaded.config.dead_letters.max_events
    orphaned = arguments.name not in redis_queues(loaded)
    reason = Reason.ORPHANED if orphaned else Reason.EXHAUSTED
    async with _queues(loaded) as queues:
        room = max(most - await queues.letters(), 0)

        def act(on_progress: Progress) -> Awaitable[None]:
            make = _maker(reason, _why(arguments.name, loaded, orphaned=orphaned))
            return queues.dead_letter(
                arguments.name, make, most=most, idle=arguments.idle, limit=arguments.limit, progress=on_progress
            )

        job = _Job(
            verbs=("would make dead letters of", "making dead letters of", "made dead letters of"),
            where=f", reason {reason}",
            full=f"the stream of dead letters is full (dead_letters.max_events {most})",
            room=room,
            document={"sink": arguments.name, "reason": str(reason)},
            count_key="dead_lettered",
            act=act,
        )
        return await _carry_out(queues, arguments, job)


def _why(name: str, loaded: Loaded, *, orphaned: bool) -> str:
    if not orphaned:
        return "given up by an operator"
    return f"the sink {name} {'has its queue in memory now' if name in loaded.config.sinks else 'was removed from the configuration'}"


def _maker(reason: Reason, why: str) -> Callable[[Event], DeadLetter]:
    def make(event: Event) -> DeadLetter:
        return of_waiting(event, reason, why, now=time.time())

    return make


# Code shared by `move` and `dead-letter`.


class _Job(msgspec.Struct, frozen=True):
    """The job of `move` or `dead-letter`: the function that does the work, and the words for the command's messages."""

    verbs: tuple[str, str, str]
    where: str
    full: str
    room: int
    document: dict[str, Any]
    count_key: str
    act: Callable[[Progress], Awaitable[None]]


async def _carry_out(queues: QueueAdmin, arguments: Arguments, job: _Job) -> int:
    """Print the number of deliveries, ask for confirmation, do the work, and print the result."""
    before = await queues.look(arguments.name, idle=arguments.idle)
    if not before.held:
        await _check_it_exists(queues, arguments)
    number = before.free if arguments.limit is None else min(before.free, arguments.limit)
    done: Counter[State] = Counter()
    if number:
        print_message(
            f"{job.verbs[0] if arguments.dry_run else job.verbs[1]} {_summary(arguments, before, number)}{job.where}"
        )
        if job.room < number:
            print_message(f"warning: there is room for only {_number(job.room)}; then {job.full}", "warning")
    else:
        print_message(f"no delivery can be taken out of the queue of {arguments.name} now")
    if number and not arguments.dry_run:
        if not agreed(number, "Continue?", yes=arguments.yes):
            return Exit.FINDINGS
        await _act(job, number, done)
    after = await queues.look(arguments.name, idle=arguments.idle)
    if number and not arguments.dry_run:
        print_message(f"{job.verbs[2]} {_number(done[State.TAKEN])}", "good")
    _print_left(arguments, job, done, after)
    if arguments.as_json:
        numbers = {"found": number, job.count_key: done[State.TAKEN], "left": after.held, "in_hand": after.kept}
        others = {"unreadable": done[State.UNREADABLE], "full": done[State.NO_ROOM] > 0, "dry_run": arguments.dry_run}
        print_json({**job.document, **numbers, **others})
    return Exit.FINDINGS if done[State.NO_ROOM] else Exit.OK


async def _act(job: _Job, number: int, done: Counter[Any]) -> None:
    """Take the deliveries out in chunks. If the command is interrupted, print how many deliveries were taken out."""
    try:
        with progress(number) as advance:

            def on_progress(states: Sequence[State]) -> None:
                done.update(states)
                advance(states.count(State.TAKEN))

            await job.act(on_progress)
    except (RouterError, asyncio.CancelledError):
        print_message(
            f"warning: the command ended early. It {job.verbs[2]} {_number(done[State.TAKEN])}. Run it again",
            "warning",
        )
        raise


def _print_left(arguments: Arguments, job: _Job, done: Counter[Any], after: Standing) -> None:
    if done[State.NO_ROOM]:
        print_message(
            f"warning: {counted(after.held, 'delivery remains', 'deliveries remain')} in the queue, because {job.full}",
            "warning",
        )
    if done[State.UNREADABLE]:
        print_message(
            f"warning: {counted(done[State.UNREADABLE], 'delivery was', 'deliveries were')} left in the queue, because this version "
            "of event-router can't read them; a newer version may have written them",
            "warning",
        )
    if after.kept:
        print_message(
            f"note: {counted(after.kept, 'delivery was', 'deliveries were')} left in the queue, because they are in flight "
            f"in a running router, or in a router that was killed less than {arguments.idle:g} s ago",
            "note",
        )


async def _check_it_exists(queues: QueueAdmin, arguments: Arguments) -> None:
    """Raise `RouterError` if neither a sink nor a queue has this name."""
    if arguments.name in arguments.loaded.config.sinks:
        return
    names = await queues.names()
    if arguments.name not in names:
        known = {*names, *arguments.loaded.config.sinks}
        raise RouterError(
            f"there is no queue {arguments.name!r} in Redis{did_you_mean(arguments.name, known)} (see: event-router queue list)"
        )


def _summary(arguments: Arguments, standing: Standing, number: int) -> str:
    kinds = {
        "due later": standing.delayed,
        "that are no longer in flight in any router": standing.in_flight - standing.kept,
    }
    parts = [f"{count} {kind}" for kind, count in kinds.items() if count]
    if arguments.limit is not None and number < standing.free:
        parts = [f"of the {standing.free} that can be taken out"]
    old = [] if standing.oldest is None else [f"the oldest {_age(standing.oldest, time.time())} old"]
    about = ", ".join([*parts, *old])
    return f"{_number(number)} of {arguments.name}{f' ({about})' if about else ''}"


def _queues(loaded: Loaded) -> QueueAdmin:
    server = client.server(redis_url(loaded), client_name="event-router-queue")
    return QueueAdmin(server, prefix=loaded.config.redis.key_prefix, patience=PATIENCE)


def _age(at: float, now: float) -> str:
    return ago(max(now - at, 0.0))


def _stamp(at: float | None) -> str | None:
    return None if at is None else timestamp(datetime.fromtimestamp(at, UTC))


def _number(count: int) -> str:
    return counted(count, "delivery", "deliveries")
