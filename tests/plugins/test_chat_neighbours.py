"""The chat sink, `markup: native`: what values of an event could build together, or with the template's own words."""

import random
import re

import pytest

from router.core.rendering import TemplateEnvironment, compile_options
from tests.support.markup import constructs, shown
from tests.support.sinks import make_event, validate

MARKDOWN = ["discord", "mattermost", "teams"]
SERVICES = ["slack", *MARKDOWN, "telegram", "google-chat"]

HOSTILE = [
    "[bank](https://evil.example)", "[[bank]](https://evil.example)", "![x](https://evil.example/p.png)", "[a][b]",
    "\n[b]: https://evil.example", "<https://evil.example|bank>", "[x <https://evil.example|bank>)", "<https://evil.example>",
    "<!channel>", "<!subteam^S1>", "<@U123>", "<users/all>", "<@1>", "<#1>", "<:e:2>", "<a:e:2>", "<t:3>", "<id:browse>",
    "</c:4>", "<b>b</b>", "<!-- c -->", '<a href="https://evil.example">x</a>', "**b**", "*b*", "__b__", "_b_", "é_b_é",
    "~~s~~", "~s~", "||s||", "`c`", "```\nc\n```", "\n~~~\nc\n~~~", "# H", "\n# H", "\r## H", "␤# H", "x\n===",
    "x\n= ", "x\n---", "x\n-", "x\n:-", "x\n:-:|-", "x\r\n===\r\n", "> q", "\n>>> q", "- l", "\n+ l", "\n1. l", "\n12) l",
    "\n-# s", "---", "\n- - -", "\n-- -", "\n\n    code", "\n\n\tcode", "\n\n  \tcode", "\n\n\u00a0   code", "a|b\n-|-\nc|d",
    "&lt;b&gt;", "&amp;lt;", "&#64;all", "&#x40;jane", "&commat;here", "@all", "@everyone", "@jane", "_@all_",
    "{{DATE(2017-02-14T06:08:39Z,LONG)}}", "\\*b\\*", "\\", "](https://evil.example)", "(https://evil.example)",
    ": https://evil.example", ". l", ") l", "lt;b", "#64;all", "===", "!",
]  # fmt: skip
ALONE = ["{{ a }}{{ b }}{{ c }}", "x {{ a }}{{ b }}{{ c }}", "T\n{{ a }}{{ b }}{{ c }}", "{{ a }}\n{{ b }}{{ c }}"]
BESIDE = [
    "[ALERT]{{ a }}{{ b }}{{ c }}", "A&{{ a }}{{ b }}{{ c }}", "1{{ a }}{{ b }}{{ c }}", "T\n  {{ a }}{{ b }}{{ c }}",
    "!{{ a }}{{ b }}{{ c }}", "{{ a }}{{ b }}{{ c }}[shop](https://shop.example/)", "**x{{ a }}**{{ b }} {{ c }}",
    "[{{ a }}{{ b }}{{ c }}](https://shop.example/)", "# {{ a }}{{ b }}{{ c }}", "C:\\{{ a }}{{ b }}{{ c }}",
]  # fmt: skip
IN_TAGS = {
    "telegram": ["<b>{{ a }}</b>{{ b }}<i>{{ c }}</i>", '<a href="https://shop.example/">{{ a }}{{ b }}</a>{{ c }}',
                 "A&{{ a }}{{ b }}{{ c }}"],
    "slack": ["<https://shop.example/|{{ a }}{{ b }}>{{ c }}", "A&{{ a }}{{ b }}{{ c }}"],
    "google-chat": ["*{{ a }}*{{ b }}{{ c }}", "1{{ a }}{{ b }}{{ c }}"],
}  # fmt: skip


def triples():
    """Every hostile text cut in two at each of its places, some cut in three; then any three texts side by side."""
    pick = random.Random(11)
    for text in HOSTILE:
        for place in range(len(text) + 1):
            yield text[:place], text[place:], ""
        first, second = sorted((pick.randrange(len(text) + 1), pick.randrange(len(text) + 1)))
        yield text[:first], text[first:second], text[second:]
    for _ in range(700):
        yield tuple(pick.choice(HOSTILE) for _ in range(3))


EVENTS = [make_event(dict(zip("abc", values, strict=True))) for values in triples()]


def renderer(service, template):
    """A function of an event: the text as it is sent."""
    for name in "abc":
        template = template.replace(f"{{{{ {name} }}}}", f"{{{{ payload.{name} }}}}")
    way = {"token": "x", "to": "1"} if service == "telegram" else {"url": "https://hooks.example.org/x"}
    options = validate("chat", {"service": service, **way, "markup": "native", "text": template})
    compiled = compile_options(options, TemplateEnvironment())

    def render(event):
        made = compiled.render(event, 0.0).options
        return made.finish(made.text)[0]

    return render


@pytest.mark.parametrize("template", ALONE)
@pytest.mark.parametrize("service", SERVICES)
def test_values_side_by_side_make_no_markup_and_read_as_they_were_written(service, template):
    render = renderer(service, template)
    for event in EVENTS:
        values = event.payload
        sent = render(event)
        assert (constructs(service, sent), values) == ([], values)
        assert shown(service, sent) == filled(template, values)


def filled(template, values):
    """The template with the values as they are."""
    return re.sub(r"\{\{ (\w) \}\}", lambda name: values[name[1]], template)


@pytest.mark.parametrize(
    ("service", "template"),
    [(service, template) for service in MARKDOWN for template in BESIDE]
    + [(service, template) for service, templates in IN_TAGS.items() for template in templates],
)
def test_values_beside_the_templates_words_make_no_markup(service, template):
    render = renderer(service, template)
    harmless = constructs(service, render(make_event({"a": "x", "b": "x", "c": "x"})))
    for event in EVENTS:
        assert (constructs(service, render(event)), event.payload) == (harmless, event.payload)


@pytest.mark.parametrize("service", MARKDOWN)
def test_the_same_texts_make_no_markup_in_plain(service):
    options = validate("chat", {"service": service, "url": "https://hooks.example.org/x", "text": "x"})
    for event in EVENTS:
        text = "".join(event.payload.values())
        sent = options.finish(text)[0]
        assert (constructs(service, sent), text) == ([], text)
        assert shown(service, sent) == text
