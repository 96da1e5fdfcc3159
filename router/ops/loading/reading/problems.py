"""The collection of the faults of a configuration; floor 4.

Faults are collected, and not raised one by one, so that the operator sees all faults at once. Each value is reported
only once.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

from router.core.conditions.lookalikes import HINT, alike
from router.errors import ConfigError, Problem
from router.ops.loading.reading.concealing import Concealment
from router.ops.loading.reading.nodes import Mark, Node, quoted
from router.wording import counted

_SEVERITIES = ("error", "warning", "note")
_MOST = 200  # the maximum number of problems shown of one configuration
_LISTED = 8  # the maximum number of allowed words that a short message lists
_NEAR = 3  # the maximum number of similar words that a message names instead of a longer list


class Problems:
    """The faults, warnings and notes found so far."""

    def __init__(self) -> None:
        self._found: dict[tuple[str | None, int | None, int | None, str], Problem] = {}
        self._marks: dict[Problem, Mark] = {}
        self.concealed = Concealment()
        """The values that no problem may show."""

    def add(
        self,
        message: str,
        at: Node | Mark | None = None,
        *,
        path: str | None = None,
        excerpt: str | None = None,
        severity: str = "error",
    ) -> None:
        """Add a problem at a node or a mark. If the node already has an error, no further problem is added.

        `path` is the path of the key with the problem; by default the path of the node. `excerpt` is a corrected line.
        `severity` is `error`, `warning` or `note`.
        """
        if isinstance(at, Node):
            if at.faulty:
                return
            at.faulty = severity == "error"
            path = at.path if path is None else path
            at = at.mark
        file, line, column = (at.file.name, at.line, at.column) if at else (None, None, None)
        brief = message.brief if isinstance(message, Unknown) else None
        problem = Problem(str(message), file, line, column, path or "", excerpt, severity, brief)
        self._found.setdefault((file, line, column, message), problem)
        if at is not None:
            self._marks[problem] = at

    def warn(self, message: str, at: Node | Mark | None = None, *, path: str | None = None) -> None:
        """Add a warning. With a warning, `check --strict` fails."""
        self.add(message, at, path=path, severity="warning")

    @property
    def failed(self) -> bool:
        """True if one of the problems is an error."""
        return any(problem.severity == "error" for problem in self._found.values())

    def all(self) -> tuple[Problem, ...]:
        """Return all problems without secrets, sorted by file and place. Files are in the order of their first problem.

        If there are too many problems, less severe problems are left out first.
        """
        files = {problem.file: index for index, problem in reversed(list(enumerate(self._found.values())))}
        found = sorted(self._found.values(), key=lambda p: (files[p.file], p.line or 0, p.column or 0))
        by_severity = sorted(found, key=lambda problem: _SEVERITIES.index(problem.severity))
        left_out = by_severity[_MOST:]
        if left_out:
            kept = {id(problem) for problem in by_severity[:_MOST]}
            found = [problem for problem in found if id(problem) in kept]
        shown = (self.concealed.problem(problem, self._marks.get(problem)) for problem in found)
        return (*shown, *([_more(left_out)] if left_out else []))

    def check(self) -> None:
        """Raise `ConfigError` with all problems if one is an error."""
        if self.failed:
            raise ConfigError(self.all())


def _more(left_out: Sequence[Problem]) -> Problem:
    """Return the line about the problems that are not shown.

    `left_out` is sorted by severity; the line has the worst severity.
    """
    counts = Counter(problem.severity for problem in left_out)
    listed = ", ".join(counted(number, f"more {severity}") for severity, number in counts.items())
    return Problem(f"and {listed}", severity=left_out[0].severity, left_out=tuple(counts.items()))


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return ` (did you mean …?)` if one of the allowed words is similar, else an empty string."""
    by_lower = {known.lower(): known for known in allowed}
    close = [by_lower[each] for each in difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)]
    if not close or close[0] == word:
        return ""
    return f" (did you mean `{close[0]}`?{f' {HINT}' if alike(word, close[0]) else ''})"


class Unknown(str):
    """The message for an unknown word. `brief` is the message without the long list of allowed words, or None."""

    __slots__ = ("brief",)

    brief: str | None


def unknown(kind: str, word: str, allowed: Iterable[str]) -> Unknown:
    """Return the message for an unknown word: the word, the allowed words, and a similar allowed word."""
    known = list(allowed)
    listed = ", ".join(known) if known else "none"
    sentence = Unknown(f"unknown {kind} {quoted(word)}, allowed: {listed}{did_you_mean(word, known)}")
    sentence.brief = _brief(kind, word, known) if len(known) > _LISTED else None
    return sentence


def faulty_default(option: str, plugin: str | None, fault: str) -> str:
    """Return the message for the faulty default of an option that the configuration does not set.

    `plugin` is the plugin that has the option; None for an option of the router.
    """
    return f"the default of the option `{option}`{f' of the plugin {plugin}' if plugin else ''} is faulty: {fault}"


def _brief(kind: str, word: str, known: list[str]) -> str:
    by_lower = {each.lower(): each for each in known}
    near = [f"`{by_lower[each]}`" for each in difflib.get_close_matches(word.lower(), by_lower, n=_NEAR, cutoff=0.6)]
    if not near:
        return f"unknown {kind} {quoted(word)}; {len(known)} are allowed; `check --verbose` lists them"
    meant = " or ".join(filter(None, (", ".join(near[:-1]), near[-1])))
    others = counted(len(known) - len(near), "other is allowed", "others are allowed")
    return f"unknown {kind} {quoted(word)} (did you mean {meant}?); {others}; `check --verbose` lists all of them"
