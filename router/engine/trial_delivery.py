"""The delivery of a marked test message to one sink, without a queue, retries, books or dead letters; floor 5.

The command `send-test` sends the message in its own process. The message is prepared like a delivery of the daemon,
with the sink's own templates and the lookups that these templates use.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from router.broker.server.client import Server, server
from router.config.lookups import RedisHashConfig
from router.config.models import DeliverOnly
from router.contracts import Clock
from router.core.delivery.preparation import AllowedAddresses, Refused, Rules, prepare
from router.core.lookups.dependencies import in_order
from router.core.rendering import Rendered, compile_options
from router.core.rendering.adjustments import destinations_of_event, marked, readdressed, restricted
from router.core.rendering.sandbox.lookup_records import NO_RECORDS, Records
from router.engine.calling.accidents import error_text
from router.engine.composition import plugin_of
from router.engine.composition_lookups import lookups_of
from router.engine.delivery.single_attempt import AttemptResult, SingleAttempt
from router.engine.runtime import Runtime
from router.errors import ConfigError, Problem, Reason, RouterError, TransientError, UnavailableError, text_of
from router.events import Event
from router.ops.loading import Loaded
from router.ops.logs import redacted

MARK = "[test]"
"""The mark at the beginning of each text of a test message that people read."""

ORIGIN = "send-test"
"""The name of the source, and of the route, of a test message."""


class NoRecipientError(RouterError):
    """The error for a recipient that can't be replaced: the sink has no recipient, or the new recipient is empty."""


class NotSent(msgspec.Struct, frozen=True):
    """The decision to make no attempt.

    `kind` is `only` if `deliver: {only: …}` allows no recipient. Otherwise, `kind` is the reason for which the daemon
    would make no attempt.
    """

    kind: str
    detail: str


class Trial(msgspec.Struct, frozen=True):
    """The result of sending a test message. Either `not_sent` or `attempt` is None.

    `rendered` has the options and the recipients; it is None if no attempt was made. `excluded` are the recipients that
    `deliver: {only: …}` does not allow; `rendered` does not contain them.
    """

    rendered: Rendered | None = None
    excluded: tuple[str, ...] = ()
    not_sent: NotSent | None = None
    attempt: AttemptResult | None = None

    @property
    def delivered(self) -> bool:
        """True if the sink has delivered the message."""
        return self.attempt is not None and self.attempt.error is None


def with_recipient(loaded: Loaded, name: str, address: str) -> Loaded:
    """Return a copy of the configuration in which the sink `name` writes to the recipient `address`.

    Raises `NoRecipientError` if the sink has no recipient, or if `address` contains no recipient. Raises
    `TemplateFaults` for an invalid address.
    """
    sink = loaded.config.sinks[name]
    options = readdressed(sink.options, [address])
    if options is None:
        raise NoRecipientError(f"the sink {name} ({loaded.types[name].name}) has no recipient that can be replaced")
    sinks = {**loaded.config.sinks, name: sink.model_copy(update={"options": options})}
    template = compile_options(options, loaded.environment.with_lookups)
    if not template.literal_recipients:
        raise NoRecipientError("this text contains no recipient")
    config = loaded.config.model_copy(update={"sinks": sinks})
    return replace(loaded, config=config, templates={**loaded.templates, (name, None): template})


