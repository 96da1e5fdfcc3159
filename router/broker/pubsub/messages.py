"""The parser of one subscribed connection, which turns bytes into batches of messages; floor 4.

For speed, the parser creates no objects for a message besides those that hiredis creates.
"""

from __future__ import annotations

from collections.abc import Callable

import hiredis

from router.broker.pubsub.commands import ERROR, Commands
from router.events import RawBatch

PIECE = 16 * 1024
"""The number of bytes that are passed to hiredis at once. Small pieces are faster: after each parsed kilobyte, hiredis
copies all bytes that it has not parsed yet."""

MESSAGE, PMESSAGE = b"message", b"pmessage"

BROKEN = (hiredis.HiredisError, TypeError, ValueError, IndexError)
"""The errors that `Messages.parse` raises for bytes that do not follow the pub/sub protocol."""


class Messages:
    """The parser of one connection.

    Answers to commands are passed to `commands`. `commands.subscriptions` decides which copy of an event is used.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._parser = hiredis.Reader(replyError=lambda text: [ERROR, text])  # type: ignore[arg-type,return-value]
        self._gets = self._parser.gets

    def parse(self, data: memoryview, first: int, size: int, batches: list[RawBatch]) -> None:
        """Parse `size` bytes of `data`, from the position `first` on; append the complete messages to `batches`.

        Raises the errors of `BROKEN`.
        """
        before, end = self._commands.subscriptions, first + size
        for start in range(first, end, PIECE):
            self._parser.feed(data, start, min(PIECE, end - start))  # type: ignore[arg-type]
            # Continue the last run of the previous piece, if the subscriptions were not switched in that piece.
            self._split(batches, batches[-1] if batches and self._commands.subscriptions is before else None)

    def _split(self, batches: list[RawBatch], last: RawBatch | None) -> None:
        """Append the parsed messages to `batches`. A batch is a run of messages with the same channel and pattern.

        `last` is a run to continue, or None. The loop runs once per message, so it makes as few comparisons as
        possible. The channel of the current run is in `exact` if a name matched, and in `wild` if a glob matched.
        `extra` is the channel of copies that are dropped because another subscription has priority. Dropped copies do
        not end the current run.
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
                    if name not in subscriptions.names:  # during a switch: this name is not a current subscription
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
            self._commands.answered_by(message)
            if subscriptions is not self._commands.subscriptions:
                subscriptions = self._commands.subscriptions
                exact = wild = pattern = extra = extra_pattern = None
