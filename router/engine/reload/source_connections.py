"""The connections of new and changed sources, which a reload makes before the new configuration takes effect; floor 5."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from router.engine.parts import SourcePart
from router.errors import ConfigError, Problem, RouterError, UnavailableError
from router.ops.loading import Loaded

AGAIN = 0.1
"""Seconds between two cancellations of the same task."""


class UnreachableError(RouterError):
    """Raised if sources can't be connected.

    `problems` has the reasons, and the places of the sources in the configuration.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


async def connect(
    steps: Mapping[str, Callable[[], Awaitable[None]]],
    sources: Mapping[str, SourcePart],
    loaded: Loaded,
    limit: float,
) -> None:
    """Execute the steps that connect sources, all at the same time, in at most `limit` seconds.

    `steps` has one step for each source, by the name of the source. Raises `UnreachableError` or `ConfigError`.
    """
    tasks = [asyncio.create_task(_run(step, name, loaded)) for name, step in steps.items()]
    if not tasks:
        return
    try:
        async with asyncio.timeout(limit):
            await asyncio.gather(*tasks)
    except TimeoutError:
        late = [name for name, task in zip(steps, tasks, strict=True) if not task.done() or task.cancelled()]
        why = {name: sources[name].source.reason or "no answer" for name in late or steps}
        problems = [loaded.placed(f"{text}, tried for {limit:g} s", "sources", name) for name, text in why.items()]
        raise UnreachableError(problems) from None
    finally:
        await cancel_all(tasks)


async def _run(step: Callable[[], Awaitable[None]], source: str, loaded: Loaded) -> None:
    """Execute a step for a source. Add the place of the source in the configuration to the errors of the step."""
    try:
        await step()
    except ConfigError as error:
        raise ConfigError([loaded.placed(problem.message, "sources", source) for problem in error.problems]) from error
    except UnavailableError as error:
        raise UnreachableError([loaded.placed(str(error), "sources", source)]) from error


async def cancel_all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks again and again until all have ended: redis-py may swallow a cancellation (see `link.cancelled`)."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks the exception as retrieved; it was raised where the task was awaited
