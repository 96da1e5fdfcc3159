"""The context of a lookup; floor 5."""

from __future__ import annotations

import structlog

from router.contracts import Clock
from router.engine.calling.context import PluginContext
from router.engine.calling.threads import DaemonThreads
from router.ops.http import GuardedClient

THREADS = 4
"""The largest number of threads of one lookup, for blocking functions."""


class LookupTools(PluginContext):
    """Implements `plugin_contracts.LookupContext` for one lookup."""

    def __init__(self, name: str, *, clock: Clock, proxy: str = "", allow_private: bool = False) -> None:
        super().__init__(
            name,
            clock=clock,
            log=structlog.stdlib.get_logger("router.lookup").bind(lookup=name),
            threads=DaemonThreads(f"lookup {name}", THREADS),
            make_http=lambda tls: GuardedClient(
                proxy=proxy, ssl_context=tls, allow_private=allow_private, owner="lookup"
            ),
        )
