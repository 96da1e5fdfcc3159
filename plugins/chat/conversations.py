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
"""The shortest time, in seconds, between two log lines about messages that could not be changed or replied to."""


class Keys(NamedTuple):
    """The keys `thread` and `update` of one delivery.

    A key is empty if its option is missing or renders to an empty text.
    """

    thread: str
    update: str


NO_KEYS = Keys("", "")


class Earlier(NamedTuple):
    """The keys of a delivery, and the places of earlier messages with these keys, by key and address."""

    keys: Keys
    places: dict[tuple[str, str], Place]


NO_EARLIER = Earlier(NO_KEYS, {})
"""The value for a delivery without keys."""


class _Kept(msgspec.Struct, frozen=True):
    """The place of a message in the form in which Redis stores it, as JSON."""

    service: str
    channel: str
    id: str
    root: str = ""


class Conversations:
    """Sends the messages of one sink, as replies to earlier messages or as replacements of earlier messages.

    If an earlier message can't be changed or replied to, a new message is sent and remembered. If the service refused
    the text itself, the service also refuses the new message, and the delivery fails.
    """

    def __init__(self, service: str, sender: Sender, context: SinkContext) -> None:
        self._service = service
        self._sender = sender
        self._context = context
        # The response and the places for each message that was sent but is not remembered in Redis, by the message's
        # key. The next attempt must not send these messages again.
        self._unwritten = Recent(REMEMBERED)
        self._logged_at = float("-inf")

    async def find(self, keys: Keys, addresses: list[str]) -> Earlier:
        """Return the earlier messages with these keys. Raises the delivery error if Redis can't be reached."""
        if keys == NO_KEYS or not self._sender.edits:
            return Earlier(keys, {})
        wanted = [(key, address) for key in dict.fromkeys(keys) if key for address in addresses]
        found = await self._memory.find(wanted)
        read = {each: self._read(text) for each, text in zip(wanted, found, strict=True) if text is not None}
        return Earlier(keys, {each: place for each, place in read.items() if place is not None})

    async def send(self, address: str, message: Message, earlier: Earlier) -> Seen:
        """Send a message to an address, or change the earlier message. Return the service's response.

        The response is returned only after Redis has stored the place of the message. Raises the delivery error.
        """
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
                self._log_new_message("a message can't be changed, so a new message is sent", error)
                del known[update]
        first = known.get(thread)
        answer: Seen | None = None
        if first is not None:
            try:
                answer = await self._sender.send(address, message._replace(replies_to=first))
            except PermanentError as error:
                self._log_new_message("a message can't be replied to, so a new thread begins", error)
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

    def _log_new_message(self, what: str, error: PermanentError) -> None:
        """Log why a new message is sent. Log at most once a minute, because every message may be affected."""
        now = self._context.clock.monotonic()
        if now - self._logged_at >= QUIET:
            self._logged_at = now
            self._context.log.info(what, error=str(error))
