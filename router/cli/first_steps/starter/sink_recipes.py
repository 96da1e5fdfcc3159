"""The questions of `init` about each type of sink, and the options written for the answers; floor 7.

The built-in types have recipes. For a plugin's type, `init` asks for each required option of its model.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin

import yaml
from pydantic import SecretStr

from router.config.models import HostKeys
from router.ops.loading.reading import shapes
from router.options import Addresses, is_template
from router.plugin_contracts import SinkType

_USER = "{{ payload.user_id }}"
_MESSAGE = "{{ payload.message }}"
_TEAM = "ops@example.org"

_BOT_ALONE = frozenset({"telegram"})
"""Chat services without webhooks."""

_EITHER = frozenset({"slack", "discord", "mattermost"})
"""Chat services with webhooks and bots."""


_KEYS_OF_A_BROWSER = {
    "keys": {
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    }
}
"""The keys of a push subscription: the example of RFC 8291, appendix A."""


class Question(NamedTuple):
    """A question about an option of a sink: the option's key, the text of the question, and the default.

    If `allowed` is empty, any value is allowed.
    """

    key: str
    text: str
    default: str | None = None
    allowed: tuple[str, ...] = ()


Values = Mapping[str, str]
"""The answers by key, as typed."""


class _Recipe(NamedTuple):
    """The questions about a type of sink, and the options that are written with the answers."""

    questions: Callable[[SinkType, Values], Iterator[Question]]
    options: Callable[[SinkType, Values], dict[str, str]]


def questions(kind: SinkType, values: Values) -> list[Question]:
    """Return the open questions about a sink. The answers so far decide which questions apply."""
    return [each for each in _recipe(kind).questions(kind, values) if each.key not in values]


def options(kind: SinkType, values: Values) -> dict[str, Any]:
    """Return the options of a sink for the configuration, with its type. An option with an empty answer is left out."""
    written = {**_recipe(kind).options(kind, values), **values}
    converted = {key: _converted(kind, key, text) for key, text in written.items() if text}
    return {"type": kind.name, **converted}


def sink_name(kind: SinkType, written: Mapping[str, Any]) -> str:
    """Return the name for a sink with these options. For chat and mail, the name begins with `user-` or `team-`."""
    if kind.name not in {"email", "chat"}:
        return {"log": "audit"}.get(kind.name, kind.name)
    reach = "user" if is_template(str(written.get("to", ""))) else "team"
    return f"{reach}-{'mail' if kind.name == 'email' else 'chat'}"


def sample_recipient(kind: SinkType, key: str) -> Any:
    """Return a made-up recipient for an option with recipients that are not plain addresses; None for other options."""
    shape = _shapes(kind).get(key)
    for leaf in () if shape is None else shapes.leaves(shape):
        if isinstance(leaf, Addresses) and isinstance(leaf.known_by, str):
            return {leaf.known_by: "https://push.example.org/hello", **_KEYS_OF_A_BROWSER}
        if isinstance(leaf, Addresses) and leaf.known_by is not None:
            return "json://localhost"
    return None


def has_recipe(kind: SinkType) -> bool:
    """Return whether the type has a recipe. The questions of a recipe cover everything that the sink needs."""
    return kind.name in _RECIPES


def secret_options(kind: SinkType) -> frozenset[str]:
    """Return the keys of the options that are secrets."""
    return frozenset(key for key, shape in _shapes(kind).items() if shapes.anywhere(shape, shapes.is_secret))


def _shapes(kind: SinkType) -> dict[str, shapes.Shape]:
    """Return the types of the keys of a sink, including the keys that every sink has."""
    fields = {**shapes.fields(HostKeys), **shapes.fields(kind.options)}
    return {key: shapes.of_field(field) for key, field in fields.items()}


def _converted(kind: SinkType, key: str, text: str) -> Any:
    """Return the value for a typed text: the text itself for an option with a string, else the parsed JSON or YAML."""
    shape = _shapes(kind).get(key)
    if shape is None or _takes_text(shape):
        return text
    with contextlib.suppress(ValueError):
        return json.loads(text)
    if text.startswith(("[", "{")) and not text.startswith("{{"):  # without quotes, as in YAML: `[a, b]`
        with contextlib.suppress(yaml.YAMLError):
            return yaml.safe_load(text)
    return text


def _takes_text(shape: shapes.Shape) -> bool:
    return shapes.is_template(shape) or any(
        get_origin(leaf) is Literal or (isinstance(leaf, type) and issubclass(leaf, str | SecretStr))
        for leaf in shapes.leaves(shape)
    )


def _allowed(kind: SinkType, key: str) -> tuple[str, ...]:
    """Return the allowed values of an option; empty if any value is allowed."""
    literals = [leaf for leaf in shapes.leaves(_shapes(kind)[key]) if get_origin(leaf) is Literal]
    return tuple(str(value) for leaf in literals for value in get_args(leaf))


def _recipe(kind: SinkType) -> _Recipe:
    return _RECIPES.get(kind.name, _OF_PLUGIN)


def _log_questions(_kind: SinkType, values: Values) -> Iterator[Question]:
    if "target" not in values:
        yield Question("path", "The file that gets one line for each event", "audit.jsonl")


def _email_questions(_kind: SinkType, _values: Values) -> Iterator[Question]:
    yield Question("host", "The mail server", "localhost")
    yield Question("from", "The sender", "shop@example.org")
    yield Question("to", "The recipient: an address, or a template such as {{ payload.email }}", _TEAM)


def _email_options(_kind: SinkType, values: Values) -> dict[str, str]:
    password = "${SMTP_PASSWORD:-none}" if "username" in values else "${SMTP_PASSWORD:-}"
    asked = dict.fromkeys(("host", "from", "to"), "")  # these keys come first in the file
    return {**asked, "password": password, "subject": "News for you", "text": _MESSAGE}


def _chat_questions(kind: SinkType, values: Values) -> Iterator[Question]:
    yield Question("service", "The chat service", "telegram", _allowed(kind, "service"))
    service = values.get("service", "")
    if service in _BOT_ALONE:
        yield Question("to", "Who gets the message: a chat id, or a template", _USER)
    elif service in _EITHER and not values.keys() & {"url", "token"}:
        yield Question("to", "Who gets the bot's message: a channel, a user or a template (empty: use a webhook)", "")
    if service == "mattermost" and _by_bot(values):
        yield Question("api", "The address of your server", "https://chat.example.org")


def _by_bot(values: Values) -> bool:
    return values.get("service") in _BOT_ALONE or bool(values.get("to") or values.get("token"))


def _chat_options(_kind: SinkType, values: Values) -> dict[str, str]:
    service = values.get("service", "")
    variable = service.replace("-", "_").upper()
    if _by_bot(values):
        way = {"token": f"${{{variable}_TOKEN:-none}}", "to": ""}
    else:
        way = {"url": f"${{{variable}_WEBHOOK_URL:-https://hooks.example.org/none}}"}
    return {"service": "", **way, "text": _MESSAGE}


def _plugin_questions(kind: SinkType, _values: Values) -> Iterator[Question]:
    for key, field in shapes.fields(kind.options).items():
        shape = shapes.of_field(field)
        if field.is_required() and not shapes.is_secret(shape):
            default = _template(key, shape) if shapes.is_template(shape) else None
            yield Question(key, field.description or f"The option {key}", default, _allowed(kind, key))


def _template(key: str, shape: shapes.Shape) -> str:
    """Return the default template for an option of a plugin.

    For recipients, it gives the user. For recipients that are mappings, it gives the payload's field with the name of
    the option. For any other option, it gives the message.
    """
    for leaf in shapes.leaves(shape):
        if isinstance(leaf, Addresses) and leaf.known_by is not None:
            return f"{{{{ payload.{key} }}}}"
        if isinstance(leaf, Addresses) or (isinstance(leaf, type) and issubclass(leaf, Addresses)):
            return _USER
    return _MESSAGE


def _plugin_options(kind: SinkType, _values: Values) -> dict[str, str]:
    """Return the required secrets, each as a variable."""
    secret = secret_options(kind)
    required = (key for key, field in shapes.fields(kind.options).items() if field.is_required() and key in secret)
    return {key: f"${{{_variable(kind.name, key)}}}" for key in required}


def _variable(*words: str) -> str:
    joined = "_".join(words).upper()
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in joined)


def _webhook_questions(_kind: SinkType, _values: Values) -> Iterator[Question]:
    yield Question("url", "The address that gets a request for each event", "https://hooks.example.org/events")


def _redis_questions(_kind: SinkType, values: Values) -> Iterator[Question]:
    if not values.keys() & {"xadd", "lpush", "rpush"}:
        yield Question("publish", "The channel that each event is published on", "copies.{{ event.channel }}")


def _webpush_questions(_kind: SinkType, _values: Values) -> Iterator[Question]:
    yield Question(
        "subscriptions",
        "The browsers: a template that gives their push subscriptions",
        "{{ payload.subscriptions }}",
    )
    yield Question("vapid_subject", "Where push services reach you: mailto: and an address", f"mailto:{_TEAM}")


def _webpush_options(_kind: SinkType, _values: Values) -> dict[str, str]:
    asked = dict.fromkeys(("subscriptions", "vapid_subject"), "")  # these keys come first in the file
    return {**asked, "vapid_private_key": "${file:private_key.pem}", "title": "News for you", "text": _MESSAGE}


def _nothing(_kind: SinkType, _values: Values) -> dict[str, str]:
    return {}


_OF_PLUGIN = _Recipe(_plugin_questions, _plugin_options)
_RECIPES: Mapping[str, _Recipe] = {
    "log": _Recipe(_log_questions, _nothing),
    "email": _Recipe(_email_questions, _email_options),
    "chat": _Recipe(_chat_questions, _chat_options),
    "webhook": _Recipe(_webhook_questions, _nothing),
    "redis": _Recipe(_redis_questions, _nothing),
    "webpush": _Recipe(_webpush_questions, _webpush_options),
}
