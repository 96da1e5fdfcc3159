"""The decoding of messages to payloads; pure. A message that can't be decoded is rejected with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from router import events
from router.config.models import SourceConfig
from router.core.cloudevents import open_envelope
from router.core.ids import portable
from router.core.json_faults import find, not_utf8
from router.errors import Reason, RejectedError


class Message(NamedTuple):
    """A decoded message.

    `data` are the bytes of the payload (for a CloudEvent its data), and `format` is their format. `id` is the event's
    id and `headers` are the event's headers, if the message has them.
    """

    payload: Any
    data: bytes
    format: str
    id: str | None
    headers: dict[str, str] | None


class SourceFormat(msgspec.Struct, frozen=True):
    """The format of a source's messages.

    `id_path` is the path to the event's id in the payload; empty if the configuration names no path.
    """

    name: str
    format: str
    max_bytes: int
    id_path: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, config: SourceConfig) -> SourceFormat:
        """Return the format of a configured source."""
        return cls(name, config.format, config.max_bytes, tuple(config.id.split(".")) if config.id else ())

    @property
    def plain(self) -> bool:
        """True if a message consists of the payload alone, and the payload has no id for the event."""
        return self.format != events.CLOUDEVENTS and not self.id_path


def read(raw: bytes, source: SourceFormat) -> Message:
    """Read one message of a source. Raises `RejectedError` (`too_large`, `decode`)."""
    if len(raw) > source.max_bytes:
        raise RejectedError(Reason.TOO_LARGE, f"the payload has {len(raw)} bytes, but max_bytes is {source.max_bytes}")
    data, format, id_, headers = raw, source.format, None, None  # noqa: A001  # named as in the configuration
    try:
        if format == events.CLOUDEVENTS:
            id_, headers, data, format = open_envelope(raw)  # noqa: A001  # named as in the configuration
        payload = events.decode(data, format)
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        where = "" if data is raw else ", in the data of the CloudEvent"
        raise RejectedError(Reason.DECODE, _cause(error, data, format) + where) from None
    except RecursionError:
        raise RejectedError(Reason.DECODE, "the JSON is nested too deeply") from None
    return Message(payload, data, format, (_id(payload, source.id_path) if source.id_path else None) or id_, headers)


def _cause(error: UnicodeDecodeError | msgspec.DecodeError, data: bytes, format: str) -> str:  # noqa: A002  # the key's name
    """Return the reason why the bytes can't be decoded.

    It is the decoder's own message if `json_faults` finds no better one.
    """
    if format == events.TEXT and isinstance(error, UnicodeDecodeError):
        return f"not text: {not_utf8(data, error)}"
    message = str(error)
    if message.endswith("truncated"):
        message = f"{message} (byte {len(data)})"
    return f"not JSON: {find(data) or message}"


def _id(payload: Any, path: Sequence[str]) -> str | None:
    """Return the id at a path of the payload; None if there is neither an integer nor a non-empty text."""
    for name in path:
        if not isinstance(payload, dict) or name not in payload:
            return None
        payload = payload[name]
    if isinstance(payload, bool) or not isinstance(payload, str | int) or payload == "":
        return None
    return portable(str(payload))
