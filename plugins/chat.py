"""Built-in sink `chat`: Slack, Discord, Microsoft Teams, Mattermost, Telegram and Google Chat.

A message goes by a webhook (`url`) to the place the webhook belongs to, or by a bot (`token`) to whom `to` says: a channel
or one user. From top to bottom: what text becomes for a service (escaping, mentions, length), the services side by side in
one table, the options, what an answer means, how a bot reaches an address, and the sink itself.

Sources: the services' own API references (Slack chat.postMessage and incoming webhooks, Discord API v10, Telegram Bot API,
Mattermost API v4, Google Chat webhooks, Teams Workflows with Adaptive Cards).
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from operator import gt, sub
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationInfo, model_validator

from router.api import (
    Addresses,
    Clock,
    Event,
    HttpClient,
    PartialError,
    PermanentError,
    RegisterSink,
    Secret,
    Sink,
    SinkContext,
    SinkError,
    SinkOptions,
    Text,
    TransientError,
    check_response,
    hookimpl,
    json_line,
    private_host,
    quote_response,
    retry_after,
)

if TYPE_CHECKING:
    import regex

# --- text: what is shown as written, what mentions, what is too long --------------------------------------------------

MARKER = "…"
BREAK = "\u200b"  # ZERO WIDTH SPACE: nobody sees it, and no service takes what is around it for one word

LINK = re.compile(r"(https?://(?:(?!&(?:lt|gt|quot|commat|#))[^\s<>\[\]()*`|\\\"])+)")
MARKDOWN = re.compile(
    r"[\\`*|~]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # within a word it is a letter like any other
    r"|\](?=[(\[:]|\Z)"  # a link, and the definition of one
    r"|!(?=\[)|&(?=#?\w{1,31};)"  # an image, an entity
)
# Mattermost's reader takes U+2424 for a line break and U+00A0 for a space, so both stand here beside the usual ones.
LINE = r"(?:^|(?<=[\r\u2424]))"
LINE_END = r"(?=[\r\n\u2424]|\Z)"
MARKDOWN_LINE = re.compile(
    rf"{LINE}([ \t\u00a0]*(?:"
    rf"\d{{1,9}}(?=[.)](?:[\s\u2424]|\Z))|"  # a numbered list: the point or bracket gets the backslash
    rf"(?=\#{{1,6}}(?:[\s\u2424]|\Z)|>|[-+](?:[\s\u2424\#]|\Z)|"
    rf"(?:=++[ \t\u00a0]*+|:?-[-: \t\u00a0]*+){LINE_END})))",  # the line under a heading, a rule, the head of a table
    re.MULTILINE,
)
INDENTED = re.compile(rf"{LINE}(?=[ \u00a0]{{0,3}}\t|[ \u00a0]{{4}}|[ \t\u00a0]+\Z)", re.MULTILINE)
# What the text in front of a value could make of its beginning: a link, an entity, a list, an indented line. A backslash
# in front would take away the value's own.
MARKDOWN_START = re.compile(r"\A(?=[ \t\u00a0(\[:\\]|[.)](?:[\s\u2424]|\Z)|#?\w{0,31};)")
MARKDOWN_END = re.compile(r"(?:!|&#?\w{0,31})\Z")  # an image, an entity
ENTITY_START = re.compile(r"\A(?=#?\w{0,31};)")
MARKDOWN_TAG = re.compile(r"<(?![\s\d=-])")
TEAMS_FUNCTION = re.compile(r"\{(?=\{|\Z)")  # {{DATE(…)}} of Adaptive Cards
SLACK_MENTION = re.compile(r"<(?=@|!(?:here|channel|everyone|all|group|subteam))", re.IGNORECASE)
GOOGLE_TAG = re.compile(r"<(?=\S|\Z)")
GOOGLE_MENTION = re.compile(r"<(?=users/)", re.IGNORECASE)
TELEGRAM_MENTION = re.compile(r"(href\s*=\s*[\"']?)tg:(?://)?user\?id=\d*", re.IGNORECASE)
EVERYBODY = re.compile(r"(?<![A-Za-z0-9])@(?=(?:everyone|here|channel|all)\b)", re.IGNORECASE)
ANYBODY = re.compile(r"(?<![A-Za-z0-9])@(?!\s)")  # at the end of a part too: the name may stand in the next tag
AT_ENTITY = re.compile(r"(?<!\\)&(?:#0*64|#x0*40|commat);", re.IGNORECASE)
TELEGRAM_AT = re.compile(r"&(?:#0*64(?![0-9])|#x0*40(?![0-9a-f]));?", re.IGNORECASE)


def spare(text: str, tokens: re.Pattern[str] | None, change: Callable[[str], str]) -> str:
    """The text with `change` made to all of it but these tokens, which are the pattern's one group."""
    if tokens is None:
        return change(text)
    return "".join(part if place % 2 else change(part) for place, part in enumerate(tokens.split(text)))


def outside_links(change: Callable[[str], str], text: str) -> str:
    """The text with `change` made to all of it but its URLs, which would lead elsewhere."""
    return spare(text, LINK, change)


def markdown(text: str) -> str:
    """Return text that a Markdown reader shows as written; only what could be markup gets a backslash."""
    characters = outside_links(lambda part: MARKDOWN.sub(r"\\\g<0>", part), text)
    return INDENTED.sub(BREAK, MARKDOWN_LINE.sub(r"\1\\", characters))


def tagless(text: str) -> str:
    """Return text that Discord shows as written: Markdown, HTML, and its own `<@…>`, `<#…>`, `<:…>` and `<t:…>`."""
    return MARKDOWN_TAG.sub(r"\\<", markdown(text))


