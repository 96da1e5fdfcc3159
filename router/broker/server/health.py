"""The health of one component that uses Redis: the reasons of failures, the outages, the delays of retries; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from redis import exceptions as failures

from router.broker.server import client
from router.broker.server.client import Backoff
from router.broker.server.outage import Outage
from router.errors import ConfigError, UnavailableError

Log = Callable[..., object]
"""A function that writes one log line, such as `partial(log.error, "…")`."""


def _silence(**_fields: object) -> None:
    """Log nothing."""


class _Failing(msgspec.Struct):
    """A task after a failed attempt, until its next success."""

    backoff: Backoff
    reason: str | None = None


class Health:
    """The health of one component: whether it can use the server at `address`, judged by its attempts.

    `begins` is called when an outage begins, and for each new reason. `ends` is called when the outage is over. A
    component may use Redis in several tasks. The outage is over when each failed task has received an answer from
    Redis. If components share one `outage`, it is logged only once. A component without an `outage` logs nothing. The
    delays between the attempts of a task grow from the first to the second value of `delays`, in seconds.
    """

    def __init__(
        self,
        address: str,
        outage: Outage | None = None,
        *,
        begins: Log = _silence,
        ends: Log = _silence,
        delays: tuple[float, float] = (0.1, 2.0),
    ) -> None:
        self.address = address
        self._outage = outage
        self._begins = begins
        self._ends = ends
        self._delays = delays
        self._failing: dict[str, _Failing] = {}

    @property
    def reason(self) -> str | None:
        """The reason why Redis can't be used; None while it can be used."""
        return next((task.reason for task in reversed(self._failing.values()) if task.reason is not None), None)

    def failed(self, error: BaseException | str, task: str = "", **fields: object) -> float:
        """Record a failed attempt of a task; return the seconds to wait before the next attempt.

        The end of a connection does not prove an outage, because the server may have closed an idle connection. If
        a task fails for the first time because its connection ended, the result is 0, and no reason is set. The failure
        counts only if the next attempt fails too.
        """
        reason = error if isinstance(error, str) else str(client.explain(error, self.address))
        ended = isinstance(error, failures.ConnectionError | ConnectionError)
        failing = self._failing.get(task)
        again_at_once = ended and failing is None
        if failing is None:
            failing = self._failing[task] = _Failing(self.backoff())
        if not again_at_once:
            failing.reason = reason
        if self._outage is not None and self._outage.failed(reason, (id(self), task), ended=ended):
            fault = None if isinstance(error, str) else client.unexpected(error)
            self._begins(reason=reason, **fields, **({} if fault is None else {"exc_info": fault}))
        return 0.0 if again_at_once else failing.backoff.next()

    def succeeded(self, task: str = "", **fields: object) -> bool:
        """Record that Redis has answered a task; return True if this ends an outage that was logged."""
        if self._failing.pop(task, None) is None or self._outage is None:
            return False
        seconds = self._outage.succeeded((id(self), task))
        if seconds is not None:
            self._ends(outage_seconds=round(seconds, 3), **fields)
        return seconds is not None

    def backoff(self) -> Backoff:
        """Return a new `Backoff` with the delays of this component."""
        return Backoff(*self._delays)

    def dismiss(self, task: str) -> None:
        """Forget a failing task that has ended: such a task will never report a success."""
        self._failing.pop(task, None)
        if self._outage is not None:
            self._outage.dismiss((id(self), task))


async def reach(
    attempt: Callable[[], Awaitable[object]],
    health: Health,
    *,
    who: str,
    within: float | None,
    waiting: Callable[[str], None] | None,
) -> None:
    """Call `attempt` until it succeeds; call `waiting` with the reason of each failure.

    `within` is the time limit in seconds (None: no limit). `who` is the name of the component in errors. Raises
    `UnavailableError` when the time is over, and `ConfigError` at once for a failure that an operator must remedy.
    """
    try:
        async with asyncio.timeout(within) as limit:
            while True:
                try:
                    await attempt()
                except ConfigError:
                    raise
                except Exception as error:
                    if limit.expired():  # redis-py may turn the cancellation by the timeout into one of its own errors
                        raise TimeoutError from error
                    failure = client.explain(error, health.address)
                    if isinstance(failure, ConfigError):
                        raise failure from error
                    delay = health.failed(error)
                    if waiting is not None:
                        waiting(str(failure))
                    await asyncio.sleep(delay)
                else:
                    health.succeeded()
                    return
    except TimeoutError as error:
        why = health.reason or f"{health.address}: no answer in time"
        raise UnavailableError(f"{why} ({who}, tried for {within:g} s)") from error
