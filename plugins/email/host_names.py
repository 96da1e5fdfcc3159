"""The check of an option that must be a host name, without a scheme, port or path."""

from __future__ import annotations

import re

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?(?P<host>\[[^\]]*\]|[^:/?#]*)")
_WITH_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]+):(?P<port>[0-9]+)")


def host_name(value: object) -> object:
    """Return the value unchanged if it may be a host name or an IP address. Raises `ValueError` otherwise.

    The error names the correction. It never quotes a URL, because a URL may contain a password.
    """
    if not isinstance(value, str):
        return value
    url = _URL.match(value)
    if url is not None:
        raise ValueError(f"is a URL, but must be a host name{_write(url['host'])}")
    with_port = _WITH_PORT.fullmatch(value)
    if with_port is not None:
        raise ValueError(
            f"has a port, which must be given as a separate option{_write(with_port['host'])} and port: {with_port['port']}"
        )
    if re.search(r"[\s/?#@]", value):
        raise ValueError("is not a host name; write the name or the IP address alone, such as smtp.example.org")
    return value


def _write(host: str) -> str:
    name = host.removeprefix("[").removesuffix("]")
    return f"; write {name}" if name else ""
