"""The chat sink: what becomes of the text on its way to each service."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chat import bot, chat, posted, webhook
from tests.support.http import stand_in
from tests.support.sinks import make_event, validate

SERVICES = ["slack", "discord", "teams", "mattermost", "telegram", "google-chat"]
LIMITS = {"slack": 40_000, "discord": 2_000, "mattermost": 16_383, "telegram": 4_096, "google-chat": 4_096}
Z = "\u200b"


def options(service, **more):
    """Options of one service, unrendered."""
    way = {"token": "x", "to": "1"} if service == "telegram" else {"url": "https://hooks.example.org/x"}
    return validate("chat", {"service": service, **way, **more})


def plain(service, text, **more):
    """How a plain text is sent."""
    return options(service, **more).finish(text)[0]


async def native(service, template, **payload):
    """How a text in the service's markup is sent, with values of an event."""
    more = payload.pop("more", {})
    async with stand_in() as server:
        way = bot(server, service, to="42") if service == "telegram" else webhook(server, service)
        async with chat(way | {"markup": "native", "text": template} | more) as sink:
            await sink.deliver(make_event(payload))
        return text_of(server.last.json)


def text_of(body):
    """The text in whatever a service's message looks like."""
    if "attachments" in body:
        return "\n".join(block["text"] for block in body["attachments"][0]["content"]["body"])
    return body["content"] if "content" in body else body["text"]


def unescaped(service, text):
    """What a reader sees, by the service's rules for escapes."""
    text = text.replace(Z, "")
    if service == "slack":
        return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    if service == "mattermost":
        text = text.replace("&lt;", "<")
    if service in {"discord", "teams", "mattermost"}:
        return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)
    return text


# --- plain: shown as written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "text",
    ["Your order is on its way!", "Grüße, 世界 🎉", "50 % off (today) - now", "snake_case_name #42 x-y", "a\nb",
     "mail jane@example.org", "see https://shop.example.org/a_b_c?x=1&y=_2_#z~~ now"],
)  # fmt: skip
def test_everyday_text_reads_as_it_was_written(service, text):
    sent = plain(service, text)
    assert unescaped(service, sent) == text
    if service != "slack":
        assert sent == text


@pytest.mark.parametrize(
    ("service", "text", "sent"),
    [
        ("slack", "a < b & c > d", "a &lt; b &amp; c &gt; d"),
        ("slack", "<https://evil.example|your bank>", "&lt;https://evil.example|your bank&gt;"),
        ("slack", "&lt;", "&amp;lt;"),
        ("discord", "**b** _i_ ~~s~~ `c` ||x||", r"\*\*b\*\* \_i\_ \~\~s\~\~ \`c\` \|\|x\|\|"),
        ("discord", "[your bank](https://evil.example)", r"[your bank\](https://evil.example)"),
        ("discord", "[[a]](https://evil.example)", r"[[a]\](https://evil.example)"),
        ("discord", "[a https://b](https://evil.example)", r"[a https://b\](https://evil.example)"),
        ("discord", "<#1> <:e:2> <t:3> </c:4> <b>", r"\<#1> \<:e:2> \<t:3> \</c:4> \<b>"),
        ("discord", "C:\\*", r"C:\\\*"),
        ("discord", "Title\n===\nx\n--\n    code", f"Title\n\\===\nx\n\\--\n{Z}    code"),
        ("mattermost", "&lt;b&gt; <!all> a < b", r"\&lt;b\&gt; &lt;!all> a &lt; b"),
        ("teams", "{{DATE(2017-02-14T06:08:39Z,LONG)}}", f"{{{Z}{{DATE(2017-02-14T06:08:39Z,LONG)}}}}"),
        (
            "discord",
            "# H\n> q\n- l\n+ l\n-# s\n  2. x\n#tag -1",
            "\\# H\n\\> q\n\\- l\n\\+ l\n\\-# s\n  2\\. x\n#tag -1",
        ),
        ("discord", "__https://x.example/__a__", r"\_\_https://x.example/__a__"),
        (
            "mattermost",
            "[a][b]\n[b]: https://evil.example",
            "[a\\][b\\]\n[b\\]: https://evil.example".replace(r"[b\]" + "\n", "[b]\n"),
        ),
        ("mattermost", "![x](https://evil.example/pixel.png)", r"\![x\](https://evil.example/pixel.png)"),
        ("mattermost", "|a|b|\n|-|-|", "\\|a\\|b\\|\n\\|-\\|-\\|"),
        ("mattermost", "---\n***", "\\---\n\\*\\*\\*"),
        ("teams", "[a](https://evil.example) *b*", r"[a\](https://evil.example) \*b\*"),
        ("telegram", "<b>*x*</b> &lt; [a](b)", "<b>*x*</b> &lt; [a](b)"),
        ("google-chat", "<https://evil.example|bank> 1 < 2", f"<{Z}https://evil.example|bank> 1 < 2"),
    ],
)
def test_markup_is_shown_as_written(service, text, sent):
    assert plain(service, text) == sent


