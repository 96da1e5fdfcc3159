"""The chat sink: 1 MiB of anything costs about what 1 MiB of words costs."""

import time

import pytest

from router.core.rendering import TemplateEnvironment, compile_options
from tests.support.sinks import make_event, validate

MIB = 1024**2
PATTERNS = [
    "<", "<a ", "<a>", "<b></i>", "<a href=", "&#0", "&lt", "[", "[a](", "![", "[\\[", "\\", "*", "_a", "@", "<@a|", "https://",
    "http://a.b/&lt;", "\n", " ", "\n\t", "-", "\n=", "#", "1", "{", "x\u0301", "🇩🇪", "👨\u200d", "href   tg:",
]  # fmt: skip
# A beginning, what is repeated, an end.
LONG = [
    ("--", " ", "x"), ("==", " ", "x"), ("-", "- ", "x"), ("", " ", "x"), ("", "1", "."), ("&#", "0", "x"), ("&", "a", ";"), ("href", " ", "x"),
    ("<a", " ", "x"), ("<a>", "b", "x"), ("<", "a", "x"), ("[", "a", "x"), ("[a](", "b", "x"), ("[", "\\[", "x"), ("x", "\n", "x"),
    ("https://", "https://", " x"), ("<!", "a", "x"),
]  # fmt: skip
EACH = [
    (service, markup, template)
    for service in ("slack", "discord", "teams", "mattermost", "telegram", "google-chat")
    for markup, template in (("native", "{{ payload.m }}"), ("native", "{{ payload.m | markup }}"))
]


@pytest.mark.drawn(3)
@pytest.mark.parametrize(("service", "markup", "template"), EACH)
def test_a_mebibyte_of_any_pattern_costs_at_most_ten_times_a_plain_one(service, markup, template):
    way = {"token": "x", "to": "1"} if service == "telegram" else {"url": "https://hooks.example.org/x"}
    options = validate("chat", {"service": service, **way, "markup": markup, "text": template})
    compiled = compile_options(options, TemplateEnvironment())

    def cost(text, times=1):
        event = make_event({"m": text})
        assert event.payload
        taken = []
        for _ in range(times):
            start = time.process_time()
            made = compiled.render(event, 0.0).options
            made.finish(made.text)
            taken.append(time.process_time() - start)
        return min(taken)

    words = "some words " * (MIB // 11) + "ann@example.org"  # without any `@`, the search for mentions is skipped
    cost(words)

    def bounded(text):
        """Whether it holds in one of three rounds: others on the machine slow down now this text, now that one."""
        return any(cost(text, 3) <= 10 * cost(words, 3) for _ in range(3))

    bound = 10 * cost(words, 5)
    repeated = [(pattern * (MIB // len(pattern.encode()) + 1))[:MIB] for pattern in PATTERNS]
    for text in [
        *repeated,
        *(begin + middle * (size // len(middle)) + end for begin, middle, end in LONG for size in (30_000, MIB)),
    ]:
        assert cost(text) <= bound or bounded(text), (text[:20], text[-20:])