def mattermost(text: str) -> str:
    """Return text that Mattermost shows as written: Markdown, and Slack's `<https://…|text>`, which webhooks take."""
    return markdown(text).replace("<", "&lt;")


def teams(text: str) -> str:
    """Return text that Teams shows as written: Markdown, and the functions of Adaptive Cards."""
    return TEAMS_FUNCTION.sub(f"{{{BREAK}", tagless(text))


def apart(escape: Callable[[str], str]) -> Callable[[str], str]:
    """Return `escape` for one value of a Markdown text, harmless whatever stands in front of it and behind.

    Without the invisible breaks `[ALERT]{{ payload.a }}` with `(https://evil.example)` would be a link.
    """

    def escape_value(text: str) -> str:
        return MARKDOWN_END.sub(rf"\g<0>{BREAK}", MARKDOWN_START.sub(BREAK, escape(text)))

    return escape_value


def slack_value(text: str) -> str:
    """Return a value for Slack's mrkdwn, harmless after an `&` of the text too."""
    return ENTITY_START.sub(BREAK, slack(text))


def html_value(text: str) -> str:
    """Return a value for HTML, harmless after an `&` of the text too."""
    return ENTITY_START.sub(BREAK, html.escape(text))


def slack(text: str) -> str:
    """Text that makes no link and no mention in Slack, by the three entities that Slack asks for."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def google(text: str) -> str:
    """Text that makes no link and no mention in Google Chat, which knows no escape: an invisible break after `<`."""
    return GOOGLE_TAG.sub(f"<{BREAK}", text)


def as_it_is(text: str) -> str:
    """The text, for a service that reads no markup unless it is told to."""
    return text


def mute_everybody(text: str) -> str:
    """The text without `@everyone` and its like."""
    return outside_links(lambda part: EVERYBODY.sub(f"@{BREAK}", part), text)


def mute_slack(text: str) -> str:
    """The text without Slack's `<!channel>`, `<!subteam^…>` and `<@U…>`, which then show as written."""
    return mute_everybody(SLACK_MENTION.sub("&lt;", text))


def mute_google(text: str) -> str:
    """The text without Google Chat's `<users/…>`."""
    return mute_everybody(GOOGLE_MENTION.sub(f"<{BREAK}", text))


def mute_telegram(text: str) -> str:
    """The text without `@name`, also as `&#64;name`, and without links to a user."""
    return mute_names(TELEGRAM_AT.sub("@", TELEGRAM_MENTION.sub(r"\1#", text)))


def mute_mattermost(text: str) -> str:
    """The text without `@name`, `&#64;name` and Slack's `<!all>`; `@all` not even in a URL, where Mattermost might see it."""
    return mute_names(EVERYBODY.sub(f"@{BREAK}", AT_ENTITY.sub("@", SLACK_MENTION.sub("&lt;", text))))


def mute_names(text: str) -> str:
    """The text without `@name`."""
    return outside_links(lambda part: ANYBODY.sub(f"@{BREAK}", part), text)


# --- length: how a service counts, and where a text may be cut --------------------------------------------------------

TAG = re.compile(r"<(/?)([a-z][a-z0-9-]*+)[^<>]*+>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:lt|gt|amp|quot|#(\d{1,7})|#x([0-9a-f]{1,6}));", re.IGNORECASE)
URL_ENDS = ' \t\n"<>'


def units(text: str) -> int:
    """Return the length in UTF-16 units, which is how Telegram counts and never less than how the others do."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def octets(text: str) -> int:
    """Return the length in UTF-8 as it stands in JSON, where some characters are written with a backslash."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")) - 2


def visible(text: str) -> int:
    """Return the length of HTML in UTF-16 units as Telegram counts it: without tags, each entity as its character."""
    return units(ENTITY.sub(_one_entity, TAG.sub("", text)))


def _one_entity(entity: re.Match[str]) -> str:
    number = int(entity[1]) if entity[1] else int(entity[2], 16) if entity[2] else ord(" ")
    if not 0 < number < 0x10FFFF:
        return entity[0]  # shown as it is written
    return "  " if number > 0xFFFF else " "


def html_octets(text: str) -> int:
    """Return the length of HTML in UTF-8, with room for the end of every tag that it opens."""
    ends = sum(len(name) + 3 for slash, name in TAG.findall(text) if not slash)
    return len(text.encode("utf-8", "surrogatepass")) + ends


# What is never cut in two besides a URL and a grapheme cluster. None of them looks at a character more than once or
# twice, whatever follows: a link ends where the next one begins.
BRACKETS = (r"<[@#:!/a-z][^<>]*+>", r"&(?:amp|lt|gt);")
MARKDOWN_UNITS = (
    r"!?\[(?:\\.|[^\[\]\\]|\[(?:\\.|[^\[\]\\])*+\])*+\]\((?:\\.|[^()\\]|\((?:\\.|[^()\\])*+\))*+\)",
    r"<[@#:!/a-z][^<>]*+>",
    r"&#?\w{1,31};",
    r"\\\X",
)
HTML_UNITS = (r"<a\b[^<>]*+>(?:[^<]|<(?!/?a\b))*+</a>", r"</?[a-z][^<>]*+>", r"&#?\w{1,31};")


@cache
def pieces(constructs: tuple[str, ...]) -> regex.Pattern[str]:
    """Return a pattern whose matches are never cut in two: these constructs, a URL, a grapheme cluster."""
    import regex  # noqa: PLC0415  # a start without a text too long does without it

    whole = "|".join((*constructs, r"(?:https?|ftp)://[^\s<>\"\u200b]++", r"\p{RI}{2}"))  # in a row of flags \X is slow
    return regex.compile(
        rf"\p{{Grapheme_Cluster_Break=Prepend}}*+(?:{whole})[\p{{M}}\u200d]*+|\X", regex.DOTALL | regex.IGNORECASE
    )


