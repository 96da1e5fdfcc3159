"""The time zone of a configuration; floor 2. The module does not import Jinja."""

from __future__ import annotations

from datetime import timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

CHOSEN_UTC = timezone(timedelta(0), "UTC")
"""The time zone UTC, if a template or the configuration names it. It needs no time zone data, which a small system may
lack. It is an object other than `datetime.UTC`. So a time that was converted to UTC can be told from a time in UTC
whose zone nobody chose.
"""

_ZONES = 64  # the size of the cache of time zones; each takes about a kilobyte


@lru_cache(_ZONES)
def zone(name: str) -> tzinfo:
    """Return the time zone of this name. Raises `ValueError` if there is no such time zone."""
    if name == "UTC":
        return CHOSEN_UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name[:64]!r}") from None
