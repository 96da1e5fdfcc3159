"""`event-router dlq`: show, replay and remove dead letters; floor 7."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from router.broker.dead_letters.dead_letter_store import Kept, LetterStore
from router.cli.common import json_option, of_running, print_json, print_message, redis_url
from router.cli.first_steps.explain import as_test_option, print_test
from router.cli.operate import dead_letter_views as views
from router.cli.operate.bulk import agreed, dry_run_option, progress, yes_option
from router.cli.operate.dead_letter_options import Wanted, filters
from router.cli.tables import show_table
from router.core.accounts.dead_letter_filter import DeadLetterFilter
from router.errors import ConfigError, Exit, RouterError
from router.escaping import escape
from router.wording import counted

if TYPE_CHECKING:
    from router.events import DeadLetter
    from router.ops.loading import Loaded

AT_ONCE = 100
"""The number of letters that one script call moves or removes."""

RATE = 2000
"""The default rate of a replay, in letters per second."""

TAKEN_WITHIN = 3.0
"""Seconds within which a running router should take the replayed letters. After this time, the command warns."""


@click.group()
def dlq() -> None:
    """Show, replay or remove dead letters: the stored records of events and deliveries that could not be handled."""


# list and show


@dlq.command(name="list")
@filters
async def list_letters(wanted: Wanted, *, loaded: Loaded) -> int:
    """List every letter that matches, the newest last.

    `--json` prints one object per line.
    """
    now = time.time()
    shown = views.hiding(loaded.secrets)
    rows: list[tuple[str, ...]] = []
    async with _store(loaded) as store:
        async for kept in _matching(store, wanted, loaded, now):
            if wanted.as_json:
                click.echo(views.line(shown(kept)))
            else:
                rows.append(views.row(shown(kept), now))
        waiting = await _waiting(store)
    if rows:
        show_table(views.COLUMNS, rows)
        print_message(views.count(len(rows)))
    elif not wanted.as_json:
        _none(wanted)
    if waiting:
        print_message(f"{views.count(waiting)} to be replayed, as soon as a router runs", "note")
    return Exit.OK


async def _waiting(store: LetterStore) -> int:
    """Return the number of letters that wait to be replayed. If their key has a wrong type, warn and return 0."""
    try:
        return await store.waiting()
    except ConfigError as error:
        print_message(f"warning: the letters to be replayed ({store.replay_key}) can't be counted: {error}", "warning")
        return 0


async def found(letter_id: str, loaded: Loaded) -> Kept:
    """Return the letter with this id, event id or entry id. Raises `RouterError` if there is no such letter."""
    async with _store(loaded) as store:
        kept = await store.find(letter_id)
    if kept is None:
        raise RouterError(f"there is no dead letter {letter_id!r} (see: event-router dlq list)")
    return kept


def readable(kept: Kept) -> DeadLetter:
    """Return the dead letter in a record. Raises `RouterError` if this router can't interpret the record."""
    if kept.newer or kept.unreadable:
        what = "was written by a newer event-router" if kept.newer else "can't be read"
        raise RouterError(f"the dead letter {kept.letter.id or kept.entry!r} {what}: its replay can't be explained")
    return kept.letter


@dlq.command()
@click.argument("letter_id", metavar="ID")
@as_test_option
@json_option
@of_running
async def show(letter_id: str, *, loaded: Loaded, as_json: bool, as_test: bool) -> int:
    """Show one letter in full. ID is the id of the letter, of its event, or of its entry in the stream.

    `--as-test` prints the letter's event as an entry of `tests:`, with the result that the current configuration gives.
    The exit code is 1 if the letter does not exist.
    """
    kept = await found(letter_id, loaded)
    if as_test:
        if as_json:
            raise click.UsageError("--as-test prints YAML: it can't be combined with --json")
        from router.core.accounts.dead_letter_filter import received_at
        from router.ops.simulation import Simulator

        letter = readable(kept)
        print_test(Simulator(loaded).from_start(letter, received_at(letter).timestamp()), {})
        return Exit.OK
    kept = views.hiding(loaded.secrets)(kept)
    if as_json:
        click.echo(views.line(kept))
        return Exit.OK
    for text in views.page(kept, time.time()):
        click.echo(escape(text, newlines=True))
    return Exit.OK


# purge


