"""The chat sink: how long a text may be by each service's own count, and where it is cut."""

import html
import json
import random
import re

import pytest
import regex

from router.core.rendering import TemplateEnvironment, compile_options
from tests.support.sinks import make_event, validate

LIMITS = {
    "slack": 40_000,
    "discord": 2_000,
    "mattermost": 16_383,
    "telegram": 4_096,
    "google-chat": 4_096,
    "teams": 20_000,
}
EACH = [(service, markup) for service in LIMITS for markup in ("plain", "native")]

WORDS = [
    "order",
    "Grüße",
    "世界",
    "مرحبا بالعالم",
    "שלום",
    "नमस्ते",
    "สวัสดี",
    "한국어",
    "1 < 2 & 3",
    "*x*",
    '"quoted"',
    "C:\\x",
]
CLUSTERS = [
    "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "🇯🇵🇫🇷", "❤️", "1️⃣", "e\u0301\u0323", "a\u0300\u0316\u0317", "각", "\u1100\u1161\u11a8", "क्षि", "נֶּ", "\r\n", "🧑🏿‍🚀",
]  # fmt: skip
URLS = ["https://shop.example/orders/42?x=1&y=a_b", "https://shop.example/" + "très/" * 12, "http://x.example/~a/(b)"]
LINKS = {
    "slack": ["<https://shop.example/a/long/way|your order>", "<https://shop.example/>"],
    "discord": ["[your order](https://shop.example/a_b)", "[a [b] c](<https://x.example/(1)>)"],
    "mattermost": ["[your order](https://shop.example/a_b)", "![p](https://shop.example/p.png)"],
    "teams": ["[your order](https://shop.example/a_b)"],
    "telegram": [
        '<a href="https://shop.example/?a=1&amp;b=2">your &lt;order&gt;</a>',
        "<b>now</b>",
        "<code>x &amp; y</code>",
    ],
    "google-chat": ["<https://shop.example/a/long/way|your order>"],
}


def options(service, markup, text="x"):
    way = {"token": "x", "to": "1"} if service == "telegram" else {"url": "https://hooks.example.org/x"}
    return validate("chat", {"service": service, **way, "markup": markup, "text": text})


def finish(service, markup, text):
    return options(service, markup).finish(text)[0]


def parsed(text):
    """What Telegram makes of HTML: no tags, each entity one character."""
    return html.unescape(re.sub(r"<[^<>]*>", "", text))


def units(text):
    return len(text.encode("utf-16-le")) // 2


def counted(service, markup, text):
    """The length by the service's own rule."""
    if service == "teams":
        return len(json.dumps(text, ensure_ascii=False).encode()) - 2
    if service == "telegram" and markup == "native":
        assert len(text.encode()) <= 32_768  # what the Bot API takes before it parses
        return units(parsed(text))
    return units(text)


def generated(pick, service, markup):
    """Pieces of a text of three times the limit, each of which is whole or not there."""
    size, pieces = 0, []
    kinds = [WORDS, CLUSTERS, URLS, LINKS[service] if markup == "native" else WORDS]
    while size < 3 * LIMITS[service]:
        piece = pick.choice(pick.choice(kinds))
        if service == "telegram" and markup == "native" and not piece.startswith("<"):
            piece = html.escape(piece)
        pieces.append(piece)
        size += len(piece) + 1
        if pick.random() < 0.001:
            pieces.append("https://shop.example/" + "z" * pick.choice([100, 50_000]))
    return pieces


def clusters(service, markup, text):
    """The grapheme clusters that people see."""
    text = parsed(text) if (service, markup) == ("telegram", "native") else text
    return regex.findall(r"\X", text)


