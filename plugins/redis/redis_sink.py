"""The redis sink: makes a command from each event, and sends the commands of a batch together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.api import Event, PermanentError, RedisClient, Result, Sink, SinkContext, SinkError, TransientError

from .redis_options import RedisOptions

Pair = tuple[Event, RedisOptions]
Words = tuple[str | bytes | int, ...]


LARGEST = 4 * 1024**2
"""The number of bytes after which a new pipeline begins. Each pipeline must be done within the timeout of one call."""

_HALF = "the key or the value contains half of a character (a lone surrogate), which UTF-8 can't represent"


class RedisSink(Sink):
    """Sends each batch as one pipeline, or a large batch as several. A failed command fails only its own delivery."""

    _redis: RedisClient | None = None

    def __init__(self, options: RedisOptions) -> None:
        self._options = options

    async def open(self, context: SinkContext) -> None:
        """Create the client of the server; nothing is sent."""
        url = self._options.url
        self._redis = context.redis if url is None else context.redis_at(url)

    async def deliver_batch(self, batch: Sequence[Pair]) -> list[Result]:
        """Send the commands of a batch. For each delivery, return the reply of the server, or the error."""
        if self._redis is None:  # `deliver: print` opens the sink too, but delivers nothing
            raise SinkError("there is no Redis server to write to")
        results: list[Result] = [None] * len(batch)
        fault: Exception | None = None
        for pipeline in _pipelines(batch, results):
            try:
                answers = [fault] * len(pipeline) if fault else await self._redis.pipeline(list(pipeline.values()))
            except (TransientError, SinkError) as error:
                # The server is unreachable: keep the results so far, and do not try the other pipelines.
                fault = error
                answers = [fault] * len(pipeline)
            for place, answer in zip(pipeline, answers, strict=True):
                results[place] = answer if isinstance(answer, Exception) else answer_text(pipeline[place][0], answer)
        return results


def _pipelines(batch: Sequence[Pair], results: list[Result]) -> Iterator[dict[int, Words]]:
    """Yield the pipelines of a batch.

    Each pipeline maps the index of a delivery in the batch to the delivery's command.

    If a command can't be sent, the error of its delivery is stored in `results`.
    """
    commands: dict[int, Words] = {}
    size = 0
    for place, (event, options) in enumerate(batch):
        try:
            commands[place] = words(event, options)
        except UnicodeEncodeError:
            results[place] = PermanentError(_HALF)
            continue
        size += len(event.raw if options.template is None else options.template)
        if size >= LARGEST:
            yield commands
            commands, size = {}, 0
    if commands:
        yield commands


def words(event: Event, options: RedisOptions) -> Words:
    """Return the command of a delivery. Raises `UnicodeEncodeError` for a lone surrogate."""
    command = options.command
    key = getattr(options, command).encode()
    value = event.raw if options.template is None else options.template.encode()
    if command != "xadd":
        return command.upper(), key, value
    bound: Words = () if options.maxlen is None else ("MAXLEN", options.maxlen)
    return "XADD", key, *bound, "*", "payload", value, "key", event.key.encode("utf-8", "backslashreplace")


def answer_text(command: str | bytes | int, answer: bytes | int) -> str:
    """Return the server's reply as text: the id of the entry, the number of subscribers, or the length of the list."""
    if isinstance(answer, bytes):
        return answer.decode()
    what = "subscriber" if command == "PUBLISH" else "item"
    return f"{answer} {what}{'s' * (answer != 1)}"
