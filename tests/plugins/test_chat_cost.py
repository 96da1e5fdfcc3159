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
EACH = [
    (service, markup, template)
    for service in ("slack", "discord", "teams", "mattermost", "telegram", "google-chat")
    for markup, template in (
        ("plain", "{{ payload.m }}"),
        ("native", "{{ payload.m }}"),
        ("native", "{{ payload.m | markup }}"),
    )
]


@pytest.mark.parametrize(("service", "markup", "template"), EACH)
def test_a_mebibyte_of_any_pattern_costs_at_most_ten_times_a_plain_one(service, markup, template):
    way = {"token": "x", "to": "1"} if service == "telegram" else {"url": "https://hooks.example.org/x"}
    options = validate("chat", {"service": service, **way, "markup": markup, "text": template})
    compiled = compile_options(options, TemplateEnvironment())

    def cost(pattern, times=1):
        event = make_event({"m": (pattern * (MIB // len(pattern.encode()) + 1))[:MIB]})
        assert event.payload
        taken = []
        for _ in range(times):
            start = time.process_time()
            made = compiled.render(event, 0.0).options
            made.finish(made.text)
            taken.append(time.process_time() - start)
        return min(taken)

    cost("some words ")
    bound = 10 * cost("some words ", 5)
    for pattern in PATTERNS:
        spent = cost(pattern)
        assert spent <= bound or cost(pattern, 3) <= bound, pattern
