"""The definition of a lookup: its configuration, its compiled key, and the lookups that the key uses; floor 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from router.plugin_contracts import LookupType

if TYPE_CHECKING:
    from router.config.lookups import LookupConfig
    from router.core.lookups.lookup_key import LookupKey


class LookupDefinition(msgspec.Struct, frozen=True):
    """A lookup as configured."""

    name: str
    config: LookupConfig
    key: LookupKey
    needs: frozenset[str]
    """The names of the lookups that the key uses."""
    type: LookupType | None = None
    """The type that a plugin registered; None for a built-in one."""
