"""The sweep of the replay stream: removes dead letters that were replayed and acknowledged; floor 4."""

from __future__ import annotations

import asyncio
import contextlib

from router.broker.dead_letters.dead_letter_store import GROUP
from router.broker.server import keys
from router.broker.server.client import Server
from router.broker.server.link import Link, Script
from router.broker.server.repeating import Repeating

EVERY = 1.0
"""Seconds until the next sweep if the last sweep removed nothing; otherwise the next sweep follows at once."""

# Removes acknowledged entries, at most a thousand per call. The group has read these entries, and they are not pending.
# KEYS: the replay stream. ARGV: the group. Answer: the number of removed entries.
SWEEP = Script("""
if redis.call('XLEN', KEYS[1]) == 0 then return 0 end
local last
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #row, 2 do group[row[i]] = row[i + 1] end
  if group.name == ARGV[1] then last = group['last-delivered-id'] end
end
if not last then return 0 end
local pending = {}
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', last, 10000)) do pending[row[1]] = true end
local over = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', last, 'COUNT', 11000)) do
  if not pending[entry[1]] and #over < 1000 then over[#over + 1] = entry[1] end
end
if #over > 0 then redis.call('XDEL', KEYS[1], unpack(over)) end
return #over
""")


class ReplaySweep:
    """Removes replayed letters at intervals, from `start` to `close`.

    The sweep logs no failures, because the source that reads the replay stream logs them.
    """

    def __init__(self, server: Server, *, prefix: str) -> None:
        self._stream = keys.replay(prefix)
        self._link = Link(server)
        self._repeating = Repeating("replays: sweep", self._sweep, EVERY)

    def start(self) -> None:
        """Start sweeping."""
        self._repeating.start()

    async def close(self, patience: float) -> None:
        """Sweep once more, within `patience` seconds, and stop.

        A later sweep of any router removes the entries that are left.
        """
        await self._repeating.close()
        if patience:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(patience):
                    await self._sweep()
        await self._link.close()

    async def _sweep(self) -> float | None:
        removed = await self._link.script(SWEEP, [self._stream], [GROUP])
        return 0.0 if removed else None
