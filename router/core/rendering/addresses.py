"""The addresses of a delivery: extracted from an event's values and checked; floor 2."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from router.core.mailboxes import check_no_group, check_text, has_control, mailbox, refused, split
from router.core.rendering.sandbox.values import Missing, plain, text
from router.errors import AddressError
from router.options import Addresses

LONGEST_URL = 8192
"""The largest number of characters of a recipient that is a URL."""

_GAP = re.compile(r"[\s,]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

MOST = 1000
"""The largest number of addresses in one field of a delivery. Each may become a delivery with the whole event."""


def value_text(value: Any) -> str:
    """Return the text of an event's value inside an address. Raises `AddressError` if it has a control character.

    A line break in a value could add a mail header. Line breaks of the template itself are layout, and are allowed.
    """
    whole = text(value)
    if has_control(whole):
        raise refused(whole, "has a control character in it")
    return whole


def addresses_in(whole: str) -> list[str]:
    """Return the addresses in a comma-separated text. Raises `AddressError` if it has a control character."""
    return split(value_text(whole))


def urls_in(whole: str) -> list[str]:
    """Return the URLs in a string, which are separated by white space or commas. A comma may also be part of a URL."""
    found: list[str] = []
    begin = 0
    for gap in _GAP.finditer(whole):
        if gap[0].strip(",") or _SCHEME.match(whole, gap.end()):
            found.append(whole[begin : gap.start()])
            begin = gap.end()
    found.append(whole[begin:].strip(","))
    return [url for url in found if url]


def listed(value: Any, parts: Callable[[str], list[str]] = addresses_in) -> list[str]:
    """Return the addresses in the value of a sole `{{ … }}`: a string, a number, a list of these, or null (none).

    `parts` divides a string. Raises `AddressError` for any other value.
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
    """Return the mappings in the value of a sole `{{ … }}`: a mapping, its JSON text, a list of these, or null (none).

    Raises `AddressError` for any other value.
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
        raise AddressError("a string must be the JSON of a mapping or of a list of mappings") from None
    if isinstance(value, str) or (isinstance(value, list) and any(isinstance(item, str) for item in value)):
        raise AddressError(
            "the JSON must be a mapping or a list of mappings, but it contains a string in the place of a mapping"
        )
    return mappings(value)


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "true or false" if isinstance(value, bool) else f"a {type(value).__name__}"


def literal_recipients(whole: str, marker: Addresses) -> Sequence[Any]:
    """Return the recipients in a string of the configuration. Raises `AddressError`."""
    if marker.known_by is None:
        return split(whole)
    return urls_in(whole) if callable(marker.known_by) else mappings(whole)


def by_address(found: Iterable[Any], marker: Addresses) -> dict[str, Any]:
    """Return the value that the plugin gets for each address, in order: the address itself, or the mapping or URL with this address.

    Raises `AddressError` for an address not of the marker's kind.
    """
    if marker.known_by is None:
        return {address: address for address in _checked(found, marker)}
    unique: dict[str, Any] = {}
    for recipient in found:
        unique.setdefault(address_of(recipient, marker), recipient)
        _check_number(unique)
    return unique


def address_of(recipient: Any, marker: Addresses) -> str:
    """Return the address of a value that the plugin gets. Raises `AddressError` if it has none."""
    if callable(marker.known_by):
        return _address_of_url(recipient, marker.known_by)
    address = recipient if marker.known_by is None else recipient.get(marker.known_by)
    if not isinstance(address, str) or not address:
        raise AddressError(f"a mapping must have its address, a string, under the key `{marker.known_by}`")
    check_text(address)
    return address


def _address_of_url(url: str, known_by: Callable[[str], str]) -> str:
    """Return the address of a URL. No error quotes the URL, because it holds a credential."""
    if len(url) > LONGEST_URL or has_control(url):
        raise AddressError("a URL is too long or has a control character in it")
    try:
        return known_by(url)
    except ValueError as error:
        raise AddressError(str(error)) from None


def _checked(addresses: Iterable[str], marker: Addresses) -> list[str]:
    key = _mailbox if marker.kind == "mail" else _any
    unique: dict[str, str] = {}
    for address in dict.fromkeys(addresses):
        unique.setdefault(key(address), address)
        _check_number(unique)
    return list(unique.values())


def _check_number(addresses: Mapping[str, Any]) -> None:
    if len(addresses) > MOST:
        raise AddressError(f"the field has more than {MOST:,} addresses")


def _any(address: str) -> str:
    check_text(address)
    check_no_group(address)
    return address


def _mailbox(address: str) -> str:
    return mailbox(address).key
