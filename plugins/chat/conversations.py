"""Messages that reply to earlier messages or replace them, by the keys `thread` and `update`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from router.api import MessageMemory, PermanentError, Recent, SinkContext, message_memory

from .service import Message, Place, Sender, place_of
from .web_api import Seen

REMEMBERED = 1_000
"""The largest number of messages that were sent but are not remembered in Redis yet."""

QUIET = 60.0
"""The shortest time, in seconds, between two log lines about messages that were sent again."""


class Keys(NamedTuple):
    """The keys of one delivery, empty if the option is missing or renders to nothing."""

    thread: str
    update: str


NO_KEYS = Keys("", "")


class Earlier(NamedTuple):
    """The keys of a delivery, and the places of the earlier messages by key and address."""

    keys: Keys
    places: dict[tuple[str, str], Place]


NO_EARLIER = Earlier(NO_KEYS, {})
"""The value for a delivery without keys."""


class _Kept(msgspec.Struct, frozen=True):
    """The form in which the place of a message is remembered."""

    service: str
    channel: str
    id: str
    root: str = ""


class Conversations:
    """Sends the messages of one sink, as replies to earlier messages or in their place.

    If an earlier message can't be changed or replied to, a new message is sent, and is remembered instead. If the
    message itself is at fault, the service refuses the new one too.
    """

    def __init__(self, service: str, sender: Sender, context: SinkContext) -> None:
        self._service = service
        self._sender = sender
        self._context = context
        # The answer and the places of messages that were sent but not remembered, by the key of the message. The next
        # attempt must not send them again.
        self._unwritten = Recent(REMEMBERED)
        self._told_at = float("-inf")

    async def find(self, keys: Keys, addresses: list[str]) -> Earlier:
        """Return the earlier messages with these keys. Raises the delivery error if Redis can't be reached."""
        if keys == NO_KEYS or not self._sender.edits:
            return Earlier(keys, {})
        wanted = [(key, address) for key in dict.fromkeys(keys) if key for address in addresses]
        found = await self._memory.find(wanted)
        read = {each: self._read(text) for each, text in zip(wanted, found, strict=True) if text is not None}
        return Earlier(keys, {each: place for each, place in read.items() if place is not None})

    async def send(self, address: str, message: Message, earlier: Earlier) -> Seen:
        """Send a message to an address, or change the earlier one; return the answer as soon as the message is remembered in Redis."""
        if earlier.keys.thread:
            message = message._replace(thread=earlier.keys.thread)
        if earlier.keys == NO_KEYS or not self._sender.edits:
            return await self._sender.send(address, message)
        unwritten: tuple[Seen, dict[tuple[str, str], Place]] | None = self._unwritten.pop(message.key, None)
        answer, places = unwritten or await self._sent(address, message, earlier)
        try:
            await self._memory.keep({each: self._written(place) for each, place in places.items()})
        except BaseException:
            self._unwritten[message.key] = answer, places
            raise
        return answer

    async def _sent(
        self, address: str, message: Message, earlier: Earlier
    ) -> tuple[Seen, dict[tuple[str, str], Place]]:
        """Send or change a message; return the answer and the places to remember."""
        thread, update = ((key, address) for key in earlier.keys)
        known = dict(earlier.places)
        if update in known:
            try:
                return await self._sender.edit(known[update], message), {update: known[update]}
            except PermanentError as error:
                self._tell("a message can't be changed, so a new message is sent", error)
                del known[update]
        first = known.get(thread)
        answer: Seen | None = None
        if first is not None:
            try:
                answer = await self._sender.send(address, message._replace(answers=first))
            except PermanentError as error:
                self._tell("a message can't be replied to, so a new thread begins", error)
                first = None
        if answer is None:
            answer = await self._sender.send(address, message)
        place = place_of(address, answer)
        if place is None:
            return answer, {}
        if first is not None:
            place = place._replace(root=first.first)
        places = {thread: first or place, update: place}
        return answer, {each: kept for each, kept in places.items() if each[0]}

    @property
    def _memory(self) -> MessageMemory:
        return message_memory(self._context, "thread", "update")

    def _read(self, text: str) -> Place | None:
        """Return a remembered place; None if another service or a later version of the router stored it."""
        try:
            kept = msgspec.json.decode(text, type=_Kept)
        except msgspec.DecodeError:
            return None
        return Place(kept.channel, kept.id, kept.root) if kept.service == self._service else None

    def _written(self, place: Place) -> str:
        return msgspec.json.encode(_Kept(self._service, *place)).decode()

    def _tell(self, what: str, error: PermanentError) -> None:
        """Log that a message was sent again; at most once a minute, because this may happen to every message."""
        now = self._context.clock.monotonic()
        if now - self._told_at >= QUIET:
            self._told_at = now
            self._context.log.info(what, error=str(error))
