"""The bytes of one subscribed connection as batches of messages; floor 4.

No object is made for a message beyond what hiredis makes.
"""

from __future__ import annotations

from collections.abc import Callable

import hiredis

from router.broker.pubsub.commands import ERROR, Commands
from router.events import RawBatch

SLICE = 16 * 1024
"""Bytes given to the parser at once: it moves what is left each time it has used up a kilobyte, so small is fast."""

MESSAGE, PMESSAGE = b"message", b"pmessage"

BROKEN = (hiredis.HiredisError, TypeError, ValueError, IndexError)
"""What `Messages.parse` raises for bytes that are not pub/sub."""


class Messages:
    """Parses what the server sends. Answers to commands go to `commands`, which says which copies count too."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._parser = hiredis.Reader(replyError=lambda text: [ERROR, text])  # type: ignore[arg-type,return-value]
        self._gets = self._parser.gets

    def parse(self, chunk: memoryview, size: int, batches: list[RawBatch]) -> None:
        """Append what a chunk of the socket completes to `batches`. Raises what `BROKEN` names."""
        before = self._commands.subscriptions
        for start in range(0, size, SLICE):
            self._parser.feed(chunk, start, min(SLICE, size - start))  # type: ignore[arg-type]
            # The run of the slice before goes on, unless other subscriptions came into force in it.
            self._split(batches, batches[-1] if batches and self._commands.subscriptions is before else None)

    def _split(self, batches: list[RawBatch], last: RawBatch | None) -> None:
        """Append what the parser holds to `batches`, as runs of equal channel and pattern; `last` is a run that goes on.

        This loop runs once per message. A run is known by the channel in `exact` (its name matched) or in `wild`
        (a glob did); a run of copies that lost against another subscription by `extra`, and does not break the others.
        """
        gets = self._gets
        append: Callable[[bytes], None] = batches.append  # type: ignore[assignment]  # replaced before its first use
        exact = wild = pattern = extra = extra_pattern = None
        subscriptions = self._commands.subscriptions
        if last is not None:
            append, pattern = last.payloads.append, last.pattern
            exact, wild = (last.channel, None) if pattern is None else (None, last.channel)
        while (message := gets()) is not False:
            if len(message) == 3:
                kind, name, payload = message
                if name == exact and kind == MESSAGE:
                    append(payload)
                    continue
                if kind == MESSAGE:
                    if name not in subscriptions.names:  # subscribed already, or still, while others are in force
                        subscriptions.duplicates += 1
                        continue
                    batches.append(RawBatch(name, None, run := [payload]))
                    append, exact, wild = run.append, name, None
                    continue
            elif len(message) == 4:
                kind, glob_, name, payload = message
                if name == wild and glob_ == pattern:
                    append(payload)
                    continue
                if name == extra and glob_ == extra_pattern:
                    subscriptions.duplicates += 1
                    continue
                if kind == PMESSAGE:
                    if glob_ not in subscriptions.unrivalled and subscriptions.winner(name) != glob_:
                        subscriptions.duplicates += 1
                        extra, extra_pattern = name, glob_
                        continue
                    batches.append(RawBatch(name, glob_, run := [payload]))
                    append, exact, wild, pattern = run.append, None, name, glob_
                    continue
            self._commands.take(message)
            if subscriptions is not self._commands.subscriptions:
                subscriptions = self._commands.subscriptions
                exact = wild = pattern = extra = extra_pattern = None
