"""Escaping of texts and mentions for several services, mainly for Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

Change = Callable[[str], str]

BREAK = "\u200b"  # ZERO WIDTH SPACE: invisible, but it separates words for every service

# The patterns are strings. They are compiled when they are first used, so that the router starts quickly.
LINK = r"(https?://(?:(?!&(?:lt|gt|quot|commat|#))[^\s<>\[\]()*`|\\\"])+)"
MARKDOWN = (
    r"[\\`*|~]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # within a word, Markdown shows `_` as written
    r"|\](?=[(\[:]|\Z)"  # the end of a link's text, or of a link definition's label
    r"|!(?=\[)|&(?=#?\w{1,31};)"  # the beginning of an image or an entity
)
# Mattermost reads U+2424 as a line break and U+00A0 as a space, so both are in these classes.
LINE = r"(?m)(?:^|(?<=[\r\u2424]))"
MARKDOWN_LINE = (
    rf"{LINE}([ \t\u00a0]*(?:"
    r"\d{1,9}(?=[.)](?:[\s\u2424]|\Z))|"  # a numbered list: the backslash goes before the point or bracket
    r"(?=\#{1,6}(?:[\s\u2424]|\Z)|>|[-+](?:[\s\u2424\#]|\Z)|"
    r"(?:=++[ \t\u00a0]*+|:?-[-: \t\u00a0]*+)(?=[\r\n\u2424]|\Z))))"  # a line below a heading, a rule, or the line below a table's head
)
INDENTED = rf"{LINE}(?=[ \u00a0]{{0,3}}\t|[ \u00a0]{{4}}|[ \t\u00a0]+\Z)"
# Mattermost's webhooks accept Slack's mentions too.
SLACK_MENTION = r"(?i)<(?=@|!(?:here|channel|everyone|all|group|subteam))"
EVERYBODY = r"(?i)(?<![A-Za-z0-9])@(?=(?:everyone|here|channel|all)\b)"
ANYBODY = r"(?<![A-Za-z0-9])@(?!\s)"  # also before a tag or at the end, because the name may follow inside a tag


def spare(text: str, tokens: str | None, change: Change) -> str:
    """Return the text, changed by `change` except where the pattern `tokens` matches.

    The pattern has exactly one group. None means that there is no exception.
    """
    if tokens is None:
        return change(text)
    return "".join(part if place % 2 else change(part) for place, part in enumerate(re.split(tokens, text)))


def markdown(text: str) -> str:
    """Return text that Markdown shows as written. Only characters that could be markup get a backslash; URLs do not."""
    characters = spare(text, LINK, lambda part: re.sub(MARKDOWN, r"\\\g<0>", part))
    return re.sub(INDENTED, BREAK, re.sub(MARKDOWN_LINE, r"\1\\", characters))


def tagless(text: str) -> str:
    """Return text that Discord shows as written: Markdown, HTML, and its own `<@…>`, `<#…>`, `<:…>` and `<t:…>`."""
    return re.sub(r"<(?![\s\d=-])", r"\\<", markdown(text))


def apart(escape: Change) -> Change:
    """Return a function that escapes a value like `escape`, and separates it from the Markdown text around it.

    Invisible breaks separate the value from the text. Without the breaks, `[ALERT]{{ payload.a }}` with the value
    `(https://evil.example)` would be a link. Also, a backslash before the value would cancel the value's first
    backslash.
    """
    start = r"\A(?=[ \t\u00a0(\[:\\]|[.)](?:[\s\u2424]|\Z)|#?\w{0,31};)"  # continues a link, entity or list, or indents
    end = r"(?:!|&#?\w{0,31})\Z"  # may begin an image or an entity
    return lambda text: re.sub(end, rf"\g<0>{BREAK}", re.sub(start, BREAK, escape(text)))


def apart_from_ampersand(escape: Change) -> Change:
    """Return a function that escapes a value like `escape`, for a text with HTML entities.

    If the text before the value ends with `&`, a value such as `lt;` would complete an entity. An invisible break at
    the beginning of the value prevents that.
    """

    def escaped(text: str) -> str:
        text = escape(text)
        return re.sub(r"\A(?=#?\w{0,31};)", BREAK, text) if ";" in text else text

    return escaped


def muted(*changes: tuple[str, str], names: str = EVERYBODY) -> Change:
    """Return a function that disables mentions in a text, so that nobody is notified.

    Each of `changes` is a pattern and its replacement. Then `BREAK` is inserted after each `@` that the pattern `names`
    matches outside of URLs.
    """

    @cache
    def patterns() -> tuple[list[tuple[re.Pattern[str], str]], re.Pattern[str]]:
        return [(re.compile(pattern), harmless) for pattern, harmless in changes], re.compile(names)

    def mute(text: str) -> str:
        compiled, name = patterns()
        for pattern, harmless in compiled:
            text = pattern.sub(harmless, text)
        if "@" not in text:  # most texts; a search for URLs takes much longer
            return text
        return spare(text, LINK, lambda part: name.sub(f"@{BREAK}", part))

    return mute
