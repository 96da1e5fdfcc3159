"""The commands that pages, `--help` and messages print, each as the words that a shell would make of it."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from router.cli.main import cli
from tests.support.process import ROOT

OURS = "event-router"
PROGRAMS = (OURS, "make", "redis-cli")
"""Whose commands are executed. Those of other programs (systemctl, pip, curl, a shell's own) are not ours to break."""

METAVARS = {
    "CHANNEL": "notification",
    "COMMAND": "check",
    "EXPR": "payload.user_id == 42",
    "FILE": "config.yaml",
    "FOLDER": "shop",
    "FORMAT": "json",
    "FROM": "gone",
    "GLOB": "*",
    "ID": "l-1",
    "KEY=VALUE": "path=audit.jsonl",
    "LEVEL": "info",
    "N": "1",
    "NAME": "default",
    "PAYLOAD": '{"user_id": 42, "message": "hi"}',
    "PORT": "6379",
    "REASON": "exhausted",
    "SHELL": "bash",
    "SINK": "log",
    "SOURCE": "web-app",
    "TIME": "1h",
    "TO": "mail",
    "TYPE": "email",
    "URL": "embedded",
}
HOLE = "HOLE"
"""What stands where a message puts a value in."""


def every_command(
    group: click.Group = cli, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of ours by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        yield (*prefix, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*prefix, name))


TOP = {words[0] for words, _ in every_command()}
_CALL = re.compile(rf"(?:\S*/)?{OURS} (?:[a-z][a-z-]*|COMMAND|-[a-zA-Z-]+)\b.*")


def of_page(path: Path) -> set[tuple[str, ...]]:
    """The commands of a page: the lines of its shell blocks, what it shows of a terminal, and code within its text."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|console|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\n {9,}", " ", block).splitlines()]
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return {words for piece in [*lines, *map(_joined, spans)] for words in commands(piece)}


def of_unit(path: Path) -> set[tuple[str, ...]]:
    """The commands of a systemd unit."""
    found = re.findall(r"^Exec\w+=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {words for piece in found for words in commands(piece)}


def of_help() -> set[tuple[str, ...]]:
    """The commands that the `--help` of a command names."""
    texts = [
        text
        for _, command in every_command()
        for text in (command.help, command.epilog, *(getattr(each, "help", None) for each in command.params))
    ]
    spans = [span for text in texts if text for span in re.findall(r"`([^`]+)`", text)]
    return {words for span in map(_joined, spans) for words in commands(span)}


def of_messages() -> set[tuple[str, ...]]:
    """The commands in the texts of the program; values that are put in are holes."""
    return {words for text in literals() for piece in _pieces(text) for words in commands(piece)}


@cache
def literals() -> tuple[str, ...]:
    """Every text that the code may print: literals, without documentation."""
    return tuple(_literals())


def _literals() -> Iterator[str]:
    for path in sorted([*ROOT.glob("router/**/*.py"), *ROOT.glob("plugins/**/*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inner: set[ast.AST] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr):
                inner.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                inner.update(node.values)
                yield "".join(str(v.value) if isinstance(v, ast.Constant) else HOLE for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
                yield node.value


def _pieces(text: str) -> list[str]:
    """What may be commands in a message: code, or what follows our name up to the end of the clause."""
    spans = re.findall(r"`([^`]+)`", text)
    rest = re.sub(r"`[^`]*`", "", text)
    return [*map(_joined, spans), *re.findall(rf"(?:^|: |\$\()({OURS} [a-z][^\n;,)|]*)", rest)]


def _joined(span: str) -> str:
    return " ".join(span.split())


def commands(piece: str) -> Iterator[tuple[str, ...]]:
    """The commands in a line: prompt, comment, other programs' part of a pipe and settings before it are left out."""
    piece = re.sub(r"^\s*\$ ", "", piece)
    piece = re.sub(r"\s+# .*$|\s+in ~/.*$", "", piece).strip()
    piece = re.sub(r'^eval "\$\((.*)\)"$', r"\1", piece)
    piece = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", piece)
    if piece.split(" ")[0] in TOP and " " in piece:
        piece = f"{OURS} {piece}"
    for part in _alternatives(piece):
        program = Path(part.split(" ")[0]).name
        if program == OURS and _CALL.fullmatch(part):
            yield (OURS, *_words(part)[1:])
        elif program in PROGRAMS[1:] and " " in part:
            yield tuple(_words(part))


def _alternatives(piece: str) -> list[str]:
    """The parts of a pipe; where the parts are sub-commands (`dlq list | show ID`) each as a command of its own."""
    first, *rest = re.split(r" \| ", piece)
    words = first.split()
    group = cli.get_command(click.Context(cli), words[1]) if words[:1] == [OURS] and len(words) > 1 else None
    if (
        isinstance(group, click.Group)
        and rest
        and all(group.get_command(click.Context(group), r.split()[0]) for r in rest)
    ):
        return [first, *(f"{OURS} {words[1]} {each}" for each in rest)]
    return [first, *rest]


def _words(part: str) -> list[str]:
    """The words of a command or its synopsis: options in brackets are given, and a metavar is replaced by a value."""
    part = re.sub(r"\s+[<>]\s+\S+$", "", part)
    part = part.replace("[filters]", "").replace("...", "")
    if "'" not in part and '"' not in part:
        part = re.sub(r"[\[\]]", "", part)
    words = shlex.split(part)
    return [METAVARS.get(word, _filled(before, word)) for before, word in itertools.pairwise(["", *words])]


def _filled(before: str, word: str) -> str:
    """A value for a hole: the time after `--since`, else the configuration."""
    if HOLE not in word:
        return word
    return "1h" if before == "--since" else "config.yaml"
