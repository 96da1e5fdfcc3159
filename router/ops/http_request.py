"""The parts of an HTTP request as they are sent: headers, body, URL, credentials; floor 4.

A wrong part means that the delivery can never succeed, so every function raises `PermanentError`. No error contains a
URL, because a URL may be a credential.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from router.core.egress import is_header_name
from router.errors import PermanentError
from router.version import __version__

if TYPE_CHECKING:
    import yarl
    from multidict import CIMultiDict

MAX_HEADER = 8 * 1024
"""The largest number of bytes in the value of a header. Common servers refuse longer values."""

_DEFAULTS = {"User-Agent": f"event-router/{__version__}", "Accept-Encoding": "identity"}
_WRITTEN = re.compile(r"[!-~]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_is_header_name = lru_cache(1000)(is_header_name)


def checked(headers: Mapping[str, str] | None, *, is_json: bool) -> CIMultiDict[str]:
    """Return the headers to send. Raises `PermanentError` for a name or a value that is not allowed.

    `headers` may replace the default headers, which name the program and ask for uncompressed responses.
    """
    from multidict import CIMultiDict  # noqa: PLC0415  # comes with aiohttp, whose import takes long

    fields = CIMultiDict(_DEFAULTS)
    if is_json:
        fields["Content-Type"] = "application/json"
    for name, value in (headers or {}).items():
        if not _is_header_name(name):
            raise PermanentError(f"{name[:50]!r} is not a valid name of a header")
        if fault := _header_fault(value):
            raise PermanentError(f"the header {name} {fault}")
        fields[name] = value
    return fields


def _header_fault(value: str) -> str | None:
    """Return the reason why a string can't be the value of a header (RFC 9110 section 5.5); None if it can be the
    value.

    Values are sent as UTF-8.
    """
    if len(value) <= MAX_HEADER and value.isascii() and value.isprintable():
        return None
    if found := _CONTROL.search(value):
        return f"has a control character in it (U+{ord(found[0]):04X})"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "has half of a surrogate pair in it"
    return f"is longer than {MAX_HEADER // 1024} KiB" if size > MAX_HEADER else None


def encoded(value: Any) -> bytes:
    """Return a body as JSON. Raises `PermanentError` for a value that can't be encoded."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        raise PermanentError("the body can't be encoded as JSON") from None


def parsed(text: str, what: str) -> tuple[yarl.URL, dict[str, str]]:
    """Return a URL without its credentials, and the credentials as a header (RFC 7617).

    `what` names the URL in messages. Raises `PermanentError` for an invalid URL; the error does not contain the URL.
    """
    import yarl  # noqa: PLC0415  # comes with aiohttp, whose import takes long

    if not _WRITTEN.fullmatch(text.strip()):
        raise PermanentError(f"{what} is empty, or has a space, a control character or a letter outside ASCII")
    try:
        url = yarl.URL(text.strip(), encoded=True)
        good = url.scheme in {"http", "https"} and bool(url.raw_host) and url.port
    except (ValueError, TypeError):
        good = False
    if not good:
        raise PermanentError(f"{what} is not an http:// or https:// URL")
    if url.user is None and url.password is None:
        return url, {}
    pair = f"{url.user or ''}:{url.password or ''}".encode()
    return url.with_user(None), {"Authorization": f"Basic {b64encode(pair).decode()}"}


def with_defaults(fields: CIMultiDict[str], defaults: Mapping[str, str]) -> CIMultiDict[str]:
    """Return a copy of the headers `fields`, to which the missing headers of `defaults` are added."""
    whole = fields.copy()
    for name, value in defaults.items():
        whole.setdefault(name, value)
    return whole


def through(proxy: str | None, target: yarl.URL, fields: CIMultiDict[str]) -> dict[str, Any]:
    """Return aiohttp's arguments for the proxy.

    An `http://` target needs no CONNECT request, so the proxy's credentials are added to `fields`.
    """
    if proxy is None:
        return {}
    url, authorization = parsed(proxy, "the proxy's URL")
    credentials = {f"Proxy-{name}": value for name, value in authorization.items()}
    if target.scheme == "http":
        fields.update(credentials)
    return {"proxy": url, "proxy_headers": credentials}
