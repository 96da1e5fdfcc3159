"""The commands that are sent on one subscribed connection, and their answers in the same order; floor 4."""

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
"""The entry for a plain PING in the list of unanswered commands."""

SWITCH_PING: Wanted = (b"ping", b"switch")
"""The entry for a PING that marks a switch: at its answer, the next subscriptions replace the current ones."""

PROOF: Wanted = (b"ping", b"proof")
"""The entry for a PING that is sent as proof: its answer shows that all earlier messages have arrived."""

_ENDS = {SUBSCRIBE: UNSUBSCRIBE, PSUBSCRIBE: PUNSUBSCRIBE}


class Commands:
    """The commands of one connection, sent by `write`, and the server's confirmations and refusals.

    `abort` is called with a reason, and ends the connection. `proven` is called when the server answers a PING for
    proof.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        write: Callable[[bytes], None],
        abort: Callable[[str], None],
        proven: Callable[[], None],
    ) -> None:
        self.subscriptions = subscriptions
        """The current subscriptions. If the server sends several copies of an event, these subscriptions decide which
        copy is used."""
        self.refused: dict[Wanted, str] = {}
        """The subscriptions that the server refused, each with the error text of the server."""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server has confirmed or refused every requested subscription."""
        self._write = write
        self._abort = abort
        self._proven = proven
        self._expected: deque[Wanted] = deque()
        self._unanswered = 0
        self._left: asyncio.Future[None] | None = None
        self._next: deque[Subscriptions] = deque()

    def subscribe(self, wanted: Iterable[Wanted]) -> None:
        """Request these subscriptions, each by a separate command, so that a refusal belongs to exactly one channel."""
        wanted = list(wanted)
        for subscription in wanted:
            self.refused.pop(subscription, None)
        if self.answered.done():
            self.answered = asyncio.get_running_loop().create_future()
        self._unanswered += len(wanted)
        self._expected.extend(wanted)
        self._write(b"".join(map(_pack, wanted)))

    def unsubscribe(self, unwanted: Iterable[Wanted]) -> None:
        """Unsubscribe from these subscriptions."""
        commands = [(_ENDS[kind], name) for kind, name in unwanted]
        self._expected.extend(commands)
        self._write(b"".join(map(_pack, commands)))

    def switch(self, subscriptions: Subscriptions) -> None:
        """Make `subscriptions` the current subscriptions, and unsubscribe from all others.

        Call this method only after the server has confirmed the added subscriptions. The switch takes place at the
        answer to a PING. Either all copies of an event arrive before this answer, or all copies arrive after it. So no
        event is missed or received twice.
        """
        unwanted = [wanted for wanted in self.subscriptions.wanted if wanted not in subscriptions.wanted]
        self._next.append(subscriptions)
        self._expected.append(SWITCH_PING)
        self._write(b"PING\r\n")
        self.unsubscribe(unwanted)

    def ping(self, *, for_proof: bool) -> None:
        """Send a PING. If `for_proof` is True, the answer will prove that no earlier message is missing."""
        self._expected.append(PROOF if for_proof else PINGED)
        self._write(b"PING\r\n")

    def doubt(self) -> None:
        """Reject the answers to earlier PINGs as proof. Only a PING that is sent after this call can be a proof."""
        self._expected = deque(PINGED if asked is PROOF else asked for asked in self._expected)

    def leave(self) -> asyncio.Future[None]:
        """Unsubscribe from everything; return a future that is done when the server has confirmed or refused this."""
        if self._left is None:
            self._left = asyncio.get_running_loop().create_future()
            self._write(b"UNSUBSCRIBE\r\nPUNSUBSCRIBE\r\n")
        return self._left

    def answered_by(self, reply: Any) -> None:
        """Handle the next answer of the server. Raises `ValueError` if no command expects this answer."""
        kind = reply[0] if isinstance(reply, list) else bytes(reply).lower()
        if self._left is not None:
            self._answer_while_leaving(self._left, kind, reply)
            return
        if kind in {UNSUBSCRIBE, PUNSUBSCRIBE}:
            if self._expected and self._expected[0] == (kind, reply[1]):
                self._expected.popleft()
            else:
                self._abort("the server ended a subscription")
            return
        if not self._expected:
            raise ValueError(f"{reply!r:.100} answers no command")
        asked = self._expected.popleft()
        if asked[0] != PINGED[0]:
            self._answer(asked, kind, reply)
            return
        if kind not in {PONG, ERROR}:
            raise ValueError(f"{reply!r:.100} instead of the answer to PING")
        if asked is PROOF:
            self._proven()
        elif asked is SWITCH_PING:
            self._switch()

    def _switch(self) -> None:
        following = self._next.popleft()
        following.duplicates += self.subscriptions.duplicates
        self.subscriptions = following

    def _answer(self, asked: Wanted, kind: bytes, reply: list[Any]) -> None:
        if kind == ERROR:
            self.refused[asked] = str(reply[1])
        elif (kind, reply[1]) != asked:
            raise ValueError(f"{reply!r:.100} instead of the answer to {asked!r:.100}")
        self._unanswered -= 1
        if not self._unanswered:
            self.answered.set_result(None)

    def _answer_while_leaving(self, left: asyncio.Future[None], kind: bytes, reply: list[Any]) -> None:
        """Handle an answer that arrives after `leave`. A refusal, or a count of 0 subscriptions, completes the future.

        Answers to earlier commands may come first, because bytes that were read ahead are processed in order.
        """
        if self._expected and (kind not in {UNSUBSCRIBE, PUNSUBSCRIBE} or self._expected[0] == (kind, reply[1])):
            if self._expected.popleft() is SWITCH_PING:
                self._switch()
        elif not left.done() and (kind == ERROR or (kind == PUNSUBSCRIBE and reply[2] == 0)):
            left.set_result(None)


def _pack(command: Wanted) -> bytes:
    """Return the bytes of a command in the Redis protocol."""
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]  # the stub knows only one word
