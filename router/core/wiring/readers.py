"""The source that reads a channel, and the glob by which the source reads it; pure."""

from __future__ import annotations

from collections.abc import Mapping

from router.config.models import SourceConfig
from router.core.matching import glob, is_glob


def reader_of(sources: Mapping[str, SourceConfig], channel: bytes) -> str | None:
    """Return the name of the first source that reads a channel; None if no source reads it."""
    return next((name for name, source in sources.items() if reads(source, channel)), None)


def reads(source: SourceConfig, channel: bytes) -> bool:
    """Return whether a source reads a channel."""
    if source.type == "pubsub":
        return any(glob(each)(channel) for each in source.reads)
    return channel in (each.encode("utf-8", "surrogateescape") for each in source.reads)


def pattern_of(source: SourceConfig, channel: bytes) -> str | None:
    """Return the glob by which a source gets the messages of a channel; None if the source names the channel itself."""
    if source.type != "pubsub":
        return None
    names = {each.encode() for each in source.channels if not is_glob(each)}
    globs = [each for each in source.channels if is_glob(each)] + source.patterns
    return None if channel in names else next((each for each in globs if glob(each)(channel)), None)
