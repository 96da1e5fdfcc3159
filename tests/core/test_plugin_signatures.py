"""The parameters of what a plugin registers are judged when it is loaded."""

import functools

import pytest

from router.core.plugin_signatures import wrong_lookup_parameters, wrong_parameters


def third(event, options, context): ...


@functools.wraps(third)
def injecting(event, options):
    return third(event, options, None)


class Opaque:
    """A callable that does not show its parameters."""

    @property
    def __signature__(self):
        raise ValueError("no signature")

    def __call__(self, *args): ...


def decorated(method):
    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        return method(*args, "more", **kwargs)

    return wrapper


class Good:
    async def open(self, context): ...

    @staticmethod
    async def deliver(event, options): ...

    @classmethod
    async def deliver_batch(cls, batch): ...

    async def close(self, *, quickly=False): ...


class Odd:
    deliver = decorated(lambda self, event, options, more: None)
    open = None
    close = Opaque()


@pytest.mark.parametrize(
    "sink",
    [
        lambda event, options: None,
        lambda *args: None,
        lambda event, options, retries=3: None,
        third,
        functools.partial(lambda number, event, options: None, 1),
        Opaque(),
        Good,
        Odd,
    ],
)
def test_what_the_host_can_call_or_cannot_judge_is_right(sink):
    assert wrong_parameters(sink, in_process=False) is None


def class_with(**methods):
    return type("Sink", (), methods)


@pytest.mark.parametrize(
    ("sink", "shown"),
    [
        (lambda: None, "()"),
        (lambda event: None, "(event)"),
        (lambda event, options, other: None, "(event, options, other)"),
        (lambda event, options, *, other: None, "(event, options, *, other)"),
        (lambda event, options, *, context: None, "(event, options, *, context)"),
        (injecting, "(event, options)"),
        (class_with(deliver=lambda self, event: None), "(self, event)"),
        (class_with(deliver_batch=lambda self, events, options: None), "(self, events, options)"),
        (class_with(deliver=lambda self, event, options: None, open=lambda self: None), "(self)"),
        (class_with(deliver=lambda self, event, options: None, close=lambda self, context: None), "(self, context)"),
        (class_with(deliver=staticmethod(lambda self, event, options: None)), "(self, event, options)"),
    ],
)
def test_other_parameters_are_shown_with_their_place_and_cure(sink, shown):
    said = wrong_parameters(sink, in_process=False)
    assert said is not None
    assert f"{shown}` (core/test_plugin_signatures.py, line " in said
    assert "has the wrong parameters: it must take (" in said


def test_a_process_gives_no_context():
    assert wrong_parameters(third, in_process=False) is None
    assert "it must take (event, options)" in (wrong_parameters(third, in_process=True) or "")


def yields(event, options):
    yield event


async def yields_async(event, options):
    yield event


@pytest.mark.parametrize("function", [yields, yields_async])
def test_a_generator_is_refused_because_a_call_runs_none_of_its_code(function):
    for said in (
        wrong_parameters(function, in_process=False),
        wrong_parameters(class_with(deliver=staticmethod(function)), in_process=False),
        wrong_lookup_parameters(function),
    ):
        assert f"`{function.__name__}` (core/test_plugin_signatures.py, line " in (said or "")
        assert ": remove the `yield`" in (said or "")
