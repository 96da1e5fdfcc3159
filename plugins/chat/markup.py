"""Text that shows as written and mentions nobody: what the services share, Markdown above all."""

from __future__ import annotations

import re
from collections.abc import Callable

Change = Callable[[str], str]

BREAK = "\u200b"  # ZERO WIDTH SPACE: nobody sees it, and no service takes what is around it for one word

# Patterns are text here: each is compiled when it is first used, so that a start does without.
LINK = r"(https?://(?:(?!&(?:lt|gt|quot|commat|#))[^\s<>\[\]()*`|\\\"])+)"
MARKDOWN = (
    r"[\\`*|~]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # within a word it is a letter like any other
    r"|\](?=[(\[:]|\Z)"  # a link, and the definition of one
    r"|!(?=\[)|&(?=#?\w{1,31};)"  # an image, an entity
)
# Mattermost's reader takes U+2424 for a line break and U+00A0 for a space, so both stand here beside the usual ones.
LINE = r"(?m)(?:^|(?<=[\r\u2424]))"
MARKDOWN_LINE = (
    rf"{LINE}([ \t\u00a0]*(?:"
    r"\d{1,9}(?=[.)](?:[\s\u2424]|\Z))|"  # a numbered list: the point or bracket gets the backslash
    r"(?=\#{1,6}(?:[\s\u2424]|\Z)|>|[-+](?:[\s\u2424\#]|\Z)|"
    r"(?:=++[ \t\u00a0]*+|:?-[-: \t\u00a0]*+)(?=[\r\n\u2424]|\Z))))"  # below a heading, a rule, the head of a table
)
INDENTED = rf"{LINE}(?=[ \u00a0]{{0,3}}\t|[ \u00a0]{{4}}|[ \t\u00a0]+\Z)"
# Mattermost's webhooks take Slack's mentions too.
SLACK_MENTION = r"(?i)<(?=@|!(?:here|channel|everyone|all|group|subteam))"
EVERYBODY = r"(?i)(?<![A-Za-z0-9])@(?=(?:everyone|here|channel|all)\b)"
ANYBODY = r"(?<![A-Za-z0-9])@(?!\s)"  # at the end of a part too: the name may stand in the next tag


def spare(text: str, tokens: str | None, change: Change) -> str:
    """Return the text with `change` made to all of it but these tokens, which are the pattern's one group."""
    if tokens is None:
        return change(text)
    return "".join(part if place % 2 else change(part) for place, part in enumerate(re.split(tokens, text)))


def markdown(text: str) -> str:
    """Return text that a Markdown reader shows as written. Only what could be markup gets a backslash, and no URL."""
    characters = spare(text, LINK, lambda part: re.sub(MARKDOWN, r"\\\g<0>", part))
    return re.sub(INDENTED, BREAK, re.sub(MARKDOWN_LINE, r"\1\\", characters))


def tagless(text: str) -> str:
    """Return text that Discord shows as written: Markdown, HTML, and its own `<@…>`, `<#…>`, `<:…>` and `<t:…>`."""
    return re.sub(r"<(?![\s\d=-])", r"\\<", markdown(text))


def apart(escape: Change) -> Change:
    """Return `escape` for one value of a Markdown text, harmless whatever stands in front of it and behind.

    Without the invisible breaks `[ALERT]{{ payload.a }}` with `(https://evil.example)` would be a link. A backslash in
    front would take away the value's own.
    """
    start = (
        r"\A(?=[ \t\u00a0(\[:\\]|[.)](?:[\s\u2424]|\Z)|#?\w{0,31};)"  # of a link, an entity, a list, an indented line
    )
    end = r"(?:!|&#?\w{0,31})\Z"  # of an image, an entity
    return lambda text: re.sub(end, rf"\g<0>{BREAK}", re.sub(start, BREAK, escape(text)))


def apart_from_ampersand(escape: Change) -> Change:
    """Return `escape` for one value of a text with entities, harmless after an `&` of the text too."""
    return lambda text: re.sub(r"\A(?=#?\w{0,31};)", BREAK, escape(text))


def muted(*changes: tuple[str, str], names: str = EVERYBODY) -> Change:
    """Return a function that takes the mentions out of a text: those in `changes`, and `@name` outside of URLs."""

    def mute(text: str) -> str:
        for pattern, harmless in changes:
            text = re.sub(pattern, harmless, text)
        return spare(text, LINK, lambda part: re.sub(names, f"@{BREAK}", part))

    return mute
