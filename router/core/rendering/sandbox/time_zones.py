"""The time zone of a configuration; floor 2. The module does not import Jinja."""

from __future__ import annotations

from datetime import timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

CHOSEN_UTC = timezone(timedelta(0), "UTC")
"""The time zone UTC, if a template or the configuration names it. It needs no time zone data, which a small system may
lack. It is not the object `datetime.UTC`, which is the zone of a time before any conversion. So the filter `time` can
recognise a time that the filter `local` has converted to UTC, and does not convert it again.
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
