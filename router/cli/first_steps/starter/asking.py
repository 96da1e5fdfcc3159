"""The questions of `init`, on a terminal or answered by options and defaults; floor 7."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import click

from router.cli.common import print_message, wrapped
from router.cli.first_steps.starter import sink_recipes
from router.cli.first_steps.starter.composing import SOURCE, Answers
from router.cli.first_steps.starter.sink_recipes import Question
from router.cli.first_steps.starter.trial import Workbench
from router.config import redis_url
from router.config.models import SOURCES
from router.core.wiring.glob_slips import broken_class
from router.errors import Problem
from router.ops.loading.checking.sinks import IN_CLEAR, unknown_type, url_secrets
from router.ops.loading.reading.nodes import quoted
from router.ops.loading.reading.redis_origin import EMBEDDED, VARIABLE
from router.plugin_contracts import SinkType

DEFAULT_SINK = "log"
_CREDENTIALS = ("password", "ssl_password")


class Given(NamedTuple):
    """The answers given by command-line options; None or empty if the option is missing."""

    redis: str | None
    source: str | None
    channels: Sequence[str]
    sink: str | None
    values: Mapping[str, str]


def unattended(bench: Workbench, given: Given) -> Answers:
    """Return the answers given by options, with defaults for the other questions.

    Raises `click.UsageError` with all faults.
    """
    answers = _of_options(bench, given)
    missing = [each.key for each in _unanswered(answers) if each.default is None]
    if missing:
        settings = " ".join(f"--set {key}=VALUE" for key in missing)
        raise click.UsageError(f"the sink {answers.sink.name} needs more options: {settings}")
    answers = _filled(answers)
    _refuse(answers, bench.faults(answers))
    return answers


def asked(bench: Workbench, given: Given) -> Answers:
    """Return the answers given by options, and ask the user the other questions. A wrong answer repeats the question.

    Raises `click.UsageError` for a wrong option, and `click.Abort` at Ctrl-C or at the end of input.
    """
    answers = _of_options(bench, given)
    if any(given):
        _refuse(answers, _relevant(bench, answers))
    if given.redis is None:
        answers = _ask_redis(bench, answers)
    if given.source is None:
        _explain("How does your app send events? pubsub: by PUBLISH. stream: by XADD. list: by LPUSH.")
        answers = answers._replace(source=_prompt("Source", answers.source, allowed=list(SOURCES)))
    if not given.channels:
        answers = _ask_channels(bench, answers)
    if given.sink is None:
        _explain("Where do events go? Choose the type of the sink.")
        allowed = sorted(name for name, sink in bench.plugins.sinks.items() if not sink.runs_programs)
        named = _prompt("Sink", answers.sink.name, allowed=allowed)
        answers = answers._replace(sink=bench.plugins.sinks[named])
    while questions := _unanswered(answers):
        answers = _until_good(bench, partial(_ask_about_sink, answers, questions[0]))
    while faults := bench.faults(answers):  # a plugin may have rules that the types of its options do not show
        _print_faults(faults)
        answers = _until_read(partial(_ask_setting, answers))
    return answers


def _ask_redis(bench: Workbench, answers: Answers) -> Answers:
    _explain(
        "Where is your Redis? Give its URL, such as redis://localhost:6379, or `embedded` for a server that event-router "
        f"starts itself. Without an answer, the URL in ${VARIABLE} is used if it is set, else an embedded server."
    )
    return _until_good(bench, lambda: _with_redis(answers, _prompt("Redis", answers.redis)))


def _ask_channels(bench: Workbench, answers: Answers) -> Answers:
    what = {"pubsub": "channels", "stream": "streams", "list": "lists"}[answers.source]
    globs = "names, or globs such as orders.*" if answers.source == "pubsub" else "exact names"
    _explain(f"Which {what} does your app use? Give {globs}.")
    known: tuple[str, ...] = ()
    text, default = "Name", answers.channels[0]
    while True:
        answers = _until_good(bench, partial(_ask_channel, answers, known, text, default))
        if answers.channels == known:
            return answers
        known, text, default = answers.channels, "One more (Enter: no more)", ""


def _ask_channel(answers: Answers, known: tuple[str, ...], text: str, default: str) -> Answers:
    """Ask for one more channel. An empty answer adds none."""
    return _with_channels(answers, [*known, *filter(None, [_prompt(text, default)])])


def _print_faults(faults: Sequence[Problem]) -> None:
    for problem in faults:
        print_message(wrapped(f"error: {problem.message}", 2), "error")


def _ask_about_sink(answers: Answers, question: Question) -> Answers:
    text = _prompt(question.text, question.default, allowed=question.allowed)
    return _with_value(answers, question.key, text)


def _ask_setting(answers: Answers) -> Answers:
    key, _, value = _prompt("Another option of the sink, KEY=VALUE", None).partition("=")
    return _with_value(answers, key, value)


def _prompt(text: str, default: str | None, *, allowed: Sequence[str] = ()) -> str:
    choice = click.Choice(allowed) if allowed else None
    answer: str = click.prompt(text, default, type=choice, show_default=bool(default), err=True)
    return answer


def _of_options(bench: Workbench, given: Given) -> Answers:
    """Return the answers given by options, with defaults for the other questions.

    Missing options of the sink get no defaults here.
    """
    answers = Answers(_sink(bench, given.sink or DEFAULT_SINK))
    try:
        answers = answers if given.redis is None else _with_redis(answers, given.redis)
    except ValueError as error:
        raise click.UsageError(f"--redis: {error}") from None
    answers = answers._replace(source=given.source or answers.source)
    try:
        answers = _with_channels(answers, given.channels or answers.channels)
    except ValueError as error:
        raise click.UsageError(f"--channel: {error}") from None
    for key, value in given.values.items():
        try:
            answers = _with_value(answers, key, value)
        except ValueError as error:
            raise click.UsageError(f"--set {key}: {error}") from None
    return answers


def _sink(bench: Workbench, name: str) -> SinkType:
    if name not in bench.plugins.sinks:
        raise click.UsageError(f"--sink: {unknown_type(name, bench.plugins)}")
    sink = bench.plugins.sinks[name]
    if sink.runs_programs:
        raise click.UsageError(
            f"--sink: a sink of type {name} runs programs, and `init` can't allow that. Choose another type, and add "
            "this sink and `allow_commands: true` to the configuration yourself"
        )
    return sink


def _until_good(bench: Workbench, ask: Callable[[], Answers]) -> Answers:
    """Ask until the answers have no fault; print each fault."""
    while True:
        answers = _until_read(ask)
        faults = _relevant(bench, answers)
        if not faults:
            return answers
        _print_faults(faults)


def _until_read(ask: Callable[[], Answers]) -> Answers:
    """Ask until the answer can be parsed."""
    while True:
        try:
            return ask()
        except ValueError as error:
            print_message(wrapped(f"error: {error}", 2), "error")


def _with_redis(answers: Answers, text: str) -> Answers:
    """Return the answers with this Redis URL. A URL with a password is replaced by a variable.

    Raises `ValueError` for an invalid URL.
    """
    text = text.strip()
    _check_text(text)
    if "${" in text or text == EMBEDDED:
        return answers._replace(redis=text, redis_url=None)
    fault = redis_url.fault(text)
    if fault is not None:
        raise ValueError(fault)
    parts = urlsplit(text)
    if parts.password or any(name in parse_qs(parts.query) for name in _CREDENTIALS):
        return answers._replace(redis=f"${{{VARIABLE}}}", redis_url=text)
    return answers._replace(redis=text, redis_url=None)


def _with_channels(answers: Answers, channels: Sequence[str]) -> Answers:
    """Return the answers with these channels, without repetitions.

    Raises `ValueError` for a name that can't be shown, and for a glob that is broken.
    """
    for channel in channels:
        _check_text(channel)
        if not channel:
            raise ValueError("the name of a channel must not be empty")
        broken = broken_class(channel) if answers.source == "pubsub" else None
        if broken is not None:
            raise ValueError(f"{quoted(channel)}: {broken}")
    return answers._replace(channels=tuple(dict.fromkeys(channels)))


def _with_value(answers: Answers, key: str, text: str) -> Answers:
    """Return the answers with an option of the sink. Raises `ValueError` for a secret in clear text."""
    _check_text(text)
    secret = key in sink_recipes.secret_options(answers.sink) and text != ""
    if "${" not in text and (secret or url_secrets(text)):
        raise ValueError(IN_CLEAR)
    return answers._replace(values={**answers.values, key: text})


def _check_text(text: str) -> None:
    if not text.isprintable():
        raise ValueError(
            "the text has a character that can't be printed, or is not UTF-8; write such a text into the file yourself"
        )


def _unanswered(answers: Answers) -> list[Question]:
    return sink_recipes.questions(answers.sink, answers.values)


def _filled(answers: Answers) -> Answers:
    """Return the answers with defaults for all open questions about the sink.

    One default may lead to further questions, which get their defaults too.
    """
    while defaults := {each.key: each.default for each in _unanswered(answers) if each.default is not None}:
        answers = answers._replace(values={**answers.values, **defaults})
    return answers


def _relevant(bench: Workbench, answers: Answers) -> list[Problem]:
    """Return the faults of the answers so far.

    While options of the sink may still be missing, only the faults of the given answers are returned.
    """
    filled = _filled(answers)
    faults = bench.faults(filled)
    if sink_recipes.has_recipe(answers.sink) and not _unanswered(filled):
        return faults
    about = ("redis", f"sources.{SOURCE}", *(f"sinks.{answers.sink_name}.{key}" for key in answers.values))
    return [problem for problem in faults if problem.path.startswith(about)]


def _refuse(answers: Answers, faults: Sequence[Problem]) -> None:
    """Raise `click.UsageError` if there are faults. The error names each fault with the option that it concerns."""
    if faults:
        # One answer may be used in several places of the configuration, each with the same fault.
        lines = dict.fromkeys(f"{_option(answers, each)}{each.message}" for each in faults)
        raise click.UsageError("\n".join(lines))


def _option(answers: Answers, problem: Problem) -> str:
    """Return the command-line option that a fault concerns, as the beginning of a message."""
    path, sink = problem.path, f"sinks.{answers.sink_name}"
    if path.startswith("redis"):
        return "--redis: "
    if path.startswith(("sources", "schemas")):
        return "--channel: "
    if path.startswith(f"{sink}."):
        return f"--set {path.removeprefix(f'{sink}.')}: "
    return "--sink: " if path.startswith(sink) else ""


def _explain(text: str) -> None:
    print_message(wrapped(f"\n{text}", 2, indent=0))
