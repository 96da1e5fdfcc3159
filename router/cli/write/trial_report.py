"""The output of `send-test`, for people and as JSON; floor 7."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from router.cli.first_steps.explanation import (
    GREEN,
    RED,
    Line,
    encodable,
    event_document,
    option_lines,
    show_lines,
)
from router.core.accounts.records import LONGEST_ERROR
from router.core.delivery.preparation import shown
from router.core.delivery.retry import requested_delay
from router.engine.calling.accidents import error_text
from router.engine.trial_delivery import Trial
from router.errors import GoneError, PartialError, PermanentError, PluginError, Reason, SinkError
from router.escaping import cut
from router.events import Event
from router.ops.loading import Loaded
from router.ops.redaction import Redactor, plain_options

_OPTION = 8  # columns before an option, as in `explain`
_NEXT = {
    "transient": "the router would retry this delivery",
    "permanent": "the router would not retry this delivery: it would become a dead letter",
    "gone": "the address no longer exists: the router would suppress this delivery",
    "sink": "the failure concerns the whole sink, not only this message: the router would pause all its deliveries",
    "partial": "the other recipients have received the message",
}
"""The action that the daemon would take after a failure, by the class of the failure."""

_BY_THE_EVENT = frozenset({Reason.TEMPLATE, Reason.ADDRESS, Reason.LOOKUP, Reason.NO_ADDRESS, Reason.ONLY_IF})
"""The reasons that depend on the payload. If a message was not sent for one of them, another payload may help."""


class Report:
    """The result of one test message. `sample` is true if the payload of the message is a sample."""

    def __init__(
        self, loaded: Loaded, sink: str, event: Event, trial: Trial, *, sample: bool, redact: Redactor
    ) -> None:
        self._type = loaded.types[sink].name
        self._sink = sink
        self._event = event
        self._trial = trial
        self._sample = sample
        self._redact = redact
        self._to = self._hidden(() if trial.rendered is None else trial.rendered.addresses)
        self._excluded = self._hidden(trial.excluded)

    def document(self) -> dict[str, Any]:
        """Return the result as plain data, without secrets."""
        trial = self._trial
        attempt, rendered = trial.attempt, trial.rendered
        document = {
            "sink": self._sink,
            "type": self._type,
            "event": self._event_document(),
            "sample": self._sample,
            "to": self._to,
            "excluded": self._excluded,
            "rendered": None if rendered is None else encodable(self._options()),
            "delivered": trial.delivered,
            "answer": encodable(self._answer()),
            "seconds": None if attempt is None else round(attempt.seconds, 3),
            "failure": self._failure(),
        }
        sends = self._sends()
        return {**document, "sends": sends} if sends else document

    def _event_document(self) -> dict[str, Any]:
        """Return the event as data, with the payload as it was sent. A secret in the payload is hidden."""
        raw = self._event.raw.decode("utf-8", "backslashreplace")
        hides = self._redact.text(raw) != raw
        if not hides:
            return event_document(self._event)
        return event_document(self._event) | {"payload": encodable(self._redact.value(self._event.payload))}

    def show(self) -> None:
        """Print the result for people, without secrets."""
        show_lines(self._lines())

    def _lines(self) -> Iterator[Line]:
        trial = self._trial
        to = f" to {', '.join(self._to)}" if self._to else ""
        yield Line("sink", f"{self._sink} ({self._type}){to}")
        yield Line("event", f"{self._event.channel}, id {self._event.id}{', the payload is a sample' * self._sample}")
        yield from option_lines("payload", self._redact.text(self._event.raw.decode("utf-8", "backslashreplace")))
        if trial.rendered is not None:
            if self._options():
                yield Line("options", "")
            for key, value in self._options().items():
                if value != self._to:
                    yield from option_lines(key, value)
            if sends := self._sends():
                yield from option_lines("sends", sends)
        if self._excluded:
            yield Line("excluded", f"{', '.join(self._excluded)}: deliver.only does not allow these recipients")
        if (answer := self._answer()) is not None:
            yield Line("answer", answer)
        yield from self._outcome()

    def _outcome(self) -> Iterator[Line]:
        failure, attempt = self._failure(), self._trial.attempt
        if failure is None:
            yield Line("outcome", f"delivered in {attempt.seconds if attempt else 0:.3f} s", GREEN)
            return
        if attempt is None:
            yield Line("outcome", f"not sent ({failure['class']}): {failure['text']}", RED)
            if self._sample and failure["class"] in _BY_THE_EVENT:
                yield Line("", "the payload is a sample: give a suitable payload with --payload FILE")
            return
        what = "" if attempt.opened else "the sink can't be opened: "
        yield Line(
            "outcome", f"failed ({failure['class']}) after {attempt.seconds:.3f} s: {what}{failure['text']}", RED
        )
        if (wait := failure["retry_after"]) is not None:
            yield Line("", f"the service asks the router to wait {wait:g} s")
        nobody = len(failure.get("addresses", ())) == len(self._to) > 0
        yield Line("", "no recipient has received the message" if nobody else _NEXT[failure["class"]])

    def _failure(self) -> dict[str, Any] | None:
        """Return the class and text of the failure, and the failure of each address; None if there was no failure."""
        trial = self._trial
        if trial.not_sent is not None:
            detail = cut(self._redact.text(trial.not_sent.detail), LONGEST_ERROR)
            return {"class": trial.not_sent.kind, "text": detail, "retry_after": None}
        error = None if trial.attempt is None else trial.attempt.error
        if error is None:
            return None
        failure = self._of(error)
        if isinstance(error, PartialError):
            failure["addresses"] = {self._redact.text(key): self._of(each) for key, each in error.failures.items()}
        return failure

    def _of(self, error: Exception) -> dict[str, Any]:
        wait = requested_delay(error)
        return {"class": _class_of(error), "text": error_text(error, self._redact.text), "retry_after": wait}

    def _hidden(self, addresses: tuple[str, ...]) -> list[str]:
        """Return addresses without secrets: an address may come from a file of credentials."""
        return [self._redact.text(address) for address in addresses]

    def _options(self) -> dict[str, Any]:
        assert self._trial.rendered is not None
        options: dict[str, Any] = self._redact.value(plain_options(self._trial.rendered.options))
        return options

    def _sends(self) -> str:
        """Return the sink's preview of its data. It is empty for a message to people: the options show the message."""
        rendered = self._trial.rendered
        return "" if rendered is None or rendered.text else self._redact.text(shown(rendered, self._event))

    def _answer(self) -> str | None:
        answer = None if self._trial.attempt is None else self._trial.attempt.answer
        return None if answer is None else cut(self._redact.text(answer), LONGEST_ERROR)


def _class_of(error: Exception) -> str:
    """Return the class of a failure. Any exception that is not an error of the plugin API counts as transient."""
    if isinstance(error, PartialError):
        return "partial"
    if isinstance(error, SinkError):
        return "sink"
    if isinstance(error, GoneError):
        return "gone"
    return "permanent" if isinstance(error, PermanentError | PluginError) else "transient"
