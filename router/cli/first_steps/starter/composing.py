"""The composition of a first configuration and its schema from the answers; floor 7."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from router.cli.first_steps.starter import sink_recipes
from router.cli.first_steps.test_entry import literal
from router.core.rendering import TemplateEnvironment
from router.core.rendering.sandbox.environments import Sandbox
from router.core.rendering.syntax.checking import parse
from router.core.rendering.syntax.reads import fields_read, paths_read
from router.ops.loading.effective import Block, dump_compact
from router.ops.loading.reading.redis_origin import IMPLIED
from router.options import is_template
from router.plugin_contracts import SinkType

CONFIG = "config.yaml"
SCHEMA = "schemas/event.schema.json"
"""The paths of the written files, relative to their folder."""

SOURCE = "web-app"

LISTED_AS = {"pubsub": "channels", "stream": "streams", "list": "keys"}
"""The key that holds the channels of a source, by its type."""

_MESSAGE = "Your order is on its way!"
_MAILBOX = "jane@example.org"
_WIDTH = 118
"""The largest number of characters in a line of a comment, without its `# `."""

_EXPRESSION = re.compile(r"\$\{(cred:|file:)?([^}:]+)(:-)?[^}]*\}")


class Answers(NamedTuple):
    """The answers from which a configuration is made.

    `redis` is the text that is written as `redis.url`. A URL with a password is not written: then `redis` is a
    variable, and `redis_url` is the URL. `values` are the options of the sink as typed.
    """

    sink: SinkType
    redis: str = IMPLIED
    redis_url: str | None = None
    source: str = "pubsub"
    channels: tuple[str, ...] = ("notification",)
    values: Mapping[str, str] = {}

    @property
    def options(self) -> dict[str, Any]:
        """The options of the sink, with its type."""
        return sink_recipes.options(self.sink, self.values)

    @property
    def sink_name(self) -> str:
        """The name of the sink."""
        return sink_recipes.sink_name(self.sink, self.options)

    @property
    def prints(self) -> bool:
        """True if the configuration gets `deliver: print`, because the sink sends to other machines."""
        return not self.sink.local

    @property
    def credentials(self) -> list[str]:
        """The variables, credentials and files that the secrets of the sink use, in words."""
        return _named(self._secrets)

    @property
    def needed(self) -> list[str]:
        """The variables, credentials and files that the router needs to start, because they have no default."""
        return _named([*self._secrets, self.redis], defaults=False)

    @property
    def _secrets(self) -> list[str]:
        keys = sink_recipes.secret_options(self.sink)
        return [str(value) for key, value in self.options.items() if key in keys]


def _named(texts: list[str], *, defaults: bool = True) -> list[str]:
    """Return the variables, credentials and files that the `${…}` in these texts name.

    Without `defaults`, expressions with a default are left out.
    """
    words = {"": "{}", "cred:": "the credential {}", "file:": "the file {}"}
    found = (each for text in texts for each in _EXPRESSION.findall(text))
    return list(dict.fromkeys(words[kind].format(name) for kind, name, default in found if defaults or not default))


def configuration(answers: Answers, tests: list[dict[str, Any]]) -> str:
    """Return the text of a configuration with these tests."""
    name, channels = answers.sink_name, literal(list(answers.channels))
    source = {"type": answers.source, LISTED_AS[answers.source]: channels}
    sections: list[tuple[str, dict[str, Any]]] = [
        (
            "A first configuration, written by `event-router init`. `event-router check` finds mistakes in it.",
            {"version": 1},
        ),
        (_about_redis(answers), {"redis": Block(url=answers.redis)}),
        ("Where events come from.", {"sources": {SOURCE: source}}),
        (
            "What a payload must look like. An event that does not fit becomes a dead letter.",
            {"schemas": [{"channels": channels, "file": SCHEMA}]},
        ),
        (
            "Where events go. Text in {{ }} is filled in from each event.",
            {"sinks": {name: Block(answers.options)}},
        ),
        (
            "Which event goes where. Without conditions a route takes every event.",
            {"routes": [Block(id="notify", sinks=[name])]},
        ),
        *([(_about_printing(answers), {"deliver": "print"})] if answers.prints else []),
        *([(_ABOUT_TESTS, {"tests": [Block(test) for test in tests]})] if tests else []),
    ]
    return "\n".join(_section(comment, part) for comment, part in sections)


_ABOUT_TESTS = (
    "These tests define what must happen to an event. `event-router test` runs them, and\n"
    "`event-router explain --as-test` writes more of them."
)


def _section(comment: str, part: dict[str, Any]) -> str:
    return "".join(f"# {line}\n" for line in comment.splitlines()) + dump_compact(part)


def _about_redis(answers: Answers) -> str:
    if answers.redis == IMPLIED:
        return "The Redis of $REDIS_URL if this variable is set; else event-router starts its own server."
    if answers.redis == "embedded":
        return "A server that event-router starts itself, for this machine only."
    return "The Redis that events come from, and that stores waiting deliveries."


def _about_printing(answers: Answers) -> str:
    about = f"Show who would get what, and send nothing. Delete this line {when_to_send(answers)}."
    return textwrap.fill(about, _WIDTH, break_long_words=False, break_on_hyphens=False)


def when_to_send(answers: Answers) -> str:
    """Return a clause about the time to remove `deliver: print`, for example `when TELEGRAM_TOKEN is set`."""
    named = answers.credentials
    if answers.sink.name == "email":
        return f"when the addresses in the sink are your own, and {' and '.join(named)} is set if the server wants a password"
    if answers.sink.name == "webpush":
        return (
            f"when {' and '.join(named)} has your key (`vapid --gen` makes one), `vapid_subject` has your address, "
            "and your app publishes the subscriptions of its users' browsers"
        )
    if not named:
        return "when the options of the sink have their final values"
    return f"when {' and '.join(named)} {'are' if len(named) > 1 else 'is'} set"


def tests(answers: Answers, channel: str, expected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return two tests: the sample has the expected result, and an event without a message is rejected."""
    payload = sample(answers)
    broken = {key: value for key, value in payload.items() if key != "message"}
    return [
        {
            "name": f"an event reaches {answers.sink_name}",
            "event": literal({"channel": channel, "payload": payload}),
            "expect": literal(dict(expected)),
        },
        {
            "name": "an event without a message is rejected",
            "event": literal({"channel": channel, "payload": broken}),
            "expect": {"rejected": "schema"},
        },
    ]


