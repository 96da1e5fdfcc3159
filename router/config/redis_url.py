"""The URL of a Redis server: what is wrong with one, and how it is shown; floor 1, pure.

Apart from redis-py, whose import takes longer than everything else that checks a configuration. No text made here quotes
a part of a URL that may be a password.
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

ENCODED = " (in a password `#` is written %23, `/` %2F, `@` %40, `?` %3F, `%` %25)"
"""How the signs are written that would end a password too early."""


NO_SUCH_NAME = "the encoding of file names has no such name; set LC_ALL=C.UTF-8"


def nameable(path: str) -> bool:
    """Return whether a file can have this path, in the encoding that the locale has for the names of files."""
    try:
        path.encode(sys.getfilesystemencoding(), "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def fault(url: str) -> str | None:
    """Return what is wrong with a URL and how it is written, None when nothing is."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"this is no URL: after the host comes a port, a number from 1 to 65535{ENCODED}"
    scheme = parts.scheme
    if scheme not in SCHEMES or not url.startswith(f"{scheme}://"):
        return "a Redis URL begins with redis://, rediss:// or unix://"
    if parts.fragment or "#" in url:
        return f"this URL can't be read{ENCODED}"
    if port == 0:
        return "the port must be a number from 1 to 65535"
    if scheme == "unix":
        if parts.path in {"", "/"}:
            return "a unix:// URL needs the path of the socket: unix:///run/redis/redis.sock?db=0"
        if not nameable(unquote(parts.path)):
            return NO_SUCH_NAME
    elif not parts.hostname:
        return f"the host is missing: {scheme}://HOST:6379/0"
    elif parts.path.strip("/") and not re.fullmatch(r"/\d{1,9}", parts.path):
        return f"after the `/` comes the database, a number: {scheme}://HOST:6379/0{ENCODED}"
    return _options_fault(parts.query, scheme)


def _options_fault(query: str, scheme: str) -> str | None:
    """Return what is wrong with the options behind the `?`, None when nothing is."""
    allowed = ["db", *SECONDS, *(TLS_OPTIONS if scheme == "rediss" else ())]
    for name, values in parse_qs(query, keep_blank_values=True).items():
        if name not in allowed and name not in CREDENTIALS:
            return f"unknown option {name!r} in the URL, allowed: {', '.join(allowed)}"
        if len(values) > 1:
            return f"the option `{name}` stands in the URL twice"
        if name == "db" and not re.fullmatch(r"\d{1,9}", values[0]):
            return "`db` is the database, a number: ?db=0"
        if name in SECONDS and not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", values[0]):
            return f"`{name}` is a number of seconds: ?{name}=5"
    return None


def shown(url: str) -> str:
    """A Redis URL without its credentials and options, for logs and messages."""
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
