"""The addresses of a delivery: extracted from an event's values and checked; floor 2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from router.core.mailboxes import check_no_group, check_text, has_control, mailbox, refused, split
from router.core.rendering.sandbox.values import Missing, text
from router.errors import AddressError
from router.options import Addresses

MOST = 1000
"""The largest number of addresses in one field of a delivery. Each may become a delivery with the whole event."""


def value_text(value: Any) -> str:
    """Return the text of an event's value inside an address. Raises `AddressError` if it has a control character.

    A line end in a value could add a mail header. Line ends of the template itself are layout, and are allowed.
    """
    whole = text(value)
    if has_control(whole):
        raise refused(whole, "has a control character in it")
    return whole


def listed(value: Any) -> list[str]:
    """Return the addresses in the value of a sole `{{ … }}`: a text, a number, a list of these, or null (none).

    Raises `AddressError` for any other value.
    """
    if isinstance(value, Missing):
        str(value)  # raises
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return split(value_text(value))
    if value is None:
        return []
    if isinstance(value, Mapping | bool) or not isinstance(value, Iterable):
        raise AddressError(f"{_kind(value)} is not an address")
    found: list[str] = []
    for item in value:
        if isinstance(item, list | tuple):
            raise AddressError("a list within a list is not an address")
        found.extend(listed(item))
    return found


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "true or false" if isinstance(value, bool) else f"a {type(value).__name__}"


def checked(addresses: Iterable[str], marker: Addresses) -> list[str]:
    """Return the addresses in order, each once. Raises `AddressError` for an address not of the marker's kind."""
    key = _mailbox if marker.kind == "mail" else _any
    unique: dict[str, str] = {}
    for address in dict.fromkeys(addresses):
        unique.setdefault(key(address), address)
        if len(unique) > MOST:
            raise AddressError(f"it names more than {MOST:,} addresses")
    return list(unique.values())


def _any(address: str) -> str:
    check_text(address)
    check_no_group(address)
    return address


def _mailbox(address: str) -> str:
    return mailbox(address).key
