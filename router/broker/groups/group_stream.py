"""One stream that is read by a consumer group: its names, the entries in flight, and what the server said of it; floor 4."""

from __future__ import annotations

from router.broker.groups.in_flight import InFlight, Names
from router.core.delivery.trimming import Look
from router.core.ids import LONGEST, portable
from router.events import text

ID_LENGTH = 41
"""Characters of the longest entry id: two numbers of 64 bits."""

START = b"0-0"
"""The id before the first entry of any stream."""


class Progress:
    """How far a group has come in its stream, as the last answers told."""

    def __init__(self) -> None:
        self.last = START
        """The last entry delivered to us, or to the group before us."""
        self.group_last = START
        """The last entry delivered to the whole group, at the last look."""
        self.lowest: bytes | None = None
        """The oldest pending entry of the whole group, at the last look."""
        self.peers = False
        """Whether others read with the same group, at the last look."""
        self.added: int | None = None
        """How many entries were ever added to the stream; None where the server does not say."""
        self.look: Look | None = None
        """What the server said at the last look."""
        self.delivered: int | None = 0
        """How many entries were delivered to us since; None when some of them may not have arrived."""
        self.exact = True
        """Whether all that was trimmed unread is known."""
        self.lost = False
        """Whether the server said that the group is gone, and nobody has looked since."""

    def looked(self, look: Look, *, exact: bool) -> None:
        """Take what a look has shown."""
        self.look, self.delivered, self.exact = look, 0, self.exact and exact
        self.group_last, self.added, self.lowest, self.peers = look.last, look.added, look.lowest, look.peers


class Stream:
    """One stream of a source, with its consumer group."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.key = names.key
        self.name = text(self.key)
        self.hand = InFlight(names)
        self.progress = Progress()
        self._prefix = f"{self.name}/"
        self._plain = self._prefix == portable(self._prefix) and len(self._prefix) + ID_LENGTH <= LONGEST

    def event_ids(self, ids: list[str]) -> list[str]:
        """Return the ids of events for the ids of entries."""
        prefix = self._prefix
        if self._plain:
            return [prefix + one for one in ids]
        return [portable(prefix + one) for one in ids]

    def forget(self) -> None:
        """Note that the stream is another one now: what is in flight is still delivered, but there is nothing to acknowledge."""
        self.hand.forget()
        progress = self.progress
        progress.last = progress.group_last = START
        progress.lowest, progress.look, progress.delivered = None, None, 0
