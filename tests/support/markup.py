"""What a chat service's reader would make of a text, by the rules that the service documents; stricter where in doubt.

`constructs` names every piece of markup that a reader would act on, `shown` is the text that people then see.
"""

from __future__ import annotations

import html
import re

BREAK = "\u200b"
URL = re.compile(r"https?://(?:(?!&(?:lt|gt|quot|commat|#))[^\s<>\[\]()*`|\\\"])+")
ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]\w{1,30});", re.IGNORECASE)
EVERYBODY = re.compile(r"(?<![A-Za-z0-9])@(?:everyone|here|channel|all)\b", re.IGNORECASE)
ANYBODY = re.compile(r"(?<![A-Za-z0-9])@(?:[A-Za-z0-9])")

# Of Mattermost's webhooks, in its older and newer versions.
SLACK_LINKS = (r"<([^<\|]+)\|([^>]+)>", r"<([^\n<\|>]+)\|([^\|\n>]+)>")

BLOCKS = {
    "heading": r"\s*#{1,6}(?:\s|$)",
    "quote": r"\s*>",
    "list": r"\s*(?:[-+*]|\d{1,9}[.)])(?:\s|$)",
    "small": r"\s*-# ",
    "fence": r" {0,3}(?:```|~~~)",
    "code": r"(?: {4}| {0,3}\t)\s*\S",
    "rule": r" {0,3}([-*_])(?:\s*\1){2,}\s*$",
    "definition": r" {0,3}\[(?:\\.|[^\]\\])+\]:",
}
UNDERLINES = {
    "setext": r" {0,3}(?:=+|-+)\s*$",
    "table": r" {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$",
}
INLINES = {
    "emphasis": r"[*~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])",
    "code": r"`",
    "spoiler or table": r"\|",
    "link": r"\](?=[(\[:])",
    "image": r"!\[[^\]]*\][(\[]",
    "tag": r"<(?:[@#:!/a-z])",
    "function": r"\{\{",
}


def markdown(service: str, text: str) -> list[str]:
    """The constructs of Discord, Mattermost and Teams."""
    found = []
    if service == "mattermost":
        found += ["mention"] * len(re.findall(r"<!(?:channel|here|all)>", text))
        for pattern in SLACK_LINKS:
            text = re.sub(pattern, r"[\2](\1)", text)
    lines = re.split(r"\r\n|[\n\r\u2424]", text.replace("\u00a0", " "))
    for number, line in enumerate(lines):
        found += [name for name, pattern in BLOCKS.items() if re.match(pattern, line)]
        if number and lines[number - 1].strip():
            found += [name for name, pattern in UNDERLINES.items() if re.match(pattern, line)]
    live = ESCAPED.sub("\0", re.sub(r"&lt;" if service == "mattermost" else r"(?!)", "\0", text))
    live = URL.sub("\0", live)
    found += ["entity"] * len(ENTITY.findall(live))
    names = INLINES if service == "teams" else {key: INLINES[key] for key in INLINES if key != "function"}
    for name, pattern in names.items():
        found += [name] * len(re.findall(pattern, live, re.IGNORECASE))
    return found


def constructs(service: str, text: str) -> list[str]:
    """The names of all markup that a reader would act on, sorted."""
    if service in {"discord", "mattermost", "teams"}:
        found = markdown(service, text)
    elif service == "telegram":
        found = re.findall(r"</?[a-z][^<>]*>?", text, re.IGNORECASE)
    else:
        found = re.findall(rf"<[^\s{BREAK}][^|<>]*", text)
    muted = text if service == "slack" else shown(service, text, breaks=True)
    mention = ANYBODY if service in {"telegram", "mattermost"} else EVERYBODY
    return sorted(found + mention.findall(URL.sub("U", muted)))


def shown(service: str, text: str, *, breaks: bool = False) -> str:
    """The text as people see it, without the invisible breaks unless they are asked for."""
    if service == "slack":
        text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    elif service == "telegram":
        text = html.unescape(re.sub(r"<[^<>]*>", "", text))
    elif service in {"discord", "mattermost", "teams"}:
        both = re.compile(rf"{URL.pattern}|{ESCAPED.pattern}|{ENTITY.pattern}", re.IGNORECASE)
        text = both.sub(lambda found: found[1] or (found[0] if "://" in found[0] else html.unescape(found[0])), text)
    return text if breaks else text.replace(BREAK, "")
