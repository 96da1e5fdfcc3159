"""The length of a text as a service counts it, and the places where a long text may be cut."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from operator import gt, sub
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import regex

MARKER = "…"
TAG = r"(?i)<(/?)([a-z][a-z0-9-]*+)[^<>]*+>"
URL_ENDS = ' \t\n"<>'

# Constructs that are never cut, besides URLs and grapheme clusters. Every pattern takes linear time: an attempt to
# match a link stops at doubly nested brackets, so each character is examined at most twice.
BRACKETS = (r"<[@#:!/a-z][^<>]*+>", r"&(?:amp|lt|gt);")
MARKDOWN_UNITS = (
    r"!?\[(?:\\.|[^\[\]\\]++|\[(?:\\.|[^\[\]\\]++)*+\])*+\]\((?:\\.|[^()\\]++|\((?:\\.|[^()\\]++)*+\))*+\)",
    r"<[@#:!/a-z][^<>]*+>",
    r"&#?\w{1,31};",
    r"\\\X",
)


def units(text: str) -> int:
    """Return the length of a text in UTF-16 units. Telegram counts these units, and no other service counts more."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


@cache
def pieces(constructs: tuple[str, ...]) -> regex.Pattern[str]:
    """Return a pattern for the pieces of a text that are never cut in two.

    A piece is one of the `constructs`, a URL, or a grapheme cluster.
    """
    import regex  # noqa: PLC0415  # imported only when a text is too long, for a quick start

    whole = "|".join(
        (*constructs, r"(?:https?|ftp)://[^\s<>\"\u200b]++", r"\p{RI}{2}")
    )  # \X is slow for a long row of flags
    return regex.compile(
        rf"\p{{Grapheme_Cluster_Break=Prepend}}*+(?:{whole})[\p{{M}}\u200d]*+|\X", regex.DOTALL | regex.IGNORECASE
    )


class Length(NamedTuple):
    """The limits on the length of a text.

    Each of `limits` is a maximum and the function that measures the text. `whole` are the constructs that are never cut
    in two (see `pieces`). If `html` is true, the text is HTML: tags that a cut leaves open are closed.
    """

    limits: tuple[tuple[int, Callable[[str], int]], ...]
    whole: tuple[str, ...] = ()
    html: bool = False

    def start(self, text: str) -> str:
        """Return the text, or its beginning with the marker if the text is longer than about twice the limit.

        This rough cut comes before the escaping, which would be slow for a huge text. No URL is cut in two.
        """
        if len(text) <= self.limits[0][0]:  # most texts are short
            return text
        most = 2 * max(limit for limit, _ in self.limits)
        if len(text) <= most:
            return text
        last = last_word(text, most)
        return text[: last if text.find("://", last, most) >= 0 else most] + MARKER

    def shorten(self, text: str) -> str:
        """Return the text, cut if it is above a limit, with the marker at its end.

        The marker also replaces each piece that is longer than a limit.
        """
        if all(size(text) <= limit for limit, size in self.limits):
            return text
        marker = f" {MARKER}"
        costs = [size(marker) for _, size in self.limits]
        room = [limit - cost for (limit, _), cost in zip(self.limits, costs, strict=True)]
        most = room.copy()
        kept: list[str] = []
        for match in pieces(self.whole).finditer(text):
            piece = match[0]
            needs = [size(piece) for _, size in self.limits]
            if any(map(gt, needs, most)):
                piece, needs = marker, costs
            room = list(map(sub, room, needs))
            if min(room) < 0:
                kept = [_ended("".join(kept))]
                break
            kept.append(piece)
        short = "".join(kept)
        return close_tags(short) if self.html else short


def last_word(text: str, end: int) -> int:
    """Return the index at which the last word before `end` begins. The word may be a URL."""
    return max(text.rfind(character, 0, end) for character in URL_ENDS) + 1


def _ended(text: str) -> str:
    """Return the text with the marker at its end. After a URL, a space keeps the marker out of the URL."""
    text = text.rstrip()
    if text.endswith(MARKER):
        return text
    return f"{text} {MARKER}" if "://" in text[last_word(text, len(text)) :] else f"{text}{MARKER}"


def close_tags(text: str) -> str:
    """Return the text with a closing tag for every HTML tag that a cut has left open."""
    open_tags: list[str] = []
    number: Counter[str] = Counter()
    for slash, name in re.findall(TAG, text):
        if not slash:
            open_tags.append(name)
            number[name] += 1
        elif number[name]:
            while (last := open_tags.pop()) != name:
                number[last] -= 1
            number[name] -= 1
    return text + "".join(f"</{name}>" for name in reversed(open_tags))