@dlq.command()
@filters
@dry_run_option
@yes_option
async def purge(wanted: Wanted, *, loaded: Loaded, dry_run: bool, yes: bool) -> int:
    """Remove the letters that match, permanently.

    The command first prints the number and the age of the letters. `--json` prints one object per letter.
    """
    now = time.time()
    async with _store(loaded) as store:
        chosen = Chosen()
        async for kept in _matching(store, wanted, loaded, now):
            chosen.add(kept)
        if not chosen.letters:
            return _none(wanted)
        print_message(f"{'would remove' if dry_run else 'removing'} {chosen.summary(now)}")
        if dry_run:
            return chosen.print_dry_run("would_purge", wanted)
        if not agreed(len(chosen.letters), "Remove them permanently?", yes=yes):
            return Exit.FINDINGS
        done = await _carry_out(chosen, store.remove, "purged", wanted, rate=None)
    print_message(f"removed {views.count(done)}{_gone(chosen, done)}", "good")
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
    help="The number of letters per second.",
)
@dry_run_option
@yes_option
async def replay(wanted: Wanted, *, loaded: Loaded, rate: int, dry_run: bool, yes: bool) -> int:
    """Replay the letters that match.

    A letter with a sink goes to this sink, any other letter through schema and routes.

    A running router delivers the letters with its current configuration. If no router runs, the letters wait in Redis.
    The command first prints the number and the age of the letters, and the number of recipients. `--json` prints one
    object per letter.
    """
    from router.cli.operate.recipients import Recipients

    now = time.time()
    left: Counter[bool] = Counter()  # True: a record of a newer event-router; False: not a letter
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
            what = "of a newer event-router" if newer else "that can't be read"
            print_message(f"warning: {views.count(number)} {what} will not be replayed", "warning")
        if not chosen.letters:
            return _none(wanted)
        print_message(f"{'would replay' if dry_run else 'replaying'} {chosen.summary(now)}, {recipients.summary()}")
        if dry_run:
            return chosen.print_dry_run("would_replay", wanted)
        if not agreed(len(chosen.letters), "Send them again?", yes=yes):
            return Exit.FINDINGS
        done = await _carry_out(chosen, store.replay, "replayed", wanted, rate=rate)
        print_message(f"queued for replay: {views.count(done)}{_gone(chosen, done)}", "good")
        if done:
            await _warn_untaken(store)
    return Exit.OK


async def _warn_untaken(store: LetterStore) -> None:
    """Warn if no router takes the replayed letters."""
    deadline = time.monotonic() + TAKEN_WITHIN
    while left := await store.untaken():
        if time.monotonic() > deadline:
            many = (
                f"{left} or more dead letters" if left >= 1000 else views.count(left)
            )  # the most that `untaken` counts
            wait = "the letter waits" if left == 1 else "the letters wait"
            print_message(
                f"warning: no running router has taken {many} yet; {wait} in Redis until a router runs", "warning"
            )
            return
        await asyncio.sleep(0.1)


# Code shared by `replay` and `purge`.


class Chosen(msgspec.Struct):
    """The letters to replay or remove. Only a few fields of each letter are kept, because there may be many letters."""

    letters: list[tuple[str, str, str, str | None]] = msgspec.field(default_factory=list)
    """The entry, id, reason and sink of each letter."""
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
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
        """Return the number and age of the letters, in words."""
        most = ", ".join(f"{number} {what}" for what, number in self.reasons.most_common(5))
        rest = len(self.reasons) - 5
        others = f" and {counted(rest, 'other kind')}" if rest > 0 else ""
        newest, oldest = views.age(self.newest, now), views.age(self.oldest, now)
        age = oldest if newest == oldest else f"{newest} to {oldest}"
        return f"{views.count(len(self.letters))} ({most}{others}), {age} old"

    def print_dry_run(self, outcome: str, wanted: Wanted) -> int:
        """Print, with `--json`, what the command would do with each letter. Return the exit code."""
        if wanted.as_json:
            for letter in self.letters:
                _print_letter(letter, outcome)
        return Exit.OK


def _print_letter(letter: tuple[str, str, str, str | None], outcome: str) -> None:
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
    """Replay or remove the letters in chunks, at most `rate` per second; return how many letters still existed."""
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
                    _print_letter(letter, outcome if there else "gone")
            advance(len(batch))
    return done


def _none(wanted: Wanted) -> int:
    print_message("no dead letter matches" if any(wanted.options.values()) else "there are no dead letters")
    return Exit.OK


def _gone(chosen: Chosen, done: int) -> str:
    gone = len(chosen.letters) - done
    return f" ({gone} had been removed already)" if gone else ""


def _store(loaded: Loaded) -> LetterStore:
    return LetterStore(redis_url(loaded), prefix=loaded.config.redis.key_prefix)


async def _matching(store: LetterStore, wanted: Wanted, loaded: Loaded, now: float) -> AsyncIterator[Kept]:
    """Yield the letters that match, one by one."""
    chosen = wanted.filter(loaded, now)
    left = wanted.limit
    async for page in store.pages(newest=wanted.newest):
        for kept, is_meant in zip(page, chosen.chosen([kept.letter for kept in page], now), strict=True):
            if is_meant:
                yield kept
                if left is not None:
                    left -= 1
                    if not left:
                        _warn_failures(chosen)
                        return
    _warn_failures(chosen)


def _warn_failures(chosen: DeadLetterFilter) -> None:
    """Warn about letters for which `--where` failed.

    Without the warning, a wrong expression would look like an expression that matches no letter.
    """
    for why, number in chosen.failures.most_common(5):
        print_message(f"warning: {why} (for {views.count(number)}, which the command leaves out)", "warning")