@dataclass(frozen=True, slots=True)
class Length:
    """How long a text may be: what each measure may come to, and what is never cut in two (`pieces`).

    `html` says that the text is HTML, whose tags have to be closed where it is cut.
    """

    limits: tuple[tuple[int, Callable[[str], int]], ...]
    whole: tuple[str, ...] = ()
    html: bool = False

    @property
    def reach(self) -> int:
        """The characters beyond which a text is cut in any case."""
        return 2 * max(limit for limit, _ in self.limits)

    def fits(self, text: str) -> bool:
        """Whether the text is not too long."""
        return all(size(text) <= limit for limit, size in self.limits)


def beginning(text: str, most: int) -> str:
    """Return as much of a text as can be shown at all, its URLs whole, with a marker where that is not all."""
    if len(text) <= most:
        return text
    last = last_word(text, most)
    return text[: last if text.find("://", last, most) >= 0 else most] + MARKER


def last_word(text: str, end: int) -> int:
    """Return the place where the last word before `end` begins; it may be a URL."""
    return max(text.rfind(character, 0, end) for character in URL_ENDS) + 1


def shorten(text: str, length: Length) -> str:
    """Return the text, cut to its length with a marker at its end. A piece too long by itself is a marker in its place."""
    if length.fits(text):
        return text
    marker = f" {MARKER}"
    costs = [size(marker) for _, size in length.limits]
    room = [limit - cost for (limit, _), cost in zip(length.limits, costs, strict=True)]
    most = room.copy()
    kept: list[str] = []
    for match in pieces(length.whole).finditer(text):
        piece = match[0]
        needs = [size(piece) for _, size in length.limits]
        if any(map(gt, needs, most)):
            piece, needs = marker, costs
        room = list(map(sub, room, needs))
        if min(room) < 0:
            kept = [_ended("".join(kept))]
            break
        kept.append(piece)
    short = "".join(kept)
    return close_tags(short) if length.html else short


def _ended(text: str) -> str:
    """The text with the marker; a space keeps it from becoming a part of a URL."""
    text = text.rstrip()
    if text.endswith(MARKER):
        return text
    return f"{text} {MARKER}" if "://" in text[last_word(text, len(text)) :] else f"{text}{MARKER}"


def close_tags(text: str) -> str:
    """The text with every HTML tag closed that a cut has left open."""
    open_tags: list[str] = []
    number: Counter[str] = Counter()
    for slash, name in TAG.findall(text):
        if not slash:
            open_tags.append(name)
            number[name] += 1
        elif number[name]:
            while (last := open_tags.pop()) != name:
                number[last] -= 1
            number[name] -= 1
    return text + "".join(f"</{name}>" for name in reversed(open_tags))


# --- the services, side by side ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Service:
    """What tells one service from another.

    `length` is the longest text; `native_length` where the service counts its own markup differently. `plain` makes a
    text shown as written, `value` an event's value harmless inside the service's own markup, `mute` takes mentions away.
    `mentions` are the tokens that `allow_mentions` keeps from being escaped.
    """

    length: Length
    plain: Callable[[str], str]
    value: Callable[[str], str]
    mute: Callable[[str], str]
    mentions: re.Pattern[str] | None = None
    webhook: bool = True
    bot: bool = False
    api: str | None = None
    native_length: Length | None = None


SERVICES = {
    "slack": Service(
        length=Length(((40_000, units),), BRACKETS),
        plain=slack,
        value=slack_value,
        mute=mute_slack,
        mentions=re.compile(r"(<(?:!(?:here|channel|everyone)|!subteam\^\w+|@\w+)(?:\|[^<>]*)?>)"),
        bot=True,
        api="https://slack.com/api",
    ),
    "discord": Service(
        length=Length(((2_000, units),), MARKDOWN_UNITS),
        plain=tagless,
        value=apart(tagless),
        mute=mute_everybody,
        mentions=re.compile(r"(<(?:@[!&]?|\#)\d+>)"),
        bot=True,
        api="https://discord.com/api/v10",
    ),
    "teams": Service(
        length=Length(((20_000, octets),), MARKDOWN_UNITS), plain=teams, value=apart(teams), mute=mute_everybody
    ),
    "mattermost": Service(
        length=Length(((16_383, units),), MARKDOWN_UNITS),
        plain=mattermost,
        value=apart(mattermost),
        mute=mute_mattermost,
        bot=True,
    ),
    "telegram": Service(
        length=Length(((4_096, units),)),
        native_length=Length(((4_096, visible), (32_768, html_octets)), HTML_UNITS, html=True),
        plain=as_it_is,
        value=html_value,
        mute=mute_telegram,
        webhook=False,
        bot=True,
        api="https://api.telegram.org",
    ),
    "google-chat": Service(
        length=Length(((4_096, units),), BRACKETS),
        plain=google,
        value=google,
        mute=mute_google,
        mentions=re.compile(r"(<users/\w+>)"),
    ),
}


# --- options ----------------------------------------------------------------------------------------------------------


