"""The results of a delivery by recipient, for sinks that send one message to each recipient; floor 2, pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from router.core.recent import Recent
from router.errors import GoneError, PartialError, PermanentError, SinkError, TransientError
from router.events import Event

Failure = TransientError | PermanentError | GoneError | SinkError
"""The error of one recipient."""

REMEMBERED_ATTEMPTS = 1_000
"""The largest number of interrupted attempts of one sink that are remembered with their results. An attempt is
interrupted if it was cut off before all recipients were settled.
"""


class RecipientResults:
    """The answers and errors of one delivery's recipients, by address.

    A recipient is settled if it has an answer or an error.
    """

    def __init__(self) -> None:
        self.answers: dict[str, str | None] = {}
        """The service's answer for each recipient that was reached; None if the service sent no answer."""
        self.failures: dict[str, Failure] = {}
        """The error of each recipient that was not reached."""

    def __contains__(self, address: object) -> bool:
        return address in self.answers or address in self.failures

    def __len__(self) -> int:
        return len(self.answers) + len(self.failures)

    async def settle(self, address: str, send: Callable[[], Awaitable[str | None]]) -> Failure | None:
        """Call `send`, and store its answer or its delivery error for the recipient; return the error, if any.

        For a settled recipient, `send` is not called. Any other exception of `send` is raised.
        """
        if address not in self:
            try:
                self.answers[address] = await send()
            except (TransientError, PermanentError, GoneError, SinkError) as error:
                self.failures[address] = error
        return self.failures.get(address)

    @property
    def answer(self) -> str | None:
        """The answers of the recipients as one text for the log; None if no recipient has an answer."""
        return ", ".join(answer for answer in self.answers.values() if answer) or None

    def partial_error(self) -> PartialError:
        """Return the error that names each recipient that was not reached.

        A `SinkError` is replaced by a `TransientError`: only one of several recipients is affected, so the error must
        not hold back the sink.
        """
        return PartialError(
            {
                address: TransientError(str(error), retry_after=error.retry_after)
                if isinstance(error, SinkError)
                else error
                for address, error in self.failures.items()
            }
        )


class Recipients:
    """The results of a sink's deliveries by recipient, including those of attempts that were cut off.

    A timeout, a reload or a shutdown may cut off an attempt when only some of its recipients are settled. The next
    attempt of the same delivery begins with the results of these recipients. So no recipient gets the message twice,
    and no recipient that failed is tried again.
    """

    def __init__(self, most: int = REMEMBERED_ATTEMPTS) -> None:
        self._cut_off = Recent(most)

    @contextmanager
    def attempt(self, event: Event) -> Iterator[RecipientResults]:
        """Yield the results of a delivery for one attempt.

        If the block raises an exception, the results are stored for the next attempt.
        """
        results: RecipientResults = self._cut_off.pop(event.key, None) or RecipientResults()
        try:
            yield results
        except BaseException:  # also if the block was cancelled
            if len(results):
                self._cut_off[event.key] = results
            raise