@pytest.mark.parametrize("service", SERVICES)
@given(text=st.text(alphabet="ab1 \n\\*_~`|[](){}<>#+-.!&:;@/htps=\"'…é🎉", max_size=60))
def test_whatever_the_text_a_reader_sees_it_as_written(service, text):
    assert unescaped(service, plain(service, text)) == text


@pytest.mark.parametrize("service", ["discord", "teams", "mattermost"])
@given(text=st.text(alphabet="ab \\*_~`|[]() ://htps", max_size=60))
def test_no_live_markup_is_left_in_plain_text(service, text):
    """Every character that opens markup is behind an odd number of backslashes, or within a URL."""
    sent = re.sub(r"https?://[^\s<>\[\]()*`|\\\"]+", "U", plain(service, text))
    assert not re.search(r"(?<!\\)(?:\\\\)*[*`|]", sent)
    assert not re.search(r"(?<!\\)(?:\\\\)*\](?=[(\[:])", sent)
    assert not re.search(r"(?<!\\)(?:\\\\)*~~", sent)


# --- native: the operator's markup, the event's values ----------------------------------------------------------------

EVIL = '<https://evil.example|x> [x](https://evil.example) *b* <b> & "'


@pytest.mark.parametrize(
    ("service", "template", "sent"),
    [
        (
            "slack",
            "<https://shop.example/|shop> *now* {{ payload.message }}",
            '<https://shop.example/|shop> *now* &lt;https://evil.example|x&gt; [x](https://evil.example) *b* &lt;b&gt; &amp; "',
        ),
        (
            "discord",
            "[shop](https://shop.example/) **now** {{ payload.message }}",
            Z.join(
                (
                    "[shop](https://shop.example/) **now** ",
                    r'\<https://evil.example\|x> [x\](https://evil.example) \*b\* \<b> & "',
                )
            ),
        ),
        (
            "mattermost",
            "[shop](https://shop.example/) **now** {{ payload.message }}",
            r'[shop](https://shop.example/) **now** &lt;https://evil.example\|x> [x\](https://evil.example) \*b\* &lt;b> & "',
        ),
        (
            "teams",
            "[shop](https://shop.example/) **now** {{ payload.message }}",
            Z.join(
                (
                    "[shop](https://shop.example/) **now** ",
                    r'\<https://evil.example\|x> [x\](https://evil.example) \*b\* \<b> & "',
                )
            ),
        ),
        (
            "telegram",
            '<a href="https://shop.example/">shop</a> <b>now</b> {{ payload.message }}',
            '<a href="https://shop.example/">shop</a> <b>now</b> ' + html.escape(EVIL),
        ),
        (
            "google-chat",
            "<https://shop.example/|shop> *now* {{ payload.message }}",
            f'<https://shop.example/|shop> *now* <{Z}https://evil.example|x> [x](https://evil.example) *b* <{Z}b> & "',
        ),
    ],
)
async def test_a_link_of_the_config_is_a_link_and_one_of_an_event_is_text(service, template, sent):
    assert await native(service, template, message=EVIL) == sent