class ChatOptions(SinkOptions):
    """Which service, by which way, and what is said."""

    service: Literal["slack", "discord", "teams", "mattermost", "telegram", "google-chat"]
    url: Secret | None = Field(default=None, description="A webhook, which is a credential.")
    token: Secret | None = Field(default=None, description="A bot's token; goes with `to`.")
    to: Addresses = Field(default=Addresses(), description="Channels or users that the bot writes to.")
    api: str | None = Field(default=None, description="Base URL of the service, where it is not the public one.")
    text: Annotated[str, Text(escape="escape_value")] | None = Field(
        default=None, description="The message; the JSON line is the default where no address is a template."
    )
    markup: Literal["plain", "native"] = Field(
        default="plain", description="plain: shown as written. native: the text is the service's own markup."
    )
    allow_mentions: bool = Field(default=False, description="Let `@everyone` and its like through, from events too.")

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> Self:
        allow_private = (info.context or {}).get("allow_private", True)  # unknown in `defaults`: the sink may say so
        faults = [*_way_faults(self), *_address_faults(self, allow_private=allow_private)]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def escape_value(self, value: str) -> str:
        """An event's value for `text`: harmless in `native`; in `plain` the whole text is made so when it is sent."""
        if self.markup == "plain":
            return value
        return spare(beginning(value, self.length.reach), self.mentions, self.rules.value)

    def finish(self, text: str) -> tuple[str, bool]:
        """Return the text as it is sent, and whether it was cut: as written where `plain`, no mentions, not too long."""
        whole = True
        if self.markup == "plain":
            start = beginning(text, self.length.reach)
            whole, text = start == text, spare(start, self.mentions, self.rules.plain)
        if not self.allow_mentions:
            text = self.rules.mute(text)
        short = shorten(text, self.length)
        return short, not whole or short != text

    @property
    def length(self) -> Length:
        """How long a text may be."""
        rules = self.rules
        return (rules.native_length if self.markup == "native" else None) or rules.length

    @property
    def mentions(self) -> re.Pattern[str] | None:
        """The mentions that no escaping may touch."""
        return self.rules.mentions if self.allow_mentions else None

    @property
    def rules(self) -> Service:
        """What the service asks for."""
        return SERVICES[self.service]

    @property
    def base(self) -> str:
        """The base URL of the service, without a slash at its end."""
        return (self.api or self.rules.api or "").strip().rstrip("/").removesuffix("/api/v4")


def _way_faults(options: ChatOptions) -> list[str]:
    """What is wrong with `url`, `token`, `to` and `api` together."""
    rules, name = options.rules, options.service
    by_url, by_bot = options.url is not None, options.token is not None or bool(options.to)
    if by_url and by_bot:
        return ["give `url` (a webhook) or `token` and `to` (a bot), not both"]
    if by_url and not rules.webhook:
        return [f"{name} has no webhooks: give `token` and `to` instead of `url`"]
    if by_bot and not rules.bot:
        return [f"{name} is reached by its webhook alone: give `url` instead of `token` and `to`"]
    if not by_url and not by_bot:
        ways = [
            way for way, has in (("`url` (a webhook)", rules.webhook), ("`token` and `to` (a bot)", rules.bot)) if has
        ]
        return [f"{name} needs {' or '.join(ways)}"]
    if by_url:
        return []
    missing = [key for key, has in (("token", options.token), ("to", options.to)) if not has]
    if missing:
        return [f"`{missing[0]}` is missing: a bot needs `token` and `to`"]
    return [] if options.base else [f"{name} needs `api`, the address of your server: https://chat.example.org"]


def _address_faults(options: ChatOptions, *, allow_private: bool) -> list[str]:
    """What is wrong with the values of `url`, `token`, `to` and `api`, none of them shown."""
    faults = []
    for key, secret in (("url", options.url), ("api", options.api)):
        text = secret.get_secret_value() if isinstance(secret, Secret) else secret
        if text is not None and (fault := _url_fault(text.strip(), allow_private)):
            faults.append(f"`{key}` {fault}")
    if options.token is not None and not re.fullmatch(r"[!-~]+", options.token.get_secret_value().strip()):
        faults.append("`token` is empty or has a character that no token has")
    if options.text is None and _templated(options.to):
        faults.append("`to` is a template, so `text` is needed: one user should not get JSON")
    return faults


def _templated(addresses: Sequence[str]) -> bool:
    return any("{{" in address or "{%" in address for address in addresses)


def _url_fault(text: str, allow_private: bool) -> str | None:
    if text and not re.fullmatch(r"[!-~]+", text):
        return "has a space, a control character or a letter outside ASCII; write it percent-encoded (a host as xn--…)"
    try:
        url = urlsplit(text)
        host, good = url.hostname or "", url.scheme in {"http", "https"} and url.port != 0
    except ValueError:
        host, good = "", False
    if not good or not host:
        return "is no http:// or https:// URL"
    if not allow_private and private_host(host):
        return f"leads to {host}, a private address; set `allow_private: true` on the sink"
    return None


# --- what an answer means ---------------------------------------------------------------------------------------------

LONGEST_WAIT = 3600.0  # seconds; a larger one in a body was milliseconds, or a mistake

# By Slack's words: what is wrong with the token or the webhook, and what passes. Every other word is the message's fault.
SLACK_SINK = frozenset(
    "invalid_auth not_authed invalid_token token_revoked token_expired not_allowed_token_type account_inactive "  # noqa: SIM905  # short
    "missing_scope no_permission access_denied accesslimited org_login_required ekm_access_denied "
    "team_access_not_granted two_factor_setup_required enterprise_is_restricted deprecated_endpoint method_deprecated "
    "no_service no_service_id no_team no_active_hooks team_disabled action_prohibited".split()
)
SLACK_AGAIN = frozenset(
    "ratelimited rate_limited message_limit_exceeded internal_error fatal_error service_unavailable "  # noqa: SIM905  # short
    "request_timeout rollup_error team_added_to_org".split()
)
DISCORD_SINK = frozenset({40001, 40002, 50014})
DISCORD_AGAIN = frozenset({40003, 40062, 130000})
DISCORD_NOBODY = frozenset({10003, 10013, 50033})