def sample(answers: Answers) -> dict[str, Any]:
    """Return a payload with every field that the sink's templates read."""
    payload: dict[str, Any] = {"user_id": 42, "message": _MESSAGE}
    for text, recipient in _templates(answers):
        for path in paths_read(parse(text, _sandbox())):
            names = [step for step in path if isinstance(step, str)]
            if len(names) == len(path):
                _put(payload, names, recipient or (_MAILBOX if "mail" in names[-1] else "hello"))
    return payload


def _put(payload: dict[str, Any], path: list[str], value: Any) -> None:
    """Put a value at a path of the payload, unless the path has a value already, or leads through a string."""
    for name in path[:-1]:
        below = payload.setdefault(name, {})
        if not isinstance(below, dict):
            return
        payload = below
    payload.setdefault(path[-1], value)


def schema(answers: Answers) -> str:
    """Return the JSON Schema of the events. It requires a message and all fields that the sink's templates read."""
    payload = sample(answers)
    required = {
        "message",
        *(read.path[0] for text, _ in _templates(answers) for read in fields_read(parse(text, _sandbox()))),
    }
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event",
        "description": "What the app publishes",
        "type": "object",
        "required": [name for name in payload if name in required],
        "properties": {name: _PROPERTIES.get(name, {"description": "Read by a sink"}) for name in payload},
        "examples": [payload],
    }
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n"


_PROPERTIES: Mapping[str, Mapping[str, Any]] = {
    "user_id": {"description": "Whom it is about", "type": "integer", "minimum": 1},
    "message": {"description": "What people read", "type": "string", "minLength": 1},
}


def _templates(answers: Answers) -> Iterator[tuple[str, Any]]:
    """Yield every template of the sink, with a made-up recipient if the template must give a recipient, else None."""
    for key, value in answers.options.items():
        is_mailbox = answers.sink.name == "email" and key in {"from", "to", "cc", "bcc", "reply_to"}
        recipient = _MAILBOX if is_mailbox else sink_recipes.sample_recipient(answers.sink, key)
        for text in _texts(value):
            if is_template(text):
                yield text, recipient


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


@cache
def _sandbox() -> Sandbox:
    return TemplateEnvironment(timezone="UTC").plain
