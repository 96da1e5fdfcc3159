"""One consumer group: creating it, creating it again if it is lost, and tracking its progress; floor 4."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from typing import Any

from redis import exceptions as failures

from router.broker.groups.group_scripts import CLAIM, LAST_ID, PROGRESS, SWEEP
from router.broker.groups.group_stream import Loss, Membership, Stream
from router.broker.groups.pending import PAGE, PendingEntries
from router.broker.server.link import Link, Script, Word
from router.core.delivery import claims, trimming
from router.core.delivery.trimming import GroupState


class Refused(Exception):  # noqa: N818  # callers turn it into a ConfigError
    """The server refuses a command, because the user has no permission for it or the key has the wrong type."""

    def __init__(self, command: str, key: str, answer: str, kind: str = "stream") -> None:
        super().__init__(f"refuses {command} on the {kind} {key!r}: {answer}")


class Group:
    """The commands for one consumer group and for this router as its consumer. Raises redis-py's errors.

    Idle times are measured by the server's clock.
    """

    def __init__(self, link: Link, membership: Membership) -> None:
        self._link = link
        self._group = membership.group
        self._consumer = membership.consumer
        self._start = "$" if membership.start == "new" else "0"
        self._idle = max(1, int(membership.claim_idle * 1000))

    async def _probe(self, stream: Stream) -> None:
        """Send every command that will be needed, in a form that changes nothing.

        Raises `Refused` if a command is not allowed.
        """
        key, group, consumer = stream.key, self._group, self._consumer
        far = 2**53
        for words in (
            ("XREADGROUP", "GROUP", group, consumer, "COUNT", 1, "STREAMS", key, LAST_ID),
            ("XACK", key, group, "0-0"),
            ("XPENDING", key, group),
            ("XCLAIM", key, group, consumer, far, "0-0", "JUSTID"),
            ("XRANGE", key, LAST_ID, LAST_ID),
            ("XINFO", "STREAM", key),
            ("XINFO", "GROUPS", key),
            ("XINFO", "CONSUMERS", key, group),
        ):
            await self._tried(stream, *words)
        with refusals(stream, "EVAL"):
            await self._link.script(CLAIM, [stream.name], (group, consumer, -1, 0, 0))

    async def make(self, stream: Stream) -> None:
        """Create the group and the stream if they do not exist. Raises `Refused` if the server refuses a needed command."""
        with refusals(stream, "XGROUP"):
            made = await self._create(stream, self._start)
        await self._probe(stream)
        found = await self._last_delivered(stream)
        if found is not None:
            stream.progress.last = stream.progress.group_last = found
        stream.progress.added = (await self._about(stream) or {}).get(b"entries-added")
        if made:
            await self._state(stream, made=True)

    async def _create(self, stream: Stream, after: str | bytes) -> bool:
        """Create the group, to read the entries after the id `after`; return False if the group exists already."""
        try:
            await self._link.call("XGROUP", "CREATE", stream.key, self._group, after, "MKSTREAM")
        except failures.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
            return False
        return True

    async def _tried(self, stream: Stream, *words: Word) -> None:
        with refusals(stream, str(words[0])):
            await self._link.call(*words)

    async def heal(self, stream: Stream) -> Loss | None:
        """Create the group again if the group is lost; return the `Loss`, or None if nothing was lost.

        This router still owns its entries in flight: the entries become pending in the new group, or the new group
        delivers them again.
        """
        lost = None
        if await self._last_delivered(stream) is None:
            lost = await self._make_anew(stream)
        progress, in_flight = stream.progress, stream.in_flight
        if lost is Loss.GROUP or (progress.lost and lost is None):
            begins = await self._last_delivered(stream)
            if begins is not None:
                in_flight.resumed(begins, progress.last)
        progress.lost = False
        while in_flight.orphans:
            chunk = in_flight.orphans[:PAGE]
            await PendingEntries(self._link, stream.names).claim(chunk, force=True)
            in_flight.adopted(len(chunk))
        return lost

    async def _make_anew(self, stream: Stream) -> Loss:
        """Create a lost group again so that it misses no entry; return whether the whole stream or only the group was
        lost.
        """
        about, progress = await self._about(stream), stream.progress
        lost = Loss.GROUP
        if about is None or claims.is_new(
            progress.last,
            progress.added,
            newest=about[b"last-generated-id"],
            added_now=about.get(b"entries-added"),
        ):
            lost = Loss.STREAM
            stream.forget()
        after = b"0" if lost is Loss.STREAM else self._resume(stream)
        made = await self._create(stream, after)
        progress.state = await self._state(stream, made=True) if made else None
        progress.delivered, progress.arrived = 0, 0
        if progress.state is not None and progress.state.gap and lost is Loss.GROUP:
            progress.exact = False  # entries that were trimmed while there was no group are not counted
        progress.added = None if about is None else about.get(b"entries-added")
        return lost

    @staticmethod
    def _resume(stream: Stream) -> bytes:
        """Return the id after which a recreated group begins to read.

        If this router is the only consumer, every delivered entry is complete or in flight here. So the group continues
        after the last delivered entry. If there are other consumers, the entries in flight at other routers are
        unknown. Then the group begins at the older of two entries: the oldest entry that was pending at the last check,
        and the oldest entry in flight here. A stream that the router created for a list contains no complete entries,
        so its group begins at the first entry.
        """
        progress = stream.progress
        if stream.names.own:
            return b"0"
        if not progress.peers:
            return progress.last
        return claims.resume_after(progress.group_last, [*stream.in_flight.all(), *filter(None, [progress.lowest])])

    async def _last_delivered(self, stream: Stream) -> bytes | None:
        """Return the id of the last entry that was delivered to the group; None if the group does not exist."""
        for row in await self._rows("GROUPS", stream.key):
            if row[b"name"] == self._group.encode():
                found: bytes = row[b"last-delivered-id"]
                return found
        return None

    async def _rows(self, *words: Word) -> list[dict[bytes, Any]]:
        try:
            rows = await self._link.call("XINFO", *words)
        except failures.ResponseError as error:
            if _is_gone(error):
                return []
            raise
        return [_named(row) for row in rows]

    async def _about(self, stream: Stream) -> dict[bytes, Any] | None:
        """Return the server's information about the stream; None if the stream does not exist."""
        try:
            return _named(await self._link.call("XINFO", "STREAM", stream.key))
        except failures.ResponseError as error:
            if _is_gone(error):
                return None
            raise

    async def check_progress(self, stream: Stream) -> int:
        """Record the progress of the group, to be used if the group is lost, and count the entries that were trimmed
        unread.

        Returns the number of entries trimmed since the last call.
        """
        progress = stream.progress
        state = await self._state(stream)
        if state is None:
            return 0  # the group is lost: the next read will fail, and the loss is handled then
        read = progress.read_until(state)
        number, exact = trimming.lost_unread(progress.state, state, read)
        passed = trimming.passed_entries(progress.state, state, read, number)
        progress.checked(state._replace(passed=passed), exact=exact)
        return number

    async def _state(self, stream: Stream, *, made: bool = False) -> GroupState | None:
        """Return the state of a group from the server; None if the group is lost.

        Returns None too if the router created the stream.
        """
        if stream.names.own:
            return None  # no producer trims this stream
        answer = await self._ask(stream, made=made, trusted="")
        if answer and answer[-1]:
            stream.progress.witnessed = False
            answer = await self._ask(stream, made=made, trusted=int(await self._is_witnessed(stream)))
        if not answer:
            return None
        last, lowest, peers, added, missed, read, counted, gap, oldest, deleted, compared, doubt, _ = answer
        if compared and not stream.progress.witnessed:
            await self._link.script(await self._witness(stream), [stream.name], ())
            stream.progress.witnessed = True
        return GroupState(
            last,
            lowest,
            bool(peers),
            added,
            missed,
            read,
            counted,
            bool(gap),
            oldest,
            deleted,
            compared=bool(compared),
            doubt=bool(doubt),
            passed=counted if compared else None,
        )

    async def _ask(self, stream: Stream, *, made: bool, trusted: int | str) -> list[Any]:
        most = 0 if stream.progress.witnessed else PAGE
        words = (self._group, self._consumer, self._idle, int(made), trusted, most)
        answer: list[Any] = await self._link.script(PROGRESS, [stream.name], words)
        return answer

    async def _is_witnessed(self, stream: Stream) -> bool:
        """Return whether the server's count of the entries that the group has read is known to be correct.

        It is known to be correct if the server has the script of `_witness`.
        """
        witness = await self._witness(stream)
        try:
            await self._link.call("EVALSHA", witness.digest, 1, stream.name)
        except failures.NoScriptError:
            return False
        return True

    async def _witness(self, stream: Stream) -> Script:
        """Return the *witness*, a script. If the server knows it, the server's count of reads was correct at some time
        since its start.

        The router sends this script to the server when the count is found correct. A server stores scripts only in
        memory: neither in its files nor on its replicas. So a restarted server no longer knows the script. The text of
        the script depends on the replication id, which changes when a replica is promoted. After a promotion, a script
        that was sent before proves nothing, even if this server has it.
        """
        about = await self._link.courtesy("INFO", "replication")
        found = re.search(rb"master_replid:(\w+)", about) if isinstance(about, bytes) else None
        words = (stream.key, self._group.encode(), found[1] if found else b"")
        name = hashlib.sha256(b"".join(b"%d:%s" % (len(word), word) for word in words)).hexdigest()
        return Script(f"return '{name}'")

    async def sweep(self, stream: Stream) -> int:
        """Delete the consumers of dead routers that have no pending entries; return the number of deleted consumers."""
        words = (self._group, self._consumer, self._idle)
        return int(await self._link.script(SWEEP, [stream.name], words))


@contextlib.contextmanager
def refusals(stream: Stream, command: str) -> Iterator[None]:
    """Raise `Refused` instead of the server's error if the user has no permission, or if the key has the wrong type."""
    try:
        yield
    except failures.NoPermissionError as error:
        raise Refused(command, stream.name, str(error)) from error
    except failures.ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise Refused(command, stream.name, "the key holds a value that is not a stream") from error
        raise


def _is_gone(error: failures.ResponseError) -> bool:
    text = str(error)
    return text.startswith("NOGROUP") or "no such key" in text.lower()


def _named(row: list[Any]) -> dict[bytes, Any]:
    return dict(zip(row[::2], row[1::2], strict=True))