class OutOfReachError(TransientError):
    """Nothing gets through for now, to whatever address: no connection, or too many requests."""


class NobodyError(PermanentError):
    """The service knows no such address."""


class NoPageError(SinkError):
    """A 404 that is not the service's own: most likely `api` is wrong."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer as far as it may be shown: without the secrets of the sink, in case the service echoes them."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """The body where it is a JSON object, else nothing."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def done(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    @property
    def understood(self) -> bool:
        """False for a success that some other page than the API's reports: a login, a proxy's greeting."""
        return not self.done or bool(self.data) or self.body.strip() in {b"", b"ok", b"{}"}


Judge = Callable[[Seen, float], None]
"""Returns for a message that was taken, raises what the answer means else; with the time, for a Retry-After."""


def judge_status(seen: Seen, now: float, wait: Any = None, *, everywhere: bool = False) -> None:
    """By the status alone. `wait` is the delay in seconds that the body asks for, if it does.

    `everywhere` says that a limit is the whole bot's, and not that of one address.
    """
    try:
        check_response(seen, now=now)
    except TransientError as error:
        said = (retry_after(seen.headers, now), _seconds(wait), error.retry_after)
        kind = OutOfReachError if seen.status == 429 else TransientError
        scope = "sink" if everywhere else error.scope
        asked = next((seconds for seconds in said if seconds is not None), None)
        raise kind(str(error), retry_after=asked, scope=scope) from None


def judge_webhook(seen: Seen, now: float) -> None:
    """By the status; the URL is the credential, so a 403 is its refusal. Discord's body says how long to wait."""
    if seen.status == 403:
        raise SinkError(quote_response(seen))
    judge_status(seen, now, seen.data.get("retry_after"))


def judge_slack_webhook(seen: Seen, now: float) -> None:
    """Slack says why in one word."""
    word = seen.data.get("error") or seen.body[:100].decode("utf-8", "replace").strip()
    if word in SLACK_SINK or seen.data.get("ok") is False:
        _judge_slack_word(str(word), seen, now)
    judge_webhook(seen, now)


def judge_slack(seen: Seen, now: float) -> None:
    """The Web API answers 200, and `ok: false` with one word where it refuses."""
    if not seen.understood:
        raise TransientError(f"the answer is none of Slack's: {quote_response(seen)}")
    if seen.data.get("ok") is False:
        _judge_slack_word(str(seen.data.get("error") or "no, and not why"), seen, now)
    judge_status(seen, now)


def _judge_slack_word(word: str, seen: Seen, now: float) -> None:
    """Raises what the word means; returns for one that means nothing by itself beside a status that does."""
    wait, message = retry_after(seen.headers, now), f"Slack says {word[:100]}"
    needed = seen.data.get("needed")
    if word in SLACK_SINK:
        raise SinkError(f"{message}: {needed}" if needed else message, retry_after=wait)
    if "rate" in word and word in SLACK_AGAIN:
        judge_status(replace(seen, status=429, body=message.encode()), now)
    if word in SLACK_AGAIN:
        raise TransientError(message, retry_after=wait)
    if seen.done or seen.status == 400:
        raise PermanentError(message)


def judge_telegram(seen: Seen, now: float) -> None:
    """The Bot API says `ok`, else a code, a sentence, and what would help."""
    data = seen.data
    if seen.done and data.get("ok") is not False:
        if not seen.understood:
            raise TransientError(f"the answer is none of Telegram's: {quote_response(seen)}")
        return
    told = data.get("parameters")
    hints: Mapping[str, Any] = told if isinstance(told, dict) else {}
    code = data.get("error_code")
    status = code if isinstance(code, int) and 400 <= code < 600 else seen.status if not seen.done else 400
    described = replace(seen, status=status, body=str(data.get("description") or "").encode() or seen.body)
    if "migrate_to_chat_id" in hints:
        raise PermanentError(f"{quote_response(described)}; the group is now {hints['migrate_to_chat_id']}")
    judge_status(described, now, hints.get("retry_after"))


def judge_discord(seen: Seen, now: float) -> None:
    """By Discord's own code where it says more than the status."""
    code = seen.data.get("code")
    if seen.done:
        return
    if code in DISCORD_SINK:
        raise SinkError(quote_response(seen))
    if code in DISCORD_AGAIN and seen.status != 429:
        raise TransientError(quote_response(seen), retry_after=_seconds(seen.data.get("retry_after")))
    if code in DISCORD_NOBODY:
        raise NobodyError(quote_response(seen))
    if seen.status == 404:
        raise NoPageError(quote_response(seen))
    # Discord's documentation, "Rate Limits": a limit is a route's and an address's, unless one of these says otherwise.
    told = (seen.headers.get("X-RateLimit-Global", ""), seen.headers.get("X-RateLimit-Scope", ""))
    everywhere = seen.data.get("global") is True or bool({"true", "global"} & {word.strip().lower() for word in told})
    judge_status(seen, now, seen.data.get("retry_after"), everywhere=everywhere)


def judge_teams(seen: Seen, now: float) -> None:
    """Older Teams webhooks answer 200 and put the status of the refusal into a sentence."""
    judge_webhook(seen, now)
    hidden = re.search(rb"HTTP error (\d{3})", seen.body)
    if hidden:
        judge_webhook(replace(seen, status=int(hidden[1])), now)


def judge_mattermost_webhook(seen: Seen, now: float) -> None:
    """A webhook that is gone or switched off is answered with 400 and 501."""
    if not seen.done and re.search(r"incoming_webhook\.(?:invalid|disabled)", str(seen.data.get("id"))):
        raise SinkError(quote_response(seen))
    judge_webhook(seen, now)


