"""A number with a noun behind it is written by `counted`, so that no message says `1 deliveries wait`."""

import ast

import pytest

from router.wording import counted
from tests.support.process import ROOT

NOUNS = [
    "bytes",
    "channels",
    "columns",
    "dead",
    "deliveries",
    "entries",
    "errors",
    "events",
    "faults",
    "items",
    "kinds",
    "letters",
    "lines",
    "messages",
    "notes",
    "problems",
    "queues",
    "recipients",
    "records",
    "retries",
    "routes",
    "rows",
    "sinks",
    "sources",
    "subscribers",
    "times",
    "warnings",
    "workers",
]
ALWAYS_MANY = {
    # More than one by what stands before it in the code.
    "bytes, but max_bytes is",
    "bytes, more than a datagram",
    "bytes, the limit for",
    "bytes, but the server accepts at most",
    "sources up, ",
}


@pytest.mark.parametrize(
    ("number", "words", "shown"),
    [
        (0, ["letter"], "0 letters"),
        (1, ["letter"], "1 letter"),
        (1, ["delivery waits", "deliveries wait"], "1 delivery waits"),
        (2, ["delivery waits", "deliveries wait"], "2 deliveries wait"),
    ],
)
def test_one_is_not_many(number, words, shown):
    assert counted(number, *words) == shown


def test_no_message_counts_by_itself():
    found = []
    for path in sorted([*(ROOT / "router").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            for value, following in zip(node.values, node.values[1:], strict=False):
                if not isinstance(value, ast.FormattedValue) or not isinstance(following, ast.Constant):
                    continue
                text = str(following.value)
                named = text.startswith(" ") and text[1:].split(" ", maxsplit=1)[0].strip(".,;:)") in NOUNS
                if named and not any(text.strip().startswith(known.strip()) for known in ALWAYS_MANY):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: …{text}")
    assert found == []
