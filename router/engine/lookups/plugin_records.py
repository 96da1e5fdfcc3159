"""The store of a lookup whose type a plugin registered; floor 5."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from router.core.plugin_signatures import takes_context
from router.engine.calling.slots import contained
from router.errors import PluginError
from router.ops.lookups.one_by_one import OneByOne
from router.plugin_contracts import LookupContext, LookupOptions, LookupType


class PluginRecords:
    """The store of one lookup whose type a plugin registered.

    The constructor raises any exception that the `__init__` of the plugin's class raises.
    """

    def __init__(self, kind: LookupType, options: LookupOptions, context: LookupContext) -> None:
        self._options = options
        self._context = context
        self._made = kind.fetch(options) if isinstance(kind.fetch, type) else None
        self._fetch = kind.fetch
        self._with_context = self._made is None and takes_context(kind.fetch)
        self._one_by_one = OneByOne()
        self._opening = asyncio.Lock()
        self._open = False

    async def fetch_many(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return the plugin's result for each key: the record, None, or an exception. Raises the plugin's errors."""
        if self._made is None:
            return await self._one_by_one.fetch(keys, self._one)
        async with self._opening:
            if not self._open:
                await self._lifecycle("open", self._context)
                self._open = True
        found: Sequence[Any] = await self._called(self._made.fetch_many, list(keys))
        return found

    async def _one(self, key: str) -> Any:
        """Call the plugin's function for one key.

        Return the result of the function, or the exception that it raises.
        """
        more = (self._context,) if self._with_context else ()
        try:
            return await self._called(self._fetch, key, self._options, *more)
        except Exception as error:  # noqa: BLE001  # any exception of the plugin is the failure of this key
            return error

    async def _called(self, function: Callable[..., Any], *args: Any) -> Any:
        if inspect.iscoroutinefunction(function):
            return await contained(function(*args))
        result = await self._context.run_blocking(function, *args)
        if inspect.iscoroutine(result):
            result.close()
            raise PluginError("the plugin returned a coroutine: write `async def` instead of `def`")
        return result

    async def _lifecycle(self, name: str, *args: Any) -> None:
        method = getattr(self._made, name, None)
        if method is not None:
            await self._called(method, *args)

    async def close(self) -> None:
        """Call the plugin's `close`, if it has one."""
        if self._open:
            self._open = False
            await self._lifecycle("close")