def judge_mattermost(seen: Seen, now: float) -> None:
    """A channel that isn't there, and one that the bot is not in, both are 403; an unknown user is 404."""
    known = bool(seen.data.get("id")) and seen.data.get("id") != "api.context.404.app_error"
    if seen.status == 404 and not known:
        raise NoPageError(quote_response(seen))
    if seen.status in {400, 403, 404}:
        raise NobodyError(quote_response(seen))
    judge_status(seen, now)


def judge_google(seen: Seen, now: float) -> None:
    """A wrong key is a 400 at Google."""
    if seen.status == 400 and b"API key" in seen.body:
        raise SinkError(quote_response(seen))
    judge_webhook(seen, now)


def _seconds(value: Any) -> float | None:
    """A delay that a body asks for, bounded; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124  # NaN
        return None
    return max(0.0, min(float(value), LONGEST_WAIT))


# --- the way to the service -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Api:
    """Requests to one service, judged; `base` goes before every path.

    `one_place` says that all of them are for the same destination, a team's, so that whoever is asked to wait is asked for all.
    """

    http: HttpClient
    clock: Clock
    base: str
    judge: Judge
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[bytes] = ()
    one_place: bool = False
    quiet_until: float = 0.0

    async def call(self, path: str, payload: Any = None, method: str = "POST") -> dict[str, Any]:
        """Send and return the answer's JSON object. Raises what the answer means.

        Another delivery may be between two requests, or two addresses, when the service asks for time: it goes no further.
        """
        if (left := self.quiet_until - self.clock.monotonic()) > 0:
            raise OutOfReachError("not sent: the service has asked for time", retry_after=left, scope="sink")
        try:
            answer = await self.http.request(method, self.base + path, json=payload, headers=self.headers)
        except TransientError as error:
            raise OutOfReachError(str(error), retry_after=error.retry_after) from None
        seen = Seen(answer.status, answer.headers, self._without_secrets(answer.body))
        try:
            self.judge(seen, self.clock.now())
        except OutOfReachError as error:
            if error.retry_after is not None and (self.one_place or error.scope == "sink"):
                self.quiet_until = max(self.quiet_until, self.clock.monotonic() + error.retry_after)
            raise
        return seen.data

    def _without_secrets(self, body: bytes) -> bytes:
        for secret in self.secrets:
            body = body.replace(secret, b"***")
        return body


def secret_parts(options: ChatOptions) -> list[bytes]:
    """What must not show: the token; the webhook, its path, and each part long enough to be a credential."""
    found = set()
    if options.token is not None:
        found.add(options.token.get_secret_value().strip())
    if options.url is not None:
        whole = options.url.get_secret_value().strip()
        url = urlsplit(whole)
        parts = re.split(r"[/?&=]", f"{url.path}?{url.query}")
        found |= {whole, f"{url.path}?{url.query}", url.path, *(part for part in parts if len(part) >= 8)}
    return sorted((part.encode() for part in found if len(part) > 4), key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Message:
    """One text on its way to one address. `key` is the same on every attempt."""

    text: str
    options: ChatOptions
    key: str = ""

    @property
    def plain(self) -> bool:
        """Whether it is to be shown as written."""
        return self.options.markup == "plain"

    @property
    def nonce(self) -> str:
        """The key in the 24 characters that services take."""
        return hashlib.blake2b(self.key.encode(), digest_size=12).hexdigest()


# --- webhooks ---------------------------------------------------------------------------------------------------------

CARD_LINES = 100


def slack_body(message: Message) -> dict[str, Any]:
    """Slack reads no `*bold*` where `mrkdwn` is false."""
    return {"text": message.text, "mrkdwn": False} if message.plain else {"text": message.text}


def text_body(message: Message) -> dict[str, Any]:
    """Mattermost and Google Chat."""
    return {"text": message.text}


def discord_body(message: Message) -> dict[str, Any]:
    """Discord mentions only whom it is allowed to."""
    allowed: dict[str, Any] = {} if message.options.allow_mentions else {"allowed_mentions": {"parse": []}}
    return {"content": message.text, **allowed}


def teams_body(message: Message) -> dict[str, Any]:
    """An Adaptive Card. A text block has no line breaks of its own, so each line of a plain text is a block."""
    lines = message.text.split("\n") if message.plain else [message.text]
    if len(lines) > CARD_LINES:
        lines = [*lines[: CARD_LINES - 1], " ".join(lines[CARD_LINES - 1 :])]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "TextBlock", "text": line or BREAK, "wrap": True, "spacing": "None"} for line in lines],
        "msteams": {"width": "Full"},
    }
    content_type = "application/vnd.microsoft.card.adaptive"
    return {
        "type": "message",
        "attachments": [{"contentType": content_type, "contentUrl": None, "content": card}],
    }


WEBHOOKS: dict[str, tuple[Callable[[Message], dict[str, Any]], Judge]] = {
    "slack": (slack_body, judge_slack_webhook),
    "discord": (discord_body, judge_webhook),
    "teams": (teams_body, judge_teams),
    "mattermost": (text_body, judge_mattermost_webhook),
    "google-chat": (text_body, judge_google),
}


def webhook_url(options: ChatOptions) -> str:
    """The webhook. Discord is asked to wait (`wait=true`): else it says yes to a message that it then drops."""
    url = options.url.get_secret_value().strip() if options.url else ""
    if options.service != "discord" or "wait=" in urlsplit(url).query:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}wait=true"


# --- bots -------------------------------------------------------------------------------------------------------------

REMEMBERED_CHANNELS = 10_000


class Recent(dict[str, Any]):
    """A mapping that forgets what was put in first once it holds `most`."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: str, value: Any) -> None:
        self.pop(key, None)
        super().__setitem__(key, value)
        while len(self) > self.most:
            del self[next(iter(self))]


