"""The check whether a sink may connect to an address: only public addresses are allowed; floor 2, pure.

A URL can name the same machine in many ways. So the check decodes every notation of an address first:

- IPv4 in IPv6 (RFC 4291 section 2.5.5), 6to4 (RFC 3056) and NAT64 (RFC 6052)
- the numbers that `inet_aton` reads as IPv4 (`127.1`, `0x7f000001`, `017700000001`, `2130706433`)
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_VISIBLE = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def private_address(address: str) -> bool:
    """Return whether an IP address, as returned by a resolver or a socket, is not public.

    Loopback, link-local, private, shared (CGNAT), reserved, documentation and multicast ranges count as private. Text
    that is not an address counts as private too.
    """
    try:
        return not _public(ip_address(address))
    except ValueError:
        return True


def private_host(host: str) -> bool:
    """Return whether the host of a URL, as written, is a private address or this machine's own name.

    For any other name than `localhost`, the result is False: the addresses of a name are checked when the router
    connects.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    literal = _literal(name)
    return literal is not None and not _public(literal)


def is_header_name(name: str) -> bool:
    """Return whether a string can be the name of an HTTP header: a token, RFC 9110 section 5.6.2."""
    return _TOKEN.fullmatch(name) is not None


def url_fault(url: str, *, allow_private: bool) -> str | None:
    """Return the fault of a URL in the configuration; None if the URL can be requested.

    The text does not quote the URL. It is the end of a sentence, such as "`url` is not an http:// or https:// URL". A
    private address as host is a fault if `allow_private` is false.
    """
    if url and not _VISIBLE.fullmatch(url):
        return (
            "has a space, a control character or a letter outside ASCII; percent-encode it (write a host name as xn--…)"
        )
    try:
        parts = urlsplit(url)
        host, good = parts.hostname or "", parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        host, good = "", False
    if not good or not host:
        return "is not an http:// or https:// URL"
    if not allow_private and private_host(host):
        return f"leads to {host}, a private address; set `allow_private: true` on the sink"
    return None


def _public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    if address.ipv4_mapped:
        return _public(address.ipv4_mapped)
    if address.sixtofour:
        return _public(address.sixtofour)
    if address in _NAT64:
        return _public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _UNICAST and address.is_global


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    with suppress(ValueError):
        return ip_address(host)
    with suppress(ValueError):
        return _numeric(host)
    return None


def _numeric(host: str) -> IPv4Address:
    """Return an IPv4 address as inet_aton(3) reads it: one to four numbers.

    The last number fills all remaining bytes.
    """
    *firsts, last = [_number(part) for part in host.split(".")]
    if len(firsts) > 3 or any(first > 255 for first in firsts) or last >= 256 ** (4 - len(firsts)):
        raise ValueError(host)
    return IPv4Address(sum(first << (24 - 8 * place) for place, first in enumerate(firsts)) + last)


def _number(text: str) -> int:
    if not (text.isascii() and text.isalnum()):
        raise ValueError(text)
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)
