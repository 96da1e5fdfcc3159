"""`event-router dlq`: the dead letters, looked at, removed, sent again; floor 7."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from router.cli.common import (
    json_option,
    of_running,
    print_json,
    redis_url,
    tell,
)
from router.cli.operate.bulk import ago, agreed, dry_run_option, print_table, progress, yes_option
from router.errors import DEAD, ConfigError, Exit, RouterError
from router.escaping import escape, escape_json

if TYPE_CHECKING:
    from router.broker.dead_letters.dead_letter_store import Kept, LetterStore
    from router.core.accounts.dead_letter_filter import DeadLetterFilter
    from router.events import DeadLetter
    from router.ops.loading import Loaded

Function = TypeVar("Function", bound=Callable[..., Any])

AT_ONCE = 100
"""Letters that one script call moves or removes."""

RATE = 2000
"""Letters a second that are sent again, unless told otherwise."""

TAKEN_WITHIN = 3.0
"""Seconds to wait for a running router to take what is to be replayed."""

_DETAIL = 60  # characters of the detail in the table


@click.group()
def dlq() -> None:
    """The dead letters: what could not be handled, and why; look at them, send them again, remove them."""


@dataclass(frozen=True)
class Wanted:
    """What every command of the group is told: which letters are meant."""

    options: dict[str, Any]
    limit: int | None
    newest: bool
    as_json: bool


def filters(function: Function) -> Function:
    """The options that choose letters, handed on as one `Wanted`."""
    from functools import wraps

    @wraps(function)
    def wrapped(**given: Any) -> Any:
        names = ("sink", "route", "reason", "channel", "source", "since", "until", "where")
        options = {name: given.pop(name) for name in names}
        common = {name: given.pop(name) for name in ("limit", "newest", "as_json")}
        return function(Wanted(options=options, **common), **given)

    several: dict[str, Any] = {"multiple": True, "metavar": "NAME"}
    reasons = click.Choice(sorted(map(str, DEAD)))
    choices: list[Callable[[Any], Any]] = [
        click.option("--sink", **several, help="Of this sink; may be given several times, as the next ones."),
        click.option("--route", **several, help="Of this route."),
        click.option("--reason", multiple=True, type=reasons, metavar="REASON", help="Given up for this reason."),
        click.option("--channel", multiple=True, metavar="GLOB", help="Of channels that match."),
        click.option("--source", **several, help="Of this source."),
        click.option("--since", metavar="TIME", help="Failed since: 2h (ago), 3d, 2026-01-31, 2026-01-31T12:00:00Z."),
        click.option("--until", metavar="TIME", help="Failed before."),
        click.option(
            "--where", metavar="EXPR", help="An expression holds: payload.user_id == 42 and not event.address"
        ),
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="No more than N of them."),
        click.option("--newest", is_flag=True, help="Begin with the newest; else with the oldest."),
        json_option,
        of_running,
    ]
    decorated: Any = wrapped
    for choice in reversed(choices):
        decorated = choice(decorated)
    found: Function = decorated
    return found


# list and show


@dlq.command(name="list")
@filters
def list_letters(wanted: Wanted, *, loaded: Loaded) -> int:
    """Every letter that matches, the newest last.

    `--json` prints one object a line.
    """
    return _run(_list(loaded, wanted))


async def _list(loaded: Loaded, wanted: Wanted) -> int:
    now = time.time()
    shown = _without_secrets(loaded)
    rows: list[tuple[str, ...]] = []
    async with _store(loaded) as store:
        async for kept in _matching(store, wanted, loaded, now):
            if wanted.as_json:
                click.echo(_line(shown(kept)))
            else:
                rows.append(_row(shown(kept), now))
        waiting = await _waiting(store)
    if rows:
        print_table(_COLUMNS, [tuple(map(escape, row)) for row in rows])
        tell(f"{_number(len(rows))}")
    elif not wanted.as_json:
        tell("no dead letter matches" if _filtered(wanted) else "there are no dead letters")
    if waiting:
        tell(f"{_number(waiting)} to be replayed, not dealt with yet", "note")
    return Exit.OK


async def _waiting(store: LetterStore) -> int:
    """How many letters wait to be replayed; 0, and a warning, where the key of those holds something else."""
    try:
        return await store.waiting()
    except ConfigError as error:
        tell(f"warning: letters to be replayed can't be counted, in {store.replay_key}: {error}", "warning")
        return 0


@dlq.command()
@click.argument("letter_id", metavar="ID")
@json_option
@of_running
def show(letter_id: str, *, loaded: Loaded, as_json: bool) -> int:
    """One whole letter: ID is the letter's, its event's, or that of its entry in the stream.

    Exit code 1 when there is none.
    """
    return _run(_show(loaded, letter_id, as_json=as_json))


async def _show(loaded: Loaded, letter_id: str, *, as_json: bool) -> int:
    async with _store(loaded) as store:
        kept = await store.find(letter_id)
    if kept is None:
        raise RouterError(f"there is no dead letter {letter_id!r} (see: event-router dlq list)")
    kept = _without_secrets(loaded)(kept)
    if as_json:
        click.echo(_line(kept))
        return Exit.OK
    for text in _page(kept, time.time()):
        click.echo(escape(text, newlines=True))
    return Exit.OK


def _page(kept: Kept, now: float) -> Iterator[str]:
    """The letter as people read it."""
    from router.core.accounts.dead_letter_filter import content, faults

    letter = kept.letter
    found = faults(letter)
    if kept.unreadable:
        yield "This is no letter of event-router; what can be read of it:"
    told = {
        "id": letter.id,
        "entry": kept.entry,
        "event": letter.event_id,
        "reason": letter.reason,
        "detail": "" if found is not None else letter.detail,
        "source": letter.source,
        "channel": letter.channel,
        "pattern": letter.pattern,
        "route": letter.route,
        "sink": letter.sink,
        "address": letter.address,
        "key": letter.key,
        "attempts": str(letter.attempts) if letter.sink else None,
        "received at": letter.received_at,
        "failed at": f"{letter.failed_at} ({_age(letter, now)} ago)",
    }
    yield "\n".join(f"{name:<12} {value}" for name, value in told.items() if value)
    for name, value in (letter.headers or {}).items():
        yield f"{'header':<12} {name}: {value}"
    if found is not None:
        yield "does not fit its schema:"
        for fault in found:
            yield f"  {fault.get('pointer') or '/'} {fault.get('keyword', '')}: {fault.get('message', '')}"
    yield "payload:"
    yield _pretty(content(letter))


def _pretty(payload: Any) -> str:
    import msgspec

    if isinstance(payload, str):
        return payload
    return msgspec.json.format(msgspec.json.encode(payload), indent=2).decode()


# purge


@dlq.command()
@filters
@dry_run_option
@yes_option
def purge(wanted: Wanted, *, loaded: Loaded, dry_run: bool, yes: bool) -> int:
    """Remove the letters that match, for good.

    It says how many and how old they are first. `--json` prints one object a letter.
    """
    return _run(_purge(loaded, wanted, dry_run=dry_run, yes=yes))


async def _purge(loaded: Loaded, wanted: Wanted, *, dry_run: bool, yes: bool) -> int:
    now = time.time()
    async with _store(loaded) as store:
        chosen = Chosen()
        async for kept in _matching(store, wanted, loaded, now):
            chosen.add(kept)
        if not chosen.letters:
            return _none(wanted)
        tell(f"{'would remove' if dry_run else 'removing'} {chosen.summary(now)}")
        if dry_run:
            return chosen.tell_all("would_purge", wanted)
        if not agreed(len(chosen.letters), "Remove them for good?", yes=yes):
            return Exit.FINDINGS
        done = await _carry_out(chosen, store.remove, "purged", wanted, rate=None)
    tell(f"removed {_number(done)}{_gone(chosen, done)}", "good")
    return Exit.OK


# replay


@dlq.command()
@filters
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    default=RATE,
    show_default=True,
    metavar="N",
    help="Letters a second.",
)
@dry_run_option
@yes_option
def replay(wanted: Wanted, *, loaded: Loaded, rate: int, dry_run: bool, yes: bool) -> int:
    """Send the letters that match again: those of a sink to that sink, the others the whole way.

    A running router does it, with the configuration it has then; they wait for one in Redis. It says how many, how old
    and for how many recipients first. `--json` prints one object a letter.
    """
    return _run(_replay(loaded, wanted, rate=rate, dry_run=dry_run, yes=yes))


async def _replay(loaded: Loaded, wanted: Wanted, *, rate: int, dry_run: bool, yes: bool) -> int:
    from router.cli.operate.recipients import Recipients

    now = time.time()
    left: Counter[bool] = Counter()  # by whether they are of a newer event-router
    recipients = Recipients(loaded, now)
    async with _store(loaded) as store:
        chosen = Chosen()
        async for kept in _matching(store, wanted, loaded, now):
            if kept.newer or kept.unreadable:
                left[kept.newer] += 1
                continue
            chosen.add(kept)
            recipients.add(kept.letter)
        for newer, number in left.items():
            what = "of a newer event-router stay" if newer else "that can't be read stay"
            tell(f"warning: {_number(number)} {what} where they are", "warning")
        if not chosen.letters:
            return _none(wanted)
        tell(f"{'would replay' if dry_run else 'replaying'} {chosen.summary(now)}, {recipients.summary()}")
        if dry_run:
            return chosen.tell_all("would_replay", wanted)
        if not agreed(len(chosen.letters), "Send them again?", yes=yes):
            return Exit.FINDINGS
        done = await _carry_out(chosen, store.replay, "replayed", wanted, rate=rate)
        tell(f"on their way: {_number(done)}{_gone(chosen, done)}", "good")
        if done:
            await _tell_untaken(store)
    return Exit.OK


async def _tell_untaken(store: LetterStore) -> None:
    """Say so when no router takes what is to be replayed."""
    deadline = time.monotonic() + TAKEN_WITHIN
    while left := await store.untaken():
        if time.monotonic() > deadline:
            many = f"{left} or more letters" if left >= 1000 else _number(left)  # what it counts up to
            tell(f"warning: no running router has taken {many} yet; they wait in Redis until one does", "warning")
            return
        await asyncio.sleep(0.1)


# What they share.


@dataclass
class Chosen:
    """The letters to be dealt with: few words of each, for there may be many."""

    letters: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    """Entry, id, reason, sink."""
    reasons: Counter[str] = field(default_factory=Counter)
    oldest: str = ""
    newest: str = ""

    def add(self, kept: Kept) -> None:
        """Add a letter."""
        letter = kept.letter
        self.letters.append((kept.entry, letter.id, letter.reason, letter.sink))
        self.reasons[escape(f"{letter.sink} {letter.reason}" if letter.sink else letter.reason)] += 1
        self.oldest = min(self.oldest or letter.failed_at, letter.failed_at)
        self.newest = max(self.newest, letter.failed_at)

    def summary(self, now: float) -> str:
        """How many of what, and how old."""
        most = ", ".join(f"{number} {what}" for what, number in self.reasons.most_common(5))
        rest = len(self.reasons) - 5
        others = f" and {rest} other kinds" if rest > 0 else ""
        newest, oldest = _ago(self.newest, now), _ago(self.oldest, now)
        age = oldest if newest == oldest else f"{newest} to {oldest}"
        return f"{_number(len(self.letters))} ({most}{others}), {age} old"

    def tell_all(self, outcome: str, wanted: Wanted) -> int:
        """Print what would be done with each, where that is asked for."""
        if wanted.as_json:
            for letter in self.letters:
                _tell_one(letter, outcome)
        return Exit.OK


def _tell_one(letter: tuple[str, str, str, str | None], outcome: str) -> None:
    entry, name, reason, sink = letter
    print_json({"id": name, "entry": entry, "reason": reason, "sink": sink, "outcome": outcome})


async def _carry_out(
    chosen: Chosen,
    act: Callable[[Sequence[str]], Awaitable[list[bool]]],
    outcome: str,
    wanted: Wanted,
    *,
    rate: int | None,
) -> int:
    """Deal with the letters, some at once and no more than `rate` a second; returns how many were still there."""
    done = 0
    began = time.monotonic()
    at_once = AT_ONCE if rate is None else max(1, min(AT_ONCE, rate // 10))
    with progress(len(chosen.letters)) as advance:
        for first in range(0, len(chosen.letters), at_once):
            batch = chosen.letters[first : first + at_once]
            if rate is not None:
                await asyncio.sleep(began + first / rate - time.monotonic())
            found = await act([entry for entry, *_ in batch])
            done += sum(found)
            if wanted.as_json:
                for letter, there in zip(batch, found, strict=True):
                    _tell_one(letter, outcome if there else "gone")
            advance(len(batch))
    return done


def _none(wanted: Wanted) -> int:
    tell("no dead letter matches" if _filtered(wanted) else "there are no dead letters")
    return Exit.OK


def _gone(chosen: Chosen, done: int) -> str:
    gone = len(chosen.letters) - done
    return f" ({gone} had gone meanwhile)" if gone else ""


def _filtered(wanted: Wanted) -> bool:
    return any(wanted.options.values())


def _number(count: int) -> str:
    return f"{count} dead letter{'s' * (count != 1)}"


def _store(loaded: Loaded) -> LetterStore:
    from router.broker.dead_letters.dead_letter_store import LetterStore

    return LetterStore(redis_url(loaded), prefix=loaded.config.redis.key_prefix)


async def _matching(store: LetterStore, wanted: Wanted, loaded: Loaded, now: float) -> Any:
    """The letters that are meant, one by one."""
    chosen = _filter(wanted.options, loaded, now)
    left = wanted.limit
    async for page in store.pages(newest=wanted.newest):
        for kept, is_meant in zip(page, chosen.chosen([kept.letter for kept in page], now), strict=True):
            if is_meant:
                yield kept
                if left is not None:
                    left -= 1
                    if not left:
                        return


def _filter(options: dict[str, Any], loaded: Loaded, now: float) -> DeadLetterFilter:
    from router.core.accounts.dead_letter_filter import DeadLetterFilter, moment
    from router.core.rendering.expressions import BrokenExpressionError, Expression

    def at(name: str) -> float | None:
        try:
            return moment(options[name], now) if options[name] else None
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=f"--{name}") from None

    try:
        where = Expression(options["where"], loaded.environment) if options["where"] else None
    except BrokenExpressionError as error:
        raise click.BadParameter(str(error), param_hint="--where") from None
    return DeadLetterFilter(
        sinks=frozenset(options["sink"]),
        routes=frozenset(options["route"]),
        reasons=frozenset(options["reason"]),
        sources=frozenset(options["source"]),
        channels=tuple(options["channel"]),
        since=at("since"),
        until=at("until"),
        where=where,
    )


def _run(main: Any) -> int:
    code: int = asyncio.run(main)
    return code


def _without_secrets(loaded: Loaded) -> Callable[[Kept], Kept]:
    """Return what hides secrets in the detail of a letter: all else of it are names of ours, or what a producer wrote."""
    from msgspec.structs import replace

    from router.ops.redaction import Redactor

    redact = Redactor(loaded.secrets).text
    return lambda kept: kept._replace(letter=replace(kept.letter, detail=redact(kept.letter.detail)))


_COLUMNS = ("id", "age", "reason", "source", "channel", "route", "sink", "address", "detail")


_UNREADABLE = "unreadable"  # in place of a reason


def _row(kept: Kept, now: float) -> tuple[str, ...]:
    from router.core.accounts.dead_letter_filter import brief

    letter = kept.letter
    detail = " ".join(brief(letter).split())
    return (
        kept.entry if kept.unreadable else letter.id,
        _age(letter, now),
        _UNREADABLE if kept.unreadable else letter.reason,
        letter.source,
        letter.channel,
        letter.route or "-",
        letter.sink or "-",
        letter.address or "-",
        detail if len(detail) <= _DETAIL else f"{detail[: _DETAIL - 1]}…",
    )


def _line(kept: Kept) -> str:
    """The letter as one line of JSON."""
    import msgspec

    from router.core.accounts.dead_letter_filter import content, faults

    letter = kept.letter
    found = faults(letter)
    fields = {name: getattr(letter, name) for name in _FIELDS}
    detail = letter.detail if found is None else found
    line = {**fields, "detail": detail, "payload": content(letter), "entry": kept.entry}
    return escape_json(msgspec.json.encode(line | {_UNREADABLE: True} if kept.unreadable else line)).decode()


_FIELDS = (
    "id",
    "event_id",
    "reason",
    "detail",
    "source",
    "channel",
    "pattern",
    "headers",
    "route",
    "sink",
    "address",
    "key",
    "attempts",
    "received_at",
    "failed_at",
)


def _age(letter: DeadLetter, now: float) -> str:
    return _ago(letter.failed_at, now)


def _ago(failed_at: str, now: float) -> str:
    """How long ago, in its largest unit."""
    from router.core.accounts.dead_letter_filter import moment_of

    at = moment_of(failed_at)
    return "?" if at is None else ago(max(now - at.timestamp(), 0.0))