class SlackBot:
    """`chat.postMessage`; `to` is a channel's id or name, or a user's id, whom it reaches in a direct message."""

    judge: Judge = staticmethod(judge_slack)

    def __init__(self, api: Api, token: str) -> None:
        self.api = api
        api.headers = {"Authorization": f"Bearer {token}"}

    async def send(self, address: str, message: Message) -> None:
        """Send one message."""
        await self.api.call("/chat.postMessage", {"channel": address, **slack_body(message)})


class TelegramBot:
    """`sendMessage`; `to` is a chat's id (a user's is its chat's) or a public channel's `@name`."""

    judge: Judge = staticmethod(judge_telegram)

    def __init__(self, api: Api, token: str) -> None:
        self.api = api
        self.path = f"/bot{quote(token, safe=':')}/sendMessage"

    async def send(self, address: str, message: Message) -> None:
        """Send one message."""
        chat = int(address) if re.fullmatch(r"-?[0-9]{1,18}", address) else address
        body = {"chat_id": chat, "text": message.text}
        await self.api.call(self.path, body if message.plain else {**body, "parse_mode": "HTML"})


Way = tuple[Callable[[str], Awaitable[str]], str]
"""How a channel's id is found, and from what."""


class ChannelBot:
    """What Discord and Mattermost share: a user is reached through a channel, whose id has to be asked for first.

    Which channel an address stands for is remembered. An address that does not say what it is is tried both ways.
    """

    scheme = "Bearer"

    def __init__(self, api: Api, token: str) -> None:
        self.api = api
        self.known = Recent(REMEMBERED_CHANNELS)
        api.headers = {"Authorization": f"{self.scheme} {token}"}

    async def send(self, address: str, message: Message) -> None:
        """Send one message by the first way that leads anywhere."""
        refusals: list[NobodyError | NoPageError] = []
        for find, name in self._ways(address):
            try:
                channel = await find(name)
                await self.post(channel, message)
            except (NobodyError, NoPageError) as error:
                self.known.pop(address, None)
                refusals.append(error)
            else:
                self.known[address] = channel
                return
        if all(isinstance(refusal, NoPageError) for refusal in refusals):
            raise SinkError(f"{refusals[-1]}; is `api` the base URL of the service?")
        raise PermanentError(f"{address} is no user and no channel that the bot can write to: {refusals[-1]}")

    def _ways(self, address: str) -> list[Way]:
        ways = self.ways(address)
        return [(itself, self.known[address]), *ways] if address in self.known else ways

    def ways(self, address: str) -> list[Way]:
        """The ways to try, in order. Raises `PermanentError` for what can be no address."""
        raise NotImplementedError

    async def post(self, channel: str, message: Message) -> None:
        """Send one message to a channel."""
        raise NotImplementedError


async def itself(channel: str) -> str:
    """The id of a channel that is given by its id."""
    return channel


class DiscordBot(ChannelBot):
    """`to` is `user:ID`, `channel:ID`, or an id alone: a user's if Discord knows such a user, else a channel's."""

    judge: Judge = staticmethod(judge_discord)
    scheme = "Bot"

    def ways(self, address: str) -> list[Way]:
        """A user first: reaching one is what an id from an event is for."""
        known = re.fullmatch(r"(?:(user:|@)|(channel:|#))?([0-9]{1,25})", address)
        if known is None:
            raise PermanentError(f"{address} is no id of Discord: write digits, user:ID or channel:ID")
        user, channel, name = known.groups()
        ways: list[Way] = [(self.direct, name), (itself, name)]
        return ways[:1] if user else ways[1:] if channel else ways

    async def direct(self, user: str) -> str:
        """The channel of the direct messages with a user; Discord makes it once and gives it again."""
        try:
            return channel_id(await self.api.call("/users/@me/channels", {"recipient_id": user}))
        except PermanentError as error:
            raise NobodyError(str(error)) from None

    async def post(self, channel: str, message: Message) -> None:
        """Send one message; Discord takes no second one with the same nonce within a few minutes."""
        once = {"nonce": message.nonce, "enforce_nonce": True}
        await self.api.call(f"/channels/{channel}/messages", {**discord_body(message), **once})


class MattermostBot(ChannelBot):
    """`to` is `@name`, a mail address, `user:ID`, `channel:ID`, or an id alone: a channel's, or else a user's."""

    judge: Judge = staticmethod(judge_mattermost)

    def __init__(self, api: Api, token: str) -> None:
        super().__init__(api, token)
        self.me = ""

    def ways(self, address: str) -> list[Way]:
        """By what the address looks like."""
        kind, colon, name = address.partition(":")
        if address.startswith("@"):
            return [(self.direct_by_name, address[1:])]
        if "@" in address:
            return [(self.direct_by_mail, address)]
        ways: dict[str, Way] = {"channel": (itself, name if colon else address), "user": (self.direct, name or address)}
        if colon and kind not in ways:
            raise PermanentError(f"{address} is no address of Mattermost: write an id, @name, user:ID or channel:ID")
        return [ways[kind]] if colon else list(ways.values())

    async def direct_by_name(self, name: str) -> str:
        """The channel of the direct messages with a user, by the user's name."""
        return await self.direct(channel_id(await self._get(f"/users/username/{quote(name, safe='')}")))

    async def direct_by_mail(self, address: str) -> str:
        """The same, by the user's mail address."""
        return await self.direct(channel_id(await self._get(f"/users/email/{quote(address, safe='')}")))

    async def direct(self, user: str) -> str:
        """The same, by the user's id."""
        if not self.me:
            self.me = channel_id(await self._get("/users/me"))
        return channel_id(await self.api.call("/api/v4/channels/direct", [self.me, user]))

    async def post(self, channel: str, message: Message) -> None:
        """Send one message; the server takes no second one with the same pending id for half a minute."""
        body = {"channel_id": channel, "message": message.text, "pending_post_id": message.nonce}
        await self.api.call("/api/v4/posts", body)

    async def _get(self, path: str) -> dict[str, Any]:
        return await self.api.call(f"/api/v4{path}", method="GET")


