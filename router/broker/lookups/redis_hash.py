"""The store of a lookup whose records are hashes in Redis; floor 4."""

from __future__ import annotations

from collections.abc import Sequence

from redis import exceptions as failures

from router.broker.server import answers, client
from router.broker.server.client import Server
from router.broker.server.link import Link
from router.core.rendering.sandbox.lookup_records import Record
from router.errors import PermanentError, TransientError


class RedisHashes:
    """The store that fetches hashes of one server by HGETALL, in a pipeline."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._link = Link(server)

    async def fetch_many(self, keys: Sequence[str]) -> list[Record | Exception | None]:
        """Return one result for each key: the hash, None for a missing key, or the error of the key's command.

        Raises `TransientError` if the server can't be reached or refuses the commands.
        """
        commands = [("HGETALL", key.encode("utf-8", "surrogatepass")) for key in keys]
        try:
            found = await self._link.pipeline(commands, texts=True)
        except Exception as error:  # noqa: BLE001  # `explain` has a message for every error
            raise self._away(error) from None
        return [Record.of_texts(answer) if type(answer) is list and answer else self._other(answer) for answer in found]

    def _away(self, error: Exception) -> TransientError:
        return TransientError(str(client.explain(error, self._server.shown)))

    def _other(self, answer: object) -> Exception | None:
        """Return the error that an answer stands for; None if the answer means that the key does not exist."""
        if not isinstance(answer, failures.ResponseError):
            return None
        if answers.error_text(answer).startswith("WRONGTYPE"):
            return PermanentError("the key is not a hash")
        return self._away(answer)

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()