@pytest.mark.parametrize(("service", "markup"), EACH)
@pytest.mark.parametrize("seed", range(17))  # 204 texts
def test_no_text_is_too_long_and_no_cluster_url_or_link_is_cut(service, markup, seed):
    pieces = generated(random.Random(seed), service, markup)
    text = " ".join(pieces)
    sent = finish(service, markup, text)
    assert counted(service, markup, sent) <= LIMITS[service]
    assert sent != text
    assert "…" in sent
    whole = {url for piece in pieces for url in re.findall(r"https?://[^\s<>|\"]+", piece)}
    whole |= {url.rstrip("()>") for url in whole}  # `(<https://…>)`
    unescaped = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", sent) if service in {"discord", "mattermost", "teams"} else sent
    if service == "slack" and markup == "plain":
        unescaped = unescaped.replace("&amp;", "&")
    assert set(re.findall(r"https?://[^\s<>|\"]+", unescaped)) <= whole | {url + ")" for url in whole}
    if markup == "native":
        rest = sent
        for link in sorted(LINKS[service], key=len, reverse=True):
            rest = rest.replace(link, "")
        assert not re.search(r"\]\(|\[\w+|<a |<https|your order", rest)
    before = clusters(service, markup, finish_uncut(service, markup, text))
    after = clusters(service, markup, sent.replace("\u200b", ""))
    assert set(after) - set(before) <= {"…"}


def finish_uncut(service, markup, text):
    """The text as it would be sent if there were no limit."""
    made = options(service, markup)
    if markup == "plain":
        text = made.rules.plain(text)
    return made.rules.mute(text).replace("\u200b", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<pre>" + "&quot;" * 1_000 + "</pre>", 1_000),
        ("".join(f'<a href="https://shop.example/orders/{n:060}">order no. </a>' for n in range(54)), 540),
        ("<b>" + "&lt;&#128512;" * 1_365 + "</b>", 4_095),
        ("<i>x</i>" * 1_500, 1_500),
    ],
)
def test_telegram_counts_what_is_shown(text, shown):
    assert units(parsed(text)) == shown
    assert finish("telegram", "native", text) == text


def test_a_thousand_quotation_marks_of_an_event_arrive_whole():
    made = options("telegram", "native", "<pre>{{ payload.m }}</pre>")
    rendered = compile_options(made, TemplateEnvironment()).render(make_event({"m": '"' * 1_000}), 0.0).options
    assert rendered.finish(rendered.text) == ("<pre>" + "&quot;" * 1_000 + "</pre>", False)


def test_telegrams_bound_of_bytes_holds_too():
    sent = finish(
        "telegram",
        "native",
        '<a href="https://shop.example/' + "x" * 200 + '">o</a>' * 1 + ("<b>" + "é" * 9 + "</b>") * 4_000,
    )
    assert units(parsed(sent)) <= 4_096
    many = finish("telegram", "native", ('<a href="https://shop.example/' + "x" * 200 + '">o</a> ') * 1_000)
    assert 30_000 < len(many.encode()) <= 32_768
    assert re.fullmatch(r'(?:<a href="https://shop.example/x{200}">o</a> ?)+…', many)
    deep = finish("telegram", "native", "<b>" * 20_000 + "x")
    assert len(deep.encode()) <= 32_768
    assert deep.count("<b>") == deep.count("</b>")


@pytest.mark.parametrize(
    ("service", "markup", "text", "sent"),
    [
        ("discord", "plain", "see https://x.example/" + "a" * 3_000 + " now", "see  … now"),
        ("slack", "native", "see <https://x.example/" + "a" * 50_000 + "|it> now", "see  … now"),
        ("telegram", "plain", "e" + "\u0301" * 5_000 + " x", " … x"),
        ("telegram", "native", "<b>" + "a" * 10 + "</b> e" + "\u0301" * 5_000 + "!", "<b>aaaaaaaaaa</b>  …!"),
        ("discord", "native", "x [it](https://x.example/" + "a" * 3_000 + ") y", "x  … y"),
    ],
)
def test_what_is_too_long_by_itself_is_left_out_whole(service, markup, text, sent):
    assert finish(service, markup, text) == sent


@pytest.mark.parametrize("service", LIMITS)
def test_the_marker_is_no_part_of_a_url(service):
    url = "https://shop.example/" + "a" * 60
    sent = finish(service, "plain", f"{url} " * 1_000)
    assert sent.endswith(f"{url} …")
