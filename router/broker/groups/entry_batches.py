"""Passes stream entries to the receiver in batches, and makes dead letters of entries without a payload; floor 4."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from structlog.stdlib import BoundLogger

from router.broker.groups.group_stream import Stream
from router.broker.groups.in_flight import Entries, Entry, Recovered
from router.contracts import Receipt, Receiver
from router.errors import Reason
from router.escaping import cut
from router.events import RawBatch, text
from router.wording import counted

REDIS_ID = "redis-id"
"""The header that holds the id of the entry in Redis. The event id differs: it also contains the key of the stream."""


class EntryBatches:
    """Passes the entries of one source to its receiver.

    The field `payload_field` of an entry becomes the payload, and its other fields become headers.
    """

    def __init__(self, source: str, receiver: Receiver, *, payload_field: str, log: BoundLogger) -> None:
        self._source = source
        self._receiver = receiver
        self._field = payload_field.encode()
        self._log = log

    def pass_on(
        self, stream: Stream, entries: list[Entry], receipt: type[Entries] | None, since: float = 0.0
    ) -> Entries | None:
        """Pass entries to the receiver; return the receipt of the entries that have a payload.

        `since` is the time (monotonic seconds) at which Redis confirmed that the entries are pending for this router.
        `receipt` is the class of the receipts. If `receipt` is None, no entry is acknowledged. Returns None if
        `receipt` is None, or if no entry has a payload.
        """
        field = self._field
        payloads = [fields[1] for _, fields in entries if len(fields) == 2 and fields[0] == field]
        if len(payloads) == len(entries):  # the usual case: no entry has other fields
            if not entries:
                return None
            ids = [entry[0] for entry in entries]
            return self._give(stream, ids, payloads, None, receipt(stream.in_flight, ids, since) if receipt else None)
        good: list[tuple[bytes, bytes, dict[str, str]]] = []
        for entry_id, fields in entries:
            payload, headers = _split(fields, field)
            if payload is None:
                made = receipt(stream.in_flight, [entry_id], since) if receipt else None
                self._refuse(stream, (entry_id, b"", headers), made, Reason.FIELD, self._no_field(headers))
            else:
                good.append((entry_id, payload, headers))
        if not good:
            return None
        ids, payloads, others = ([*column] for column in zip(*good, strict=True))
        return self._give(stream, ids, payloads, others, receipt(stream.in_flight, ids, since) if receipt else None)

    def give_up(self, stream: Stream, entry: Entry, deliveries: int, since: float) -> None:
        """Make a dead letter of an entry that crashed the process too often."""
        entry_id, fields = entry
        payload, headers = _split(fields, self._field)
        detail = f"Redis delivered this entry {counted(deliveries, 'time')}, and each time the router ended before the attempt was finished"
        self._log.error(
            "an entry is given up as poison", stream=stream.name, entry=entry_id.decode(), reason=str(Reason.POISON)
        )
        receipt = Recovered(stream.in_flight, [entry_id], since)
        self._refuse(stream, (entry_id, payload or b"", headers), receipt, Reason.POISON, detail)

    def _give(
        self,
        stream: Stream,
        ids: list[bytes],
        payloads: list[bytes],
        others: list[dict[str, str]] | None,
        receipt: Entries | None,
    ) -> Entries | None:
        self._receiver.receive(self._source, self.batches(stream, ids, payloads, others, receipt))
        return receipt

    def batches(  # the columns of a table
        self,
        stream: Stream,
        ids: list[bytes],
        payloads: list[bytes],
        others: list[dict[str, str]] | None,
        receipt: Receipt | None,
    ) -> Sequence[RawBatch]:
        """Return entries as batches of messages.

        `others` holds the fields of each entry besides the payload; it is None if no entry has such fields.
        """
        names = b" ".join(ids).decode().split(" ")
        headers: list[dict[str, str] | None] = [{REDIS_ID: name} for name in names]
        if others is not None:
            headers = [{**other, REDIS_ID: name} for other, name in zip(others, names, strict=True)]
        return [RawBatch(stream.channel, None, payloads, stream.event_ids(names), headers, receipt)]

    def _refuse(
        self,
        stream: Stream,
        entry: tuple[bytes, bytes, dict[str, str]],
        receipt: Receipt | None,
        reason: Reason,
        detail: str,
    ) -> None:
        """Make a dead letter of an entry. The entry is acknowledged when the letter is written."""
        entry_id, payload, headers = entry
        (batch,) = self.batches(stream, [entry_id], [payload], [headers], receipt)
        self._receiver.refuse(self._source, batch, reason, detail)

    def _no_field(self, headers: dict[str, str]) -> str:
        found = ", ".join(repr(cut(name, 64)) for name in islice(headers, 10)) or "none"
        return f"the entry has no field {text(self._field)!r}; its fields: {found}"


def _split(fields: list[bytes], wanted: bytes) -> tuple[bytes | None, dict[str, str]]:
    """Return the payload of an entry, or None, and its other fields as text."""
    payload: bytes | None = None
    headers: dict[str, str] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name == wanted:
            payload = value
        else:
            headers[text(name)] = text(value)
    return payload, headers
