"""The webhook sink: one request for each event, or for each batch of events."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from router.api import (
    Event,
    HttpClient,
    PermanentError,
    Recent,
    Result,
    Sink,
    SinkContext,
    SinkError,
    TransientError,
    is_template,
)

from . import bodies
from .client_certificates import tls_context
from .signatures import Signer, message_id
from .verdicts import judge
from .webhook_options import Auth, WebhookOptions

REMEMBERED_EVENTS = 10_000

MOST_REQUESTS = 64
"""The maximum number of requests for one batch. A refused batch is halved repeatedly to find the refused events."""

Pairs = Sequence[tuple[Event, WebhookOptions]]

_NONE: frozenset[str] = frozenset()


class WebhookSink(Sink):
    """Sends each event in its own request.

    With `batch_as`, events of a batch that have the same URL and headers share a request.
    """

    deliver_batch: Callable[[Pairs], Awaitable[list[Result]]]
    """The method for batches. It is set only with `batch_as`, because the router passes batches to every sink that
    has this method."""

    _context: SinkContext
    _http: HttpClient

    def __init__(self, options: WebhookOptions) -> None:
        self._options = options
        # The URL of the sink, if it is not a template. A 404 from this URL concerns the whole sink. A 404 from a
        # rendered URL, or from the URL of a route, concerns only one delivery.
        self._literal_url = None if is_template(options.url) else options.url
        self._signer = Signer(options.signing_secrets, options.hmac_secret)
        self._credentials = {} if options.auth is None else _authorization(options.auth)
        # The results of batches that the timeout interrupted. The next attempt does not send these events again.
        self._known = Recent(REMEMBERED_EVENTS)
        if options.batch_as is not None:
            self.deliver_batch = self._deliver_batch

    async def open(self, context: SinkContext) -> None:
        """Store the HTTP client; nothing is sent."""
        self._context = context
        certificate = self._options.client_certificate
        self._http = context.http if certificate is None else context.http_with(tls_context(certificate))

    async def deliver(self, event: Event, options: WebhookOptions) -> str:
        """Send one event.

        Return the status of the response, and the service's id of the event if the response has one.
        """
        return await self._send([(event, options)])

    async def _deliver_batch(self, pairs: Pairs) -> list[Result]:
        """Send a batch, with one request for each combination of URL and headers; return the result of each event.

        A single event may cause the refusal of a request with many events. So a refused group of events is halved until
        this event is found, and the other events are delivered.
        """
        results: dict[int, Result] = {}
        groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = {}
        for place, (event, options) in enumerate(pairs):
            if event.key in self._known:
                results[place] = self._known.pop(event.key)
            else:
                groups.setdefault((options.url, tuple(options.headers.items())), []).append(place)
        try:
            await self._send_groups(pairs, deque(groups.values()), results)
        except asyncio.CancelledError:
            for place, result in results.items():
                if isinstance(result, str | PermanentError):
                    self._known[pairs[place][0].key] = result
            raise
        return [results[place] for place in range(len(pairs))]

    async def _send_groups(self, pairs: Pairs, waiting: deque[list[int]], results: dict[int, Result]) -> None:
        """Send groups of events, with one request per group, and store the results.

        A group in `waiting` is a list of positions in the batch.
        """
        left = MOST_REQUESTS
        while waiting:
            places = waiting.popleft()
            result: Result
            try:
                if not left:
                    raise TransientError("not sent yet: too many events of this batch were refused", retry_after=0.0)
                left -= 1
                result = await self._send([pairs[place] for place in places])
            except PermanentError as error:
                if len(places) > 1:
                    half = len(places) // 2
                    waiting.extendleft([places[half:], places[:half]])
                    continue
                result = error
            except (TransientError, SinkError) as error:
                result = error
                if isinstance(error, SinkError) or error.retry_after is not None:
                    places = [*places, *(place for group in waiting for place in group)]
                    waiting.clear()
            results.update(dict.fromkeys(places, result))

    async def _send(self, pairs: Pairs) -> str:
        """Send events in one request, with the URL and headers of the first event.

        Return a short text about the response. Raises the delivery error if the service refuses the events.
        """
        events, rendered = zip(*pairs, strict=True)
        options: WebhookOptions = rendered[0]
        literal = options.url == self._literal_url
        if not literal:
            _check_path(options.url)
        body = bodies.make(events, rendered)
        content = b"" if body is None else body.content
        now = self._context.clock.now()
        message = message_id(event.key for event in events)
        own = {name.lower() for name in options.headers} if options.headers else _NONE
        fields = {} if body is None or "content-type" in own else {"Content-Type": body.kind}
        if "webhook-id" not in own:
            fields["webhook-id"] = message
        if body is not None:
            fields |= body.headers
        fields |= options.headers
        fields |= self._credentials
        fields |= self._signer.headers(message, content, now)
        data = None if body is None else content
        response = await self._http.request(options.method, options.url, data=data, headers=fields)
        return judge(response, options, now=self._context.clock.now(), literal_url=literal)


def _authorization(auth: Auth) -> dict[str, str]:
    """Return the header with the credentials (RFC 6750, RFC 7617)."""
    if auth.bearer is not None:
        return {"Authorization": f"Bearer {auth.bearer.get_secret_value().strip()}"}
    password = "" if auth.password is None else auth.password.get_secret_value()
    pair = f"{auth.username}:{password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _check_path(url: str) -> None:
    """Refuse a path with a segment `.` or `..`. Such a segment comes from a value, and would lead to another path."""
    if not {".", ".."}.isdisjoint(urlsplit(url).path.split("/")):
        raise PermanentError("a value puts a segment `.` or `..` into the path of `url`")
