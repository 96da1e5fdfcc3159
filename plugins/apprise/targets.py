"""The text that is shown for a URL of Apprise. Nearly every part of such a URL may be a credential."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

from router.api import is_placeholder

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_BETWEEN = re.compile(r"[/:@?&=,;#]+")
_SHORTEST = 4
"""The length, in characters, of the shortest part of a URL that is hidden in texts. Shorter parts may occur in ordinary
words."""


def address_of(url: str) -> str:
    """Return the address of a URL: its service and a digest. Raises `ValueError`; the error does not quote the URL."""
    scheme, _, rest = url.partition("://")
    if not rest or not _SCHEME.fullmatch(scheme):
        raise ValueError(
            "not an Apprise URL: write the name of a service, `://` and the rest, such as tgram://TOKEN/CHAT"
        )
    if is_placeholder(url):
        return url  # the digest of an unknown URL would have no use
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{scheme.lower()}://{digest[:8]}"


def hidden(text: str, url: str) -> str:
    """Return a text from Apprise on one line, in which `***` replaces each part of the URL after the scheme."""
    parts = {part for part in _BETWEEN.split(url.partition("://")[2]) if len(part) >= _SHORTEST}
    for part in sorted({url, *parts, *map(unquote, parts)}, key=len, reverse=True):
        text = text.replace(part, "***")
    return " ".join(text.split())
