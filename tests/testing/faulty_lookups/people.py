"""Lookups that ask an HTTP store: a good one as a function and as a class, and others with one fault each."""

import asyncio
import contextlib
import json
import time

from router.api import LookupOptions, Secret, TransientError, hookimpl


class Options(LookupOptions):
    base: str
    token: Secret = Secret("hidden-token-1234")


async def ask(key, options, context):
    token = options.token.get_secret_value()
    answer = await context.http.request("GET", f"{options.base}/{key}", headers={"Authorization": token})
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise TransientError(f"HTTP {answer.status}")
    return answer.json()


async def good(key, options, context):
    return await ask(key, options, context)


class Good:
    def __init__(self, options):
        self.options = options

    async def open(self, context):
        self.context = context

    async def fetch_many(self, keys):
        return [await self.one(key) for key in keys]

    async def one(self, key):
        try:
            return await ask(key, self.options, self.context)
        except Exception as error:  # noqa: BLE001  # the failure of this key
            return error

    async def close(self):
        pass


class WrongLength(Good):
    """Leaves the keys without a record out."""

    async def fetch_many(self, keys):
        return [found for found in await super().fetch_many(keys) if found is not None]


class WrongOrder(Good):
    """Gives the records in the order of the store, by its keys."""

    async def fetch_many(self, keys):
        return await super().fetch_many(sorted(keys))


async def accident(key, options, context):
    """Takes an answer of an unavailable store for a record."""
    try:
        return await ask(key, options, context)
    except TransientError:
        return {}["name"]


async def swallow(key, options, context):
    """Takes an unavailable store for one without the record."""
    try:
        return await ask(key, options, context)
    except TransientError:
        return None


async def text(key, options, context):
    """Gives the record as text."""
    found = await ask(key, options, context)
    return None if found is None else json.dumps(found)


async def raises_for_missing(key, options, context):
    found = await ask(key, options, context)
    if found is None:
        raise KeyError(key)
    return found


class Blocks(Good):
    async def open(self, context):
        await super().open(context)
        time.sleep(1)  # noqa: ASYNC251  # the fault


async def stays(key, options, context):
    """Goes on when it is cancelled."""
    try:
        return await ask(key, options, context)
    except asyncio.CancelledError:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)


async def tells(key, options, context):
    context.log.info("asking", token=options.token.get_secret_value())
    return await ask(key, options, context)


async def ascii_only(key, options, context):
    key.encode("ascii")
    return await ask(key, options, context)


class LeavesTask(Good):
    async def open(self, context):
        await super().open(context)
        self.refreshing = asyncio.create_task(asyncio.sleep(3600))


@hookimpl
def register_lookups(register):
    fetches = (good, Good, WrongLength, WrongOrder, accident, swallow, text, raises_for_missing)
    for fetch in (*fetches, Blocks, stays, tells, ascii_only, LeavesTask):
        register(fetch.__name__, fetch, options=Options)