class TrialDelivery:
    """A test message to the sink `name`.

    `redis_url` returns the URL of the router's own Redis, or raises `UnavailableError`. The function is called only if
    the sink or one of its lookups uses this server.
    """

    def __init__(self, name: str, loaded: Loaded, redis_url: Callable[[], str], clock: Clock) -> None:
        self._name = name
        self._loaded = loaded
        self._redis_url = redis_url
        self._clock = clock
        self._timeout = loaded.config.sinks[name].host.timeout
        self._template = loaded.templates[name, None]
        # If the recipient is literal, the operator has chosen it, so `only_if` is ignored. If the recipient comes from
        # the event, `only_if` is evaluated, because the recipient may be a person who does not want messages.
        options = loaded.config.sinks[name].options
        self._only_if = loaded.only_if.get((name, None)) if destinations_of_event(options) else None
        self._unavailable: UnavailableError | None = None
        """The error if the plugin has requested the router's own Redis, but its URL can't be found; else None."""

    async def send(self, event: Event) -> Trial:
        """Send the message of an event and return the result.

        Raises `UnavailableError` if the router's own Redis or the store of a lookup can't be reached. Raises `ConfigError` for
        an invalid URL, or if an object of the plugin's class can't be created.
        """
        if any(target.url is None for target in self._loaded.config.sinks[self._name].options.redis_targets):
            self._redis_url()
        prepared = await self._prepared(event)
        if isinstance(prepared, NotSent):
            return Trial(not_sent=prepared)
        rendered, excluded = self._allowed(prepared)
        if isinstance(rendered, NotSent):
            return Trial(excluded=excluded, not_sent=rendered)
        caller, context = plugin_of(self._name, self._loaded, self._clock, self._server)
        try:
            made = await SingleAttempt(caller, self._timeout, self._clock).make(event, rendered.options)
        finally:
            await context.close()
        if self._unavailable is not None and made.error is not None:
            raise UnavailableError(f"the sink {self._name} uses the router's Redis, but {self._unavailable}")
        return Trial(rendered, excluded, attempt=made)

    async def _prepared(self, event: Event) -> Rendered | NotSent:
        """Return the rendered and marked options, or the decision to make no attempt.

        If a text can't be rendered, no attempt is made, even if the daemon would send the event's JSON line instead.
        """
        now = self._clock.now()
        records = await self._records(event, now)

        def find(_event: Event, _names: frozenset[str], _now: float) -> Records:
            if isinstance(records, Exception):
                raise records
            return records

        prepared = prepare(event, Rules(self._template, None, self._only_if), now, find)
        if isinstance(prepared, Refused):
            return NotSent(prepared.reason, prepared.detail)
        if prepared.degraded:
            return NotSent(Reason.TEMPLATE, prepared.degraded)
        try:
            return msgspec.structs.replace(prepared, options=marked(prepared.options, MARK))
        except Exception as error:  # noqa: BLE001  # the plugin may have its own code for escaping a text
            return NotSent(Reason.TEMPLATE, error_text(error, redacted))

    async def _records(self, event: Event, now: float) -> Records | Exception:
        """Return the records of the lookups that the sink uses, or the error that explains why they are missing."""
        names = self._template.names if self._only_if is None else self._template.names | self._only_if.names
        known = self._loaded.lookups
        wanted = frozenset(names & known.keys())
        if not wanted:
            return NO_RECORDS
        used = [
            name for group in in_order({name: each.needs for name, each in known.items()}, wanted) for name in group
        ]
        keys = [known[name].config.keys for name in used]
        needs_redis = any(isinstance(each, RedisHashConfig) and each.url is None for each in keys)
        own = self._redis_url() if needs_redis else ""
        runtime = Runtime(ORIGIN, own, None, _ignore, _ignore, self._clock)
        lookups = lookups_of(replace(self._loaded, lookups={name: known[name] for name in used}), runtime)
        try:
            [found] = await lookups.find([event], [wanted], now)
        finally:
            await lookups.close()
        if isinstance(found, TransientError):
            raise UnavailableError(redacted(text_of(found)))
        return found

    def _allowed(self, rendered: Rendered) -> tuple[Rendered | NotSent, tuple[str, ...]]:
        """Restrict a message to the recipients that `deliver: {only: …}` allows.

        Return the message and the excluded recipients. If no recipient is allowed, the decision to make no attempt is
        returned in place of the message.
        """
        deliver = self._loaded.config.deliver
        if not isinstance(deliver, DeliverOnly) or self._loaded.types[self._name].local:
            return rendered, ()
        parted = AllowedAddresses(deliver.only).split(rendered, mail=self._template.mail)
        if parted is None:
            return rendered, ()
        allowed, excluded = parted
        if not allowed:
            globs = ", ".join(deliver.only)
            no_address = f"allows only the addresses {globs}, but this sink has no addresses"
            why = f"allows only {globs}" if excluded else no_address
            return NotSent("only", f"deliver.only {why}"), tuple(excluded)
        options = restricted(rendered.options, allowed)
        return msgspec.structs.replace(rendered, options=options, addresses=tuple(allowed)), tuple(excluded)

    def _server(self, url: str | None) -> Server:
        """Return the Redis server of a URL, for the context of the plugin.

        If `url` is None, return the router's own Redis. Raises `ConfigError` if the URL can't be found.
        """
        try:
            own = self._redis_url() if url is None else url
        except UnavailableError as error:
            self._unavailable = error
            raise ConfigError([Problem(str(error))]) from None
        return server(own, client_name=f"event-router:{ORIGIN}:sink:{self._name}")


def _ignore(_text: str) -> None:
    """Do nothing, because nothing has to be reported during a test message."""
