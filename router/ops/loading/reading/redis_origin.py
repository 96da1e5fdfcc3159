"""The origin of the URL of the router's own Redis: the file, an environment variable, or neither; floor 4.

If the file has no `redis.url`, it is read as if `redis.url` were `"${REDIS_URL:-embedded}"`. So the URL is expanded,
hidden and shown like any other value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingType

import msgspec

from router.ops.loading.reading.nodes import Entry, Mapping, Mark, Scalar, SourceFile, find

VARIABLE = "REDIS_URL"
EMBEDDED = "embedded"
IMPLIED = f"${{{VARIABLE}:-{EMBEDDED}}}"

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?:\}|:[-?])")


class RedisOrigin(msgspec.Struct, frozen=True):
    """The origin of the URL of the router's own Redis."""

    variable: str | None = None
    """The environment variable in `redis.url`; None if the file contains the URL itself."""
    is_set: bool = False
    """True if the URL is the value of this variable, False if the URL is the default."""
    embedded: bool = False

    def __str__(self) -> str:
        """Return the name of the origin: `$REDIS_URL`, `redis.url`, or `embedded` for the embedded server."""
        if self.embedded:
            return EMBEDDED
        return f"${self.variable}" if self.is_set else "redis.url"

    @property
    def forgotten(self) -> bool:
        """True if the embedded server is used only because a variable is empty or not set."""
        return self.embedded and self.variable is not None and not self.is_set

    def cure(self, url: str = "redis://HOST:6379") -> str:
        """Return the advice how to make the router use the server of this URL, as the rest of a sentence."""
        if self.variable is None:
            return f"write `redis: {{url: {url}}}` into the configuration"
        return f"set {self.variable}={url}"


def imply(root: Mapping, environ: MappingType[str, str]) -> Scalar | None:
    """Add `redis.url` to a tree without this key; return the new scalar, which is not expanded yet."""
    entry = root.entries.get("redis")
    if entry is None or (isinstance(entry.node, Scalar) and entry.node.empty):
        mark = entry.mark if entry else Mark(root.mark.file, 1, 1)
        entry = root.entries["redis"] = Entry(mark, Mapping(mark))
    if not isinstance(entry.node, Mapping) or "url" in entry.node.entries:
        return None
    mark = entry.mark
    if environ.get(VARIABLE):
        mark = Mark(SourceFile(f"${VARIABLE}", root.mark.file.path), 1, 1)
    scalar = Scalar(mark, IMPLIED, IMPLIED)
    entry.node.entries["url"] = Entry(mark, scalar)
    return scalar


def origin(root: Mapping) -> RedisOrigin:
    """Return the origin of the URL in an expanded tree."""
    url = find(root, "redis", "url")
    if not isinstance(url, Scalar):
        return RedisOrigin()
    embedded = url.value == EMBEDDED
    found = _VARIABLE.match(url.text) if url.expanded else None
    return RedisOrigin(found[1], is_set=not url.default, embedded=embedded) if found else RedisOrigin(embedded=embedded)
