"""Parsing of mail addresses: comma-separated lists, display names and mailboxes; floor 2, pure.

The syntax is RFC 5322 section 3.4, without comments and groups. Text beyond ASCII is allowed as in RFC 6531 section
3.3. Every function takes linear time, because the addresses come from events.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import msgspec

from router.core.matching import any_of
from router.errors import AddressError

LONGEST = 1000
"""The largest number of characters of one address, including its display name."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Python before 3.11.5 matches `(?:a|b)*+` wrongly (CPython issue 106052), so a possessive group has only an atomic group in
# it. `(?>(?:a|b)*)` would be right too, but needs memory for each match: 120 MiB for a text of 1 MiB.
_IN_QUOTES = r'(?:(?>[^"\\]++|\\.))*+'
_QUOTED = re.compile(rf'"{_IN_QUOTES}"', re.DOTALL)
_PART = rf'(?:(?>[^",]++|{_QUOTED.pattern}))*+'
_PARTS = re.compile(rf"({_PART})(?:,|\Z)", re.DOTALL)
_LIST = re.compile(rf"{_PART}(?:(?>,{_PART}))*+", re.DOTALL)
_SHOWN = 80

_ATOM = r"[^\s()<>\[\]:;@\\,.\"]+"
_LOCAL = rf'(?:{_ATOM}(?:\.{_ATOM})*|"{_IN_QUOTES}")'
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Za-z:.]+\])"
_BARE = re.compile(rf"({_LOCAL})@({_DOMAIN})")
_NAMED = re.compile(rf'(?:"({_IN_QUOTES})"\s*|([^"()<>\[\]:;@\\,]*+))<({_LOCAL})@({_DOMAIN})>')
_ESCAPED = re.compile(r"\\(.)")
_LOCAL_OCTETS = 64  # RFC 5321 section 4.5.3.1.1
_MAILBOX_OCTETS = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets


class Mailbox(msgspec.Struct, frozen=True):
    """A mail address: the display name (empty if there is none), and the two parts of the mailbox as written."""

    name: str
    local: str
    domain: str

    @property
    def key(self) -> str:
        """The text by which mailboxes are compared, with the domain in lower case (RFC 5321 section 2.4)."""
        return f"{self.local}@{self.domain.lower()}"


@lru_cache(maxsize=512)  # the router parses the addresses of a delivery, and then the sink parses them again
def mailbox(address: str) -> Mailbox:
    """Parse one mail address. Raises `AddressError` for invalid text."""
    check_text(address)
    if address.endswith(">"):
        found = _NAMED.fullmatch(address)
        quoted_name, plain_name, local, domain = found.groups("") if found else ("", "", "", "")
    else:
        found = _BARE.fullmatch(address)
        quoted_name, plain_name, (local, domain) = "", "", found.groups() if found else ("", "")
    if found is None:
        check_no_group(address)
        cure = "; remove `mailto:`" if address.lower().startswith("mailto:") else ""
        raise refused(address, f"is not a mail address{cure}")
    if len(local.encode()) > _LOCAL_OCTETS or len(f"{local}@{domain}".encode()) > _MAILBOX_OCTETS:
        raise refused(address, "is too long for a mail address")
    return Mailbox(_ESCAPED.sub(r"\1", quoted_name) if quoted_name else plain_name.strip(), local, domain)


def mailboxes(whole: str) -> list[Mailbox]:
    """Parse a comma-separated list of mail addresses. Raises `AddressError` (a `ValueError`) for invalid text."""
    return [mailbox(address) for address in split(whole)]


def split(whole: str) -> list[str]:
    """Return the parts of a comma-separated text, stripped, without empty parts.

    A comma in quotes does not separate parts.
    """
    closed = '"' in whole and _LIST.fullmatch(whole) is not None  # a quote that is never closed is ordinary text
    parts = _PARTS.findall(whole) if closed else whole.split(",")
    return [stripped for part in parts if (stripped := part.strip())]


def check_text(address: str) -> None:
    """Raise `AddressError` for an address of any kind that is too long or has a control character in it."""
    if len(address) > LONGEST:
        raise refused(address, "is too long for an address")
    if _CONTROL.search(address):
        raise refused(address, "has a control character in it")


def check_no_group(address: str) -> None:
    """Raise `AddressError` for the group syntax (`team: a@example.org;`) in an address of any kind."""
    if ";" in _QUOTED.sub("", address):
        raise refused(address, "is a group of addresses; write each address of the group instead")


def has_control(whole: str) -> bool:
    """Return whether a string has a control character in it, which no address may have."""
    return _CONTROL.search(whole) is not None


def refused(address: str, why: str) -> AddressError:
    """Return the error for an address. The text of the error shows the address; its text for the log does not."""
    return AddressError(f"{quoted(address)} {why}", f"an address {why}")


def quoted(address: str) -> str:
    """Return an address for an error: its beginning, with control characters escaped."""
    return repr(address) if len(address) <= _SHOWN else f"{address[:_SHOWN]!r}…"


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that returns whether one of these globs matches the mailbox of a mail address.

    For example, `*@example.org` matches `Jane <jane@EXAMPLE.org>`. Text that is not a mail address is matched as it is,
    because a plugin's options may have addresses of several kinds.
    """
    matches = any_of(map(_lower_domain, patterns))

    def matched(address: str) -> bool:
        with contextlib.suppress(AddressError):
            address = mailbox(address).key
        return matches(address.encode())

    return matched


def _lower_domain(pattern: str) -> str:
    """Return the glob with the domain in lower case. Without an `@` the domain is the text after the last star."""
    head, mark, domain = pattern.rpartition("@" if "@" in pattern else "*")
    return f"{head}{mark}{domain.lower()}" if mark else pattern
