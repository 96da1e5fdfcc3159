"""The addresses of a delivery: extracted from an event's values and checked; floor 2."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from router.core.mailboxes import check_no_group, check_text, has_control, mailbox, split
from router.errors import AddressError
from router.options import Addresses

LONGEST_URL = 8192
"""The largest number of characters of a recipient that is a URL."""

_GAP = re.compile(r"[\s,]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

MOST = 1000
"""The largest number of addresses in one field of a delivery. Each may become a delivery with the whole event."""


def urls_in(whole: str) -> list[str]:
    """Return the URLs in a string. White space or commas separate the URLs; a comma may also be part of a URL."""
    found: list[str] = []
    begin = 0
    for gap in _GAP.finditer(whole):
        if gap[0].strip(",") or _SCHEME.match(whole, gap.end()):
            found.append(whole[begin : gap.start()])
            begin = gap.end()
    found.append(whole[begin:].strip(","))
    return [url for url in found if url]


def literal_recipients(whole: str, marker: Addresses) -> Sequence[Any]:
    """Return the recipients in a string of the configuration. Raises `AddressError`."""
    if marker.known_by is None:
        return split(whole)
    if callable(marker.known_by):
        return urls_in(whole)
    from router.core.rendering.rendered_addresses import mappings

    return mappings(whole)


def by_address(found: Iterable[Any], marker: Addresses) -> dict[str, Any]:
    """Return a mapping from the address of each recipient to the value that the plugin gets for it, in order.

    The value is the address itself, or the mapping or URL that has the address. Raises `AddressError` for an address
    that is not of the marker's kind.
    """
    if marker.known_by is None:
        return {address: address for address in _checked(found, marker)}
    unique: dict[str, Any] = {}
    for recipient in found:
        unique.setdefault(address_of(recipient, marker), recipient)
        _check_number(unique)
    return unique


def address_of(recipient: Any, marker: Addresses) -> str:
    """Return the address of a value that the plugin gets. Raises `AddressError` if the value has no address."""
    if callable(marker.known_by):
        return _address_of_url(recipient, marker.known_by)
    address = recipient if marker.known_by is None else recipient.get(marker.known_by)
    if not isinstance(address, str) or not address:
        raise AddressError(f"a mapping must have its address, a string, under the key `{marker.known_by}`")
    check_text(address)
    return address


def _address_of_url(url: str, known_by: Callable[[str], str]) -> str:
    """Return the address of a URL. No error quotes the URL, because the URL contains a credential."""
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
