"""One call of a lookup's store, with the result for each key or the failure of the whole call; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from router.core.lookups.finding import Answer
from router.core.rendering.sandbox.lookup_records import Record
from router.engine.calling import accidents
from router.errors import DeliveryError, PermanentError, PluginError, TransientError, text_of
from router.ops.logs import redacted
from router.wording import counted

PATIENCE = 10.0
"""Seconds allowed for one call of a store."""

CLOSED = TransientError("the lookup was closed")
"""The failure of a call that was ended by the router."""


class Store(Protocol):
    """The source of a lookup's records."""

    async def fetch_many(self, keys: Sequence[str]) -> Sequence[Mapping[str, Any] | Exception | None]:
        """Return one result for each key: the record, None if the key has no record, or an error if the record can't be
        fetched.

        Raises `TransientError` if the store can't be reached.
        """

    async def close(self) -> None:
        """Close all connections and files of the store."""


class StoreCall:
    """A call of `store` for some keys. The call begins when the object is created, and ends within `PATIENCE` seconds.

    When the call ends, `note(call, answers, failed)` is called. This `answers` is a list of the results, in the order
    of the keys. `failed` is True if the whole call failed. Afterwards, the attribute `answers`, a future, has the results
    by key.
    """

    # A timer and a callback end the call. A second task with a timeout would take longer than a call for a few keys.
    __slots__ = ("_late", "_note", "answers", "keys", "task")

    def __init__(
        self, store: Store, keys: list[str], note: Callable[[StoreCall, Sequence[Answer], bool], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.keys = keys
        self.answers: asyncio.Future[dict[str, Answer]] = loop.create_future()
        self._note = note
        self.task: asyncio.Task[Any] = loop.create_task(store.fetch_many(keys), name="lookup")
        self._late = loop.call_later(PATIENCE, self._give_up, TransientError(f"no answer within {PATIENCE:g} s"))
        self.task.add_done_callback(self._ended)

    def close(self) -> None:
        """End the call, so that all its keys fail. `note` is not called."""
        self._late.cancel()
        self.task.cancel()
        if not self.answers.done():
            self.answers.set_result(dict.fromkeys(self.keys, CLOSED))

    def _give_up(self, failure: TransientError) -> None:
        self.task.cancel()  # a plugin may swallow the cancellation; then its task is abandoned
        self._over([failure] * len(self.keys), failed=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._late.cancel()
        error = CLOSED if task.cancelled() else task.exception()  # `exception` also marks the exception as retrieved
        if self.answers.done():
            return
        if error is None:
            try:
                found = matched(task.result(), self.keys)
            except PluginError as wrong:
                error = wrong
            else:
                self._over([each if type(each) is Record else _answer(each) for each in found], failed=False)
                return
        failure = _failure(error) if isinstance(error, Exception) else CLOSED
        self._over([failure] * len(self.keys), failed=True)

    def _over(self, answers: Sequence[Answer], *, failed: bool) -> None:
        try:
            self._note(self, answers, failed)
        finally:
            self.answers.set_result(dict(zip(self.keys, answers, strict=True)))


def matched(found: Any, keys: Sequence[str]) -> Sequence[Any]:
    """Return the results of a store for these keys.

    Raises `PluginError` if `found` is not a sequence with one result for each key.
    """
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise PluginError(
            f"fetch_many returned a value of type {type(found).__name__}: return a list with one result for each key"
        )
    if len(found) != len(keys):
        raise PluginError(
            f"fetch_many returned {counted(len(found), 'result')} for {counted(len(keys), 'key')}: return one result for each key"
        )
    return found


def _answer(found: object) -> Answer:
    if found is None or isinstance(found, Record):
        return found
    if isinstance(found, Mapping):
        return Record(found)
    if isinstance(found, Exception):
        return _failure(found)
    return PermanentError(f"the record must be a mapping, but it is a value of type {type(found).__name__}")


def _failure(error: Exception) -> DeliveryError:
    """Return a failure as a `DeliveryError` without secrets. An unexpected exception becomes a `TransientError`."""
    if isinstance(error, TransientError):
        return TransientError(redacted(text_of(error)) or "the store can't be reached", retry_after=error.retry_after)
    if isinstance(error, PermanentError | PluginError):
        return PermanentError(redacted(text_of(error)))
    if isinstance(error, DeliveryError):
        return TransientError(redacted(text_of(error)))
    return TransientError(redacted("".join(accidents.described(error))))
