"""Bytes to payloads, or the reason why not; pure."""

from __future__ import annotations

from typing import Any

import msgspec

from router import events
from router.errors import Reason, RejectedError


def rejection(raw: bytes, format: str, max_bytes: int) -> RejectedError | None:  # noqa: A002  # the configuration's word
    """Why these bytes can't be taken, None when they can.

    Asked only after decoding has failed or the size is over `max_bytes`, so it may be slow.
    """
    if len(raw) > max_bytes:
        return RejectedError(Reason.TOO_LARGE, f"{len(raw)} bytes are over max_bytes {max_bytes}")
    try:
        events.decode(raw, format)
    except UnicodeDecodeError as error:
        return RejectedError(Reason.DECODE, f"not UTF-8: {error.reason} at byte {error.start}")
    except msgspec.DecodeError as error:
        return RejectedError(Reason.DECODE, f"not JSON: {_told(error, raw)}")
    except RecursionError:
        return RejectedError(Reason.DECODE, "not JSON that can be handled: nested too deeply")
    return None


def _told(error: Exception, raw: bytes) -> str:
    if not raw.strip():
        return "the payload is empty" if not raw else "the payload is white space alone"
    message = str(error)
    return f"{message} (byte {len(raw)})" if message.endswith("truncated") else message


def decode(raw: bytes, format: str, max_bytes: int) -> Any:  # noqa: A002  # the configuration's word
    """The payload of these bytes. Raises `RejectedError` (`too_large`, `decode`)."""
    error = rejection(raw, format, max_bytes)
    if error:
        raise error
    return events.decode(raw, format)
