"""The faults of a Redis URL, and its form without secrets; floor 1, pure.

The module does not use redis-py, whose import takes longer than the whole check of a configuration. No message quotes a
part of a URL that could be a password.
"""

from __future__ import annotations

import re
import sys
from urllib.parse import parse_qs, unquote, urlsplit

SCHEMES = ("redis", "rediss", "unix")
SECONDS = ("socket_timeout", "socket_connect_timeout")
CREDENTIALS = ("username", "password")
TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_keyfile",
    "ssl_min_version",
    "ssl_password",
)

_TO_ENCODE = {"[": "%5B", "]": "%5D", "/": "%2F", "?": "%3F", "#": "%23"}
"""The percent-encoding of characters that can't be in a user name or a password."""

ENCODED = " (in a password `#` is written %23, `/` %2F, `@` %40, `?` %3F, `%` %25)"
"""The percent-encoding of characters that would end a password too early."""


NO_SUCH_NAME = "the path has characters that the locale can't encode in file names; set LC_ALL=C.UTF-8"


def nameable(path: str) -> bool:
    """Return whether the path can be encoded in the locale's encoding of file names."""
    try:
        path.encode(sys.getfilesystemencoding(), "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def fault(url: str) -> str | None:
    """Return the fault of a URL with its correction, or None."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return misread(url) or _badly_placed(url)
    scheme = parts.scheme
    if scheme not in SCHEMES or not url.startswith(f"{scheme}://"):
        return "a Redis URL must begin with redis://, rediss:// or unix://"
    if parts.fragment or "#" in url:
        return misread(url) or f"this URL can't be read{ENCODED}"
    if port == 0:
        return "the port must be a number from 1 to 65535"
    if scheme == "unix":
        if parts.path in {"", "/"}:
            return "the path of the socket is missing: write unix:///run/redis/redis.sock?db=0"
        if not nameable(unquote(parts.path)):
            return NO_SUCH_NAME
    elif not parts.hostname:
        return misread(url) or f"the host is missing: write {scheme}://HOST:6379/0"
    elif parts.path.strip("/") and not re.fullmatch(r"/\d{1,9}", parts.path):
        return misread(url) or f"the number of the database must follow the `/`: write {scheme}://HOST:6379/0{ENCODED}"
    return _options_fault(parts.query, scheme)


def misread(url: str) -> str | None:
    """Return the fault of a URL whose user name or password contains a delimiter of URLs, such as `/`; None otherwise.

    The URL may have any scheme.
    """
    credentials = url.partition("://")[2].rpartition("@")[0]
    sign = next((sign for sign in credentials if sign in _TO_ENCODE), None)
    if sign is None:
        return None
    return f"write a `{sign}` in the user name or the password as {_TO_ENCODE[sign]}; otherwise the user name or the password ends at this sign"


def _badly_placed(url: str) -> str:
    """Return the fault of a URL that can't be parsed, for a cause other than `misread`."""
    rest = url.partition("://")[2]
    credentials, _, host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    if "[" in host or "]" in host:
        return "this is not a URL: write an IPv6 address in brackets, such as [::1]"
    if not credentials.isascii():
        return "this is not a URL: percent-encode all characters of a user name or password that are not ASCII"
    return f"this is not a URL: the port after the host must be a number from 1 to 65535{ENCODED}"


def _options_fault(query: str, scheme: str) -> str | None:
    """Return the fault of the options after the `?`, or None."""
    allowed = ["db", *SECONDS, *(TLS_OPTIONS if scheme == "rediss" else ())]
    for name, values in parse_qs(query, keep_blank_values=True).items():
        if name not in allowed and name not in CREDENTIALS:
            return f"the URL has the unknown option {name!r}; the allowed options are {', '.join(allowed)}"
        if len(values) > 1:
            return f"the option `{name}` appears twice in the URL"
        if name == "db" and not re.fullmatch(r"\d{1,9}", values[0]):
            return "`db` must be the number of the database: write ?db=0"
        if name in SECONDS and not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", values[0]):
            return f"`{name}` must be a number of seconds: write ?{name}=5"
    return None


def shown(url: str) -> str:
    """Return a Redis URL without its credentials and options, for logs and messages."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme
        if scheme not in SCHEMES or parts.fragment:
            return f"{scheme}://…" if scheme in SCHEMES else "…"
        if scheme == "unix":
            return f"unix://{parts.path}"
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
        return f"{scheme}://{host}:{parts.port or 6379}{parts.path.rstrip('/')}"
    except ValueError:
        return "…"


def database(url: str) -> str:
    """Return the number of the database that a sound URL names; an empty string if it names none."""
    parts = urlsplit(url)
    named = parse_qs(parts.query).get("db")
    if named:
        return named[0]
    return "" if parts.scheme in {"unix", ""} else parts.path.strip("/")


def server(url: str) -> str:
    """Return the address of the server that a sound URL names. Different names of the same address give the same result.

    `localhost`, `127.0.0.1` and `[::1]` count as the same, and so do `redis://` and `rediss://`.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"}:
        return unquote(parts.path)
    host = (parts.hostname or "").rstrip(".")
    return f"{'localhost' if host in _LOOPBACK else host}:{parts.port or 6379}"


_LOOPBACK = ("localhost", "127.0.0.1", "::1")
