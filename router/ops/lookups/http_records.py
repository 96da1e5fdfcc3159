"""The store of a lookup whose records are JSON objects on an HTTP server; floor 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from router.contracts import Clock
from router.core.delivery.responses import TEMPORARY, wait_asked
from router.core.rendering.sandbox.lookup_records import Record
from router.errors import DeliveryError, PermanentError, TransientError
from router.ops.http import MAX_BODY
from router.ops.lookups.one_by_one import OneByOne
from router.plugin_contracts import HttpClient, HttpResponse


class HttpRecords:
    """The records of one HTTP lookup: each key is the URL of a record."""

    def __init__(self, client: HttpClient, headers: Mapping[str, str], clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._headers = {"Accept": "application/json", **headers}
        self._one_by_one = OneByOne()

    async def fetch_many(self, keys: Sequence[str]) -> list[Record | Exception | None]:
        """Return one result for each URL: the JSON object, None for HTTP 404, or the error.

        If a response demands a delay (`Retry-After`), the remaining URLs are not requested. Their result is the same
        error.
        """
        asking: list[TransientError] = []

        async def fetched(url: str) -> Record | Exception | None:
            if asking:
                return asking[0]
            found = await self._fetch(url)
            if isinstance(found, TransientError) and found.retry_after is not None:
                asking.append(found)
            return found

        return await self._one_by_one.fetch(keys, fetched)

    async def _fetch(self, url: str) -> Record | Exception | None:
        try:
            return _record(await self._client.request("GET", url, headers=self._headers), self._clock.now())
        except PermanentError as error:
            return error
        except DeliveryError as error:
            # All other delivery errors count as transient. For example, the server may soon get a trusted certificate.
            return error if isinstance(error, TransientError) else TransientError(str(error))

    async def close(self) -> None:
        """Do nothing, because the lookup's context owns the client and closes it."""


def _record(response: HttpResponse, now: float) -> Record | Exception | None:
    status = response.status
    if status == HTTPStatus.NOT_FOUND:
        return None
    if 400 <= status < 500 and status not in TEMPORARY:
        return PermanentError(f"HTTP {status}")
    if not 200 <= status < 300:
        return TransientError(f"HTTP {status}", retry_after=wait_asked(response, now))
    try:
        found = response.json()
    except ValueError as error:
        large = len(response.body) >= MAX_BODY
        return PermanentError(f"the response is larger than {MAX_BODY // 1024} KiB" if large else str(error))
    return Record(found) if isinstance(found, dict) else PermanentError("the response is not a JSON object")
