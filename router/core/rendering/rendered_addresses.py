"""The addresses in the values that templates render; floor 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from router.core.mailboxes import has_control, refused, split
from router.core.rendering.sandbox.values import Missing, plain, text
from router.errors import AddressError


def value_text(value: Any) -> str:
    """Return an event's value as text for an address.

    Raises `AddressError` if the text has a control character. For example, a line break in a value could add a mail
    header. Line breaks of the template itself are layout, and are allowed.
    """
    whole = text(value)
    if has_control(whole):
        raise refused(whole, "has a control character in it")
    return whole


def addresses_in(whole: str) -> list[str]:
    """Return the addresses in a comma-separated text. Raises `AddressError` if the text has a control character."""
    return split(value_text(whole))


def listed(value: Any, parts: Callable[[str], list[str]] = addresses_in) -> list[str]:
    """Return the addresses in the value of a template that is only one `{{ … }}`.

    The value is a string, a number, a list of strings and numbers, or null (no address). `parts` splits a string into
    addresses. Raises `AddressError` for any other value.
    """
    if isinstance(value, Missing):
        str(value)  # raises
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return parts(text(value))
    if value is None:
        return []
    if isinstance(value, Mapping | bool) or not isinstance(value, Iterable):
        raise AddressError(f"{_kind(value)} is not an address")
    found: list[str] = []
    for item in value:
        if isinstance(item, list | tuple):
            raise AddressError("every item of the list must be an address, but an item is a list")
        found.extend(listed(item, parts))
    return found


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return the mappings in the value of a template that is only one `{{ … }}`.

    The value is a mapping, the JSON text of mappings, a list of such values, or null (no mapping). Raises
    `AddressError` for any other value.
    """
    if isinstance(value, Missing):
        str(value)  # raises
    if isinstance(value, str):  # the fields of a hash in Redis are strings
        return _decoded(value)
    if isinstance(value, Mapping):
        return [plain(value)]
    if value is None:
        return []
    if isinstance(value, bool) or not isinstance(value, Iterable):
        raise AddressError(f"{_kind(value)} is not a mapping")
    found: list[dict[str, Any]] = []
    for item in value:
        if isinstance(item, list | tuple):
            raise AddressError("every item of the list must be a mapping, but an item is a list")
        found.extend(mappings(item))
    return found


def _decoded(whole: str) -> list[dict[str, Any]]:
    if not whole.strip():
        return []
    try:
        value = msgspec.json.decode(whole)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise AddressError(
            "the text is not JSON: the template must give a mapping, a list of mappings, or the JSON of one of these"
        ) from None
    if isinstance(value, str) or (isinstance(value, list) and any(isinstance(item, str) for item in value)):
        raise AddressError(
            "the JSON must be a mapping or a list of mappings, but it contains a string in the place of a mapping"
        )
    return mappings(value)


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "true or false" if isinstance(value, bool) else f"a value of type {type(value).__name__}"