def channel_id(answer: Mapping[str, Any]) -> str:
    """The `id` of what a service found or made."""
    found = answer.get("id")
    if not isinstance(found, str | int) or not str(found):
        raise TransientError("the service's answer has no id in it")
    return str(found)


Bot = SlackBot | TelegramBot | DiscordBot | MattermostBot

BOTS: dict[str, type[Bot]] = {
    "slack": SlackBot,
    "telegram": TelegramBot,
    "discord": DiscordBot,
    "mattermost": MattermostBot,
}


# --- the sink ---------------------------------------------------------------------------------------------------------

REMEMBERED_DELIVERIES = 1_000

CUTS_QUIET = 60.0
"""Seconds between two lines about texts that were cut."""

Failure = TransientError | PermanentError


class ChatSink(Sink):
    """Sends each event to a chat: one message by a webhook, or one to each address by a bot."""

    def __init__(self, options: ChatOptions) -> None:
        self.options = options
        self.context: SinkContext | None = None
        self.webhook: Api | None = None
        self.bot: Bot | None = None
        # Who has got a delivery that was cut off between two of its addresses: its next attempt leaves them out.
        self.reached = Recent(REMEMBERED_DELIVERIES)
        self.cuts = 0
        """Texts cut since the last line that says so."""
        self.cuts_told_at = float("-inf")

    async def open(self, context: SinkContext) -> None:
        """Prepare the way; nothing is sent."""
        self.context = context
        options = self.options
        if options.token is not None:
            kind = BOTS[options.service]
            self.bot = kind(self._api(context, options.base, kind.judge), options.token.get_secret_value().strip())
        else:
            self.webhook = self._api(context, webhook_url(options), WEBHOOKS[options.service][1])

    def _api(self, context: SinkContext, base: str, judge: Judge) -> Api:
        options = self.options
        one_place = not _templated(options.to)
        return Api(context.http, context.clock, base, judge, secrets=secret_parts(options), one_place=one_place)

    async def deliver(self, event: Event, options: ChatOptions) -> None:
        """Send the event to every address of `options`. Raises what kept it from any of them."""
        text = self._text(event, options)
        if self.webhook is not None:
            await self.webhook.call("", WEBHOOKS[options.service][0](Message(text, options)))
        elif self.bot is not None:
            await self._to_each(self.bot, event, options, text)

    def _text(self, event: Event, options: ChatOptions) -> str:
        text = options.text
        if text is None:
            text = options.escape_value(json_line(event).decode())
        if not text.strip():
            raise PermanentError("the text is empty")
        finished, cut = options.finish(text)
        if cut and self.context is not None:
            self._tell_cut(self.context, event, options.length.limits[0][0])
        return finished

    def _tell_cut(self, context: SinkContext, event: Event, limit: int) -> None:
        """Log that a text was cut, at most once a minute: who publishes may make every text too long."""
        self.cuts += 1
        now = context.clock.monotonic()
        if now - self.cuts_told_at >= CUTS_QUIET:
            context.log.info("text cut to the service's limit", event_id=event.id, limit=limit, number=self.cuts)
            self.cuts, self.cuts_told_at = 0, now

    async def _to_each(self, bot: Bot, event: Event, options: ChatOptions, text: str) -> None:
        addresses = list(dict.fromkeys(options.to))
        reached: set[str] = self.reached.pop(event.key, set())
        failures: dict[str, Failure] = {}
        try:
            for address in addresses:
                if address in reached:
                    continue
                failure = _hopeless(failures) or await self._to_one(bot, event, options, text, address)
                if isinstance(failure, SinkError):
                    if not reached and not failures:
                        raise failure
                    failure = OutOfReachError(str(failure), retry_after=failure.retry_after)
                if failure is None:
                    reached.add(address)
                else:
                    failures[address] = failure
        except asyncio.CancelledError:
            self.reached[event.key] = reached
            raise
        if failures:
            raise failures[addresses[0]] if len(addresses) == 1 else PartialError(failures)

    @staticmethod
    async def _to_one(
        bot: Bot, event: Event, options: ChatOptions, text: str, address: str
    ) -> Failure | SinkError | None:
        """Send to one address and return what went wrong."""
        key = f"{event.id}:{event.route}:{event.sink}:{address}"
        try:
            await bot.send(address, Message(text, options, key))
        except (TransientError, PermanentError, SinkError) as error:
            return error
        return None


def _hopeless(failures: Mapping[str, Failure]) -> Failure | None:
    """The failure that makes it pointless to try the next address now, if there was one.

    A limit of one address stops the others too, for the host has to hear of it before anything else is sent to that
    address. They come right after.
    """
    found = next((failure for failure in failures.values() if isinstance(failure, OutOfReachError)), None)
    if found is None or found.retry_after is None or found.scope == "sink":
        return found
    return OutOfReachError(f"not sent yet, another address was refused: {found}", retry_after=0.0)


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `chat`."""
    register("chat", ChatSink, options=ChatOptions)