@pytest.mark.parametrize("service", ["discord", "mattermost", "teams"])
async def test_a_value_can_not_break_out_of_the_operators_link(service):
    sent = await native(service, "[{{ payload.t }}](https://shop.example/)", t="a](https://evil.example) [b\\")
    assert sent == r"[a\](https://evil.example) [b\\](https://shop.example/)"


async def test_one_value_may_be_let_through():
    assert await native("slack", "{{ payload.m | markup }} {{ payload.m }}", m="<x|y>") == "<x|y> &lt;x|y&gt;"


async def test_the_mode_is_said_to_the_service():
    async with posted("slack", webhook) as (server, sink):
        await sink.deliver(make_event({"message": "*x*"}))
        assert server.last.json == {"text": "*x*", "mrkdwn": False}
    async with posted("slack", webhook, markup="native") as (server, sink):
        await sink.deliver(make_event({"message": "x"}))
        assert server.last.json == {"text": "x"}
    async with posted("telegram", bot, markup="native") as (server, sink):
        await sink.deliver(make_event({"message": "x", "user_id": 1}))
        assert server.last.json == {"chat_id": 1, "text": "x", "parse_mode": "HTML"}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("markup", ["plain", "native"])
async def test_without_a_text_the_json_line_is_sent(service, markup):
    async with stand_in() as server:
        way = bot(server, service, to="42") if service == "telegram" else webhook(server, service)
        async with chat(way | {"markup": markup, "text": None}) as sink:
            await sink.deliver(make_event({"message": "<https://evil.example|x>"}))
        sent = text_of(server.last.json)
    assert "<https://evil.example|x>" not in sent or service in {"discord", "teams", "mattermost", "telegram"}
    if service in {"teams", "mattermost"} or (service, markup) == ("telegram", "plain"):
        assert unescaped(service, sent).startswith('{"id":"e-1","source":"web-app","channel":"notification"')


# --- mentions ---------------------------------------------------------------------------------------------------------

MENTIONS = {
    "slack": ["<!channel>", "<!here>", "<!everyone|x>", "<@U123>", "<!subteam^S1>", "<!CHANNEL>"],
    "discord": ["@everyone", "@here", "<@1>", "<@!1>", "<@&1>"],
    "mattermost": ["@all", "@channel", "@here", "@jane", "(@all)", "x.@all", "https://x.example/@all"],
    "telegram": ["@jane_doe", "@everyone"],
    "teams": ["@everyone"],
    "google-chat": ["<users/all>", "<users/123>"],
}
EACH = [(service, mention) for service, mentions in MENTIONS.items() for mention in mentions]


@pytest.mark.parametrize(("service", "mention"), EACH)
@pytest.mark.parametrize("markup", ["plain", "native"])
async def test_nobody_is_mentioned_by_the_operator_or_by_an_event(service, mention, markup):
    async with stand_in() as server:
        way = bot(server, service, to="42") if service == "telegram" else webhook(server, service)
        async with chat(way | {"markup": markup, "text": f"{mention} {{{{ payload.m }}}}"}) as sink:
            await sink.deliver(make_event({"m": mention}))
        body = server.last.json
    if service == "discord":
        assert body["allowed_mentions"] == {"parse": []}
    if not (service == "discord" and mention.startswith("<")):
        assert mention not in text_of(body)


async def test_a_mention_put_together_from_both_is_none():
    assert "<!channel>" not in await native("slack", "<{{ payload.m }}>", m="!channel")
    assert "<users/all>" not in await native("google-chat", "<{{ payload.m }}>", m="users/all")
    assert "@all" not in await native("mattermost", "@{{ payload.m }}", m="all")


async def test_a_link_to_a_telegram_user_is_none():
    sent = await native("telegram", '<a href="tg://user?id={{ payload.id }}">you</a>', id=42)
    assert sent == '<a href="#">you</a>'


