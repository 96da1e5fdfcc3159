"""What the template parser says of a fault, in plain words and with the cure; floor 2."""

from __future__ import annotations

import re
from difflib import get_close_matches

from jinja2 import TemplateSyntaxError

_TAGS = ("if", "elif", "else", "for", "set", "macro", "call", "filter", "block", "extends", "include", "import", "with")

_INSTEAD = {
    "&": "; write `and`",
    "?": "; write `A if CONDITION else B`",
    "!": "; write `not`",
    "=": "; to compare write `==`",
    ";": "",
}
"""What is meant by signs of other languages."""

# In their order: what the parser says, and what is said instead.
_PLAIN = (
    (r"unexpected end of template, expected 'end of print statement'", r"`{{` is not closed: `}}` is missing"),
    (r"unexpected end of template, expected 'end of statement block'", r"`{%` is not closed: `%}` is missing"),
    (
        r"unexpected end of template\b.* needs to be closed is '(\w+)'",
        r"`{% \1 %}` is not closed: `{% end\1 %}` is missing",
    ),
    (r"missing end of comment tag", r"`{#` begins a comment and is not closed: `#}` is missing"),
    (r"unexpected 'end of template'", r"`{{` is not closed: `}}` is missing"),
    (r"tag name expected", r"the name of a tag is missing after `{%`"),
    (r"unexpected '}'", r"`}` alone closes nothing: `{{` is closed by `}}`, `{%` by `%}`"),
    (r"unexpected '(.)', expected '(.)'", r"`\2` is missing"),
    (r"expected an expression, got 'end of (?:print statement|statement block)'", r"an expression is missing"),
    (r"unexpected 'end of (?:print statement|statement block)'", r"the expression is not complete"),
    (r"expected token 'name', got 'end of .*'", r"a name is missing, of a filter after `|` or of a variable"),
    (r"expected name or number", r"a name is missing after the `.`"),
    (r"encountered unknown tag '((?:end|el)\w+)'.*", r"`{% \1 %}` closes nothing that is open here"),
    (r"unexpected char (?:'\"'|\"'\") at \d+", r"a quote that is opened is never closed"),
    (
        r"expected token ':', got '.*'",
        r"`{` begins a mapping here, `{key: value}`; inside `{{ … }}` write no second `{{`",
    ),
    (r"expected token 'in', got '.*'", r"`in` is missing: {% for each in payload.list %}"),
)


def plainly(error: TemplateSyntaxError) -> str:
    """The sentence for a syntax error."""
    told = (error.message or "").removesuffix(".").replace("\n", " ")
    for pattern, words in _PLAIN:
        found = re.fullmatch(pattern, told, re.IGNORECASE)
        if found:
            return found.expand(words)
    got = re.fullmatch(r"expected token 'end of (?:print statement|statement block)', got '(.*)'", told)
    if got:
        hint = _INSTEAD.get(got[1], "; an operator, a `|` or the end is missing before it")
        return f"`{got[1]}` can't stand here{hint}"
    sign = re.fullmatch(r"unexpected char '(.)' at \d+", told)
    if sign:
        return f"`{sign[1]}` means nothing in an expression{_INSTEAD.get(sign[1], '')}"
    tag = re.fullmatch(r"encountered unknown tag '(\w+)'.*", told, re.IGNORECASE)
    if tag:
        near = get_close_matches(tag[1], _TAGS, n=1)
        return f"there is no tag `{tag[1]}`" + (f" (did you mean `{near[0]}`?)" if near else "")
    return f"{told[:1].lower()}{told[1:]}" if told[1:2].islower() else told
