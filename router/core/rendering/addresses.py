"""What is an address: comma lists taken apart, and what is none refused; floor 2.

The syntax of a mailbox is RFC 5322 section 3.4 with the text beyond ASCII of RFC 6531 section 3.3, without comments and
without the group syntax of RFC 5322.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from router.core.rendering.values import Missing, text
from router.errors import AddressError
from router.options import Addresses

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Linear whatever comes: an open quote takes the rest, and nothing is tried twice.
_TOKEN = re.compile(r'(?P<quoted>"(?:[^"\\]|\\.)*+")|(?P<open>".*)|(?P<comma>,)|[^",]+', re.DOTALL)
_SHOWN = 80
_LONGEST = 1000  # a display name and a mailbox

_ATOM = r"[^\s()<>\[\]:;@\\,.\"]+"
_LOCAL = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[^"\\]|\\.)*")'
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Za-z:.]+\])"
_BARE = re.compile(rf"{_LOCAL}@{_DOMAIN}")
_NAMED = re.compile(rf'(?:"(?:[^"\\]|\\.)*"|[^"()<>\[\]:;@\\,]*)\s*<({_LOCAL}@{_DOMAIN})>')
_LOCAL_OCTETS = 64  # RFC 5321 section 4.5.3.1.1
_MAILBOX_OCTETS = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets


def value_text(value: Any) -> str:
    """The text of an event's value inside an address. Raises `AddressError` for one with a control character.

    The template's own line ends are layout; a value's would be a header of its own.
    """
    whole = text(value)
    if _CONTROL.search(whole):
        raise AddressError(f"{quoted(whole)} has a control character in it")
    return whole


def listed(value: Any) -> list[str]:
    """The parts of a whole value, as a sole `{{ … }}` gives it: text or a number, a list of those, nothing for null.

    Raises `AddressError` for anything else.
    """
    if isinstance(value, Missing):
        str(value)  # raises
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return split(value_text(value))
    if value is None:
        return []
    if isinstance(value, Mapping | bool) or not isinstance(value, Iterable):
        raise AddressError(f"{_kind(value)} is no address")
    found: list[str] = []
    for item in value:
        if isinstance(item, list | tuple):
            raise AddressError("a list within a list is no address")
        found.extend(listed(item))
    return found


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "true or false" if isinstance(value, bool) else f"a {type(value).__name__}"


def split(whole: str) -> list[str]:
    """A comma list taken apart, each part stripped, without empty ones; a comma within quotes stays."""
    parts = whole.split(",") if '"' not in whole else _split_quoted(whole)
    return [stripped for part in parts if (stripped := part.strip())]


def _split_quoted(whole: str) -> list[str]:
    parts = [""]
    for token in _TOKEN.finditer(whole):
        if token["open"]:
            return whole.split(",")  # no quoted text at all
        if token["comma"]:
            parts.append("")
        else:
            parts[-1] += token[0]
    return parts


def _unquoted(whole: str) -> str:
    return "".join(token[0] for token in _TOKEN.finditer(whole) if not token["quoted"])


def checked(addresses: Iterable[str], marker: Addresses) -> list[str]:
    """The addresses in order, each once. Raises `AddressError` for the first that is none of the marker's kind."""
    key = _mailbox if marker.kind == "mail" else _any
    unique: dict[str, str] = {}
    for address in addresses:
        unique.setdefault(key(address), address)
    return list(unique.values())


def _any(address: str) -> str:
    if _CONTROL.search(address):
        raise AddressError(f"{quoted(address)} has a control character in it")
    if len(address) > _LONGEST:
        raise AddressError(f"{quoted(address)} is too long for an address")
    if ";" in address and ";" in _unquoted(address):
        raise AddressError(f"{quoted(address)} is a group, write the addresses themselves")
    return address


def _mailbox(address: str) -> str:
    """The mailbox, by which two addresses are the same: the domain's case says nothing (RFC 5321 section 2.4)."""
    _any(address)
    named = _NAMED.fullmatch(address) if address.endswith(">") else None
    mailbox = named[1] if named else address
    if named is None and not _BARE.fullmatch(address):
        raise AddressError(f"{quoted(address)} is no mail address")
    local, _, domain = mailbox.rpartition("@")
    if len(local.encode()) > _LOCAL_OCTETS or len(mailbox.encode()) > _MAILBOX_OCTETS:
        raise AddressError(f"{quoted(address)} is too long for a mail address")
    return f"{local}@{domain.lower()}"


def quoted(address: str) -> str:
    """An address as an error shows it: its beginning, control characters escaped."""
    return repr(address) if len(address) <= _SHOWN else f"{address[:_SHOWN]!r}…"