@pytest.mark.parametrize(("service", "mention"), EACH)
@pytest.mark.parametrize("markup", ["plain", "native"])
async def test_mentions_may_be_allowed(service, mention, markup):
    if mention == "<!CHANNEL>":
        return  # Slack's own are lower case; only taking them away is generous
    async with stand_in() as server:
        way = bot(server, service, to="42") if service == "telegram" else webhook(server, service)
        async with chat(
            way | {"markup": markup, "allow_mentions": True, "text": f"{mention} & {{{{ payload.m }}}}"}
        ) as sink:
            await sink.deliver(make_event({"m": mention}))
        body = server.last.json
    assert text_of(body).count(mention) == 2
    assert "allowed_mentions" not in body


def test_links_that_are_no_mentions_stay_whole():
    text = "https://medium.example/@jane mail jane@all.example"
    for service in ("telegram", "mattermost", "slack", "discord"):
        assert plain(service, text) == text


async def test_dates_of_slack_are_no_mentions():
    date = "<!date^1392734382^{date}|2014>"
    assert await native("slack", date) == date


# --- length -----------------------------------------------------------------------------------------------------------


def units(text):
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize(("service", "limit"), LIMITS.items())
@pytest.mark.parametrize("letter", ["x", "é", "🎉", "<", "*", "&", "\\"])
def test_a_long_text_is_cut_with_a_marker(service, limit, letter):
    sent = plain(service, letter * limit * 2)
    assert limit - 6 <= units(sent) <= limit
    assert sent.endswith("…")
    assert set(unescaped(service, sent[:-1])) == {letter}
    assert sent.encode()  # no half of a surrogate pair


@pytest.mark.parametrize(("service", "limit"), LIMITS.items())
def test_a_text_that_just_fits_is_not_cut(service, limit):
    assert plain(service, "x" * limit) == "x" * limit


@pytest.mark.parametrize("service", ["discord", "mattermost", "teams"])
@given(extra=st.integers(0, 3))
def test_an_escape_is_not_cut_in_two(service, extra):
    sent = plain(service, "x" * extra + "*" * 30_000)
    assert re.fullmatch(r"x*(?:\\\*)*…", sent)


@pytest.mark.parametrize("extra", range(5))
def test_an_entity_is_not_cut_in_two(extra):
    assert re.fullmatch(r"x*(?:&amp;)*…", plain("slack", "x" * extra + "&" * 20_000))


@pytest.mark.parametrize("extra", range(5))
def test_html_is_closed_where_it_is_cut(extra):
    text = "x" * extra + "<b>bold <i>" + "y&amp;" * 3_000 + "</i></b><u>never</u>"
    sent = options("telegram", markup="native").finish(text)[0]
    assert re.fullmatch(r"x*<b>bold <i>(?:y&amp;)*y?…</i></b>", sent)


def test_a_link_is_not_cut_in_two():
    link = "<https://shop.example/a/very/long/address|order>"
    sent = options("slack", markup="native").finish(("y" * 17 + link) * 1_000)[0]
    assert re.fullmatch(rf"(?:y{{17}}{re.escape(link)})*y*…", sent)
    assert 39_900 < len(sent) <= 40_000


async def test_a_teams_card_stays_below_its_size():
    async with posted("teams", webhook) as (server, sink):
        for message in ("é\n" * 30_000, '"' * 100_000, "x" * 100_000, "\\" * 100_000):
            await sink.deliver(make_event({"message": message}))
            assert 19_000 < len(server.last.body) <= 28 * 1024


@pytest.mark.parametrize(
    ("service", "way", "markup", "text", "limit"),
    [
        ("discord", webhook, "plain", "x" * 3_000, 2_000),
        ("telegram", bot, "native", "<b>" + "x" * 5_000 + "</b>", 4_096),
        ("slack", webhook, "plain", "xxx https://shop.example/" + "x" * 90_000, 40_000),
    ],
)
async def test_a_cut_is_logged(service, way, markup, text, limit):
    async with posted(service, way, markup=markup, text="{{ payload.message | markup }}") as (_server, sink):
        for _ in range(3):  # one line a minute
            await sink.deliver(make_event({"message": text, "user_id": 1}))
    (line,) = sink.context.logged
    assert (line["event_id"], line["number"]) == ("e-1", 1)
    assert line["limit"] == limit
    assert "xxx" not in str(line)
