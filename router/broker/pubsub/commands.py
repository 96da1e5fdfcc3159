"""The commands sent on one subscribed connection, and the answers to them, which come in the same order; floor 4."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import hiredis

from router.broker.pubsub.subscriptions import PSUBSCRIBE, SUBSCRIBE, Subscriptions, Wanted

PONG, ERROR = b"pong", b"error"
UNSUBSCRIBE, PUNSUBSCRIBE = b"unsubscribe", b"punsubscribe"

PINGED: Wanted = (b"ping", b"")
"""Stands for a PING among the commands that are to be answered."""

SWITCH_PING: Wanted = (b"ping", b"switch")
"""Stands for a PING at whose answer other subscriptions come into force."""

PROOF: Wanted = (b"ping", b"proof")
"""Stands for a PING whose answer proves that all that was sent before it has come."""

_ENDS = {SUBSCRIBE: UNSUBSCRIBE, PSUBSCRIBE: PUNSUBSCRIBE}


class Commands:
    """Sends commands by `write`, and knows what the server has confirmed and refused.

    `abort` ends the connection, `proven` is called when a PING for proof is answered.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        write: Callable[[bytes], None],
        abort: Callable[[str], None],
        proven: Callable[[], None],
    ) -> None:
        self.subscriptions = subscriptions
        """Those in force: which copies count."""
        self.refused: dict[Wanted, str] = {}
        """Subscriptions that the server refused, with its words."""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server has answered every subscription asked for; `refused` says how."""
        self._write = write
        self._abort = abort
        self._proven = proven
        self._expected: deque[Wanted] = deque()
        self._unanswered = 0
        self._left: asyncio.Future[None] | None = None
        self._next: Subscriptions | None = None

    def subscribe(self, wanted: Iterable[Wanted]) -> None:
        """Ask for these subscriptions, each with a command of its own so that a refusal names its channel."""
        wanted = list(wanted)
        for one in wanted:
            self.refused.pop(one, None)
        if self.answered.done():
            self.answered = asyncio.get_running_loop().create_future()
        self._unanswered += len(wanted)
        self._expected.extend(wanted)
        self._write(b"".join(map(_pack, wanted)))

    def unsubscribe(self, unwanted: Iterable[Wanted]) -> None:
        """Give these subscriptions up."""
        commands = [(_ENDS[kind], name) for kind, name in unwanted]
        self._expected.extend(commands)
        self._write(b"".join(map(_pack, commands)))

    def switch(self, subscriptions: Subscriptions) -> None:
        """Have other subscriptions decide which copies count, and give up what they do not want.

        They come into force at one place in the stream of messages, the answer to a PING: what was published is on one
        side of it with all its copies, so it is neither missed nor taken twice. What comes new is subscribed already.
        """
        unwanted = [one for one in self.subscriptions.wanted if one not in subscriptions.wanted]
        self._next = subscriptions
        self._expected.append(SWITCH_PING)
        self._write(b"PING\r\n")
        self.unsubscribe(unwanted)

    def ping(self, *, for_proof: bool) -> None:
        """Ask for a sign of life, and where it is needed for the proof that nothing is missing."""
        self._expected.append(PROOF if for_proof else PINGED)
        self._write(b"PING\r\n")

    def doubt(self) -> None:
        """Take no PING that was sent before now for proof."""
        self._expected = deque(PINGED if asked is PROOF else asked for asked in self._expected)

    def leave(self) -> asyncio.Future[None]:
        """Give every subscription up; the result is done when the server has done so, or refused."""
        self._left = asyncio.get_running_loop().create_future()
        self._write(b"UNSUBSCRIBE\r\nPUNSUBSCRIBE\r\n")
        return self._left

    def take(self, reply: Any) -> None:
        """Take an answer. Raises `ValueError` for one that nobody asked for."""
        kind = reply[0] if isinstance(reply, list) else bytes(reply).lower()
        if self._left is not None:
            self._take_while_leaving(self._left, kind, reply)
            return
        if kind in {UNSUBSCRIBE, PUNSUBSCRIBE}:
            if self._expected and self._expected[0] == (kind, reply[1]):
                self._expected.popleft()
            else:
                self._abort("the server ended a subscription")
            return
        if not self._expected:
            raise ValueError(f"{reply!r:.100} where nothing was asked")
        asked = self._expected.popleft()
        if asked[0] != PINGED[0]:
            self._answer(asked, kind, reply)
            return
        if kind not in {PONG, ERROR}:
            raise ValueError(f"{reply!r:.100} where the answer to PING was due")
        if asked is PROOF:
            self._proven()
        elif asked is SWITCH_PING and self._next is not None:
            self._next.duplicates += self.subscriptions.duplicates
            self.subscriptions = self._next

    def _answer(self, asked: Wanted, kind: bytes, reply: list[Any]) -> None:
        if kind == ERROR:
            self.refused[asked] = str(reply[1])
        elif (kind, reply[1]) != asked:
            raise ValueError(f"{reply!r:.100} where the answer to {asked!r:.100} was due")
        self._unanswered -= 1
        if not self._unanswered:
            self.answered.set_result(None)

    def _take_while_leaving(self, left: asyncio.Future[None], kind: bytes, reply: list[Any]) -> None:
        """Take an answer while unsubscribing: the last one counts no subscription, or is a refusal."""
        if self._expected and kind not in {UNSUBSCRIBE, PUNSUBSCRIBE}:
            self._expected.popleft()
        elif not left.done() and (kind == ERROR or (kind == PUNSUBSCRIBE and reply[2] == 0)):
            left.set_result(None)


def _pack(command: Wanted) -> bytes:
    """Return a command as the bytes to send."""
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows commands of one word only
