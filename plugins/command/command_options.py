"""The options of the command sink, and their checks."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from router.api import Event, OptionWarning, SinkOptions, Template, is_template

MARK = "--"
"""The argument `--`. Values of an event are allowed only after it. By convention, `--` ends the options of a
program."""

_CURE = 'write a template after `--`, as in [PROGRAM, --, "{{ payload.user_id }}"], or let the program read the event from stdin'

# Programs that run their first operand as a program or script. The remote shells pass all operands to a shell.
_SHELLS = frozenset(
    "ash bash busybox csh dash fish ksh lua node perl php python ruby sh tcsh zsh doas env ionice nice nohup setsid "  # noqa: SIM905  # short
    "stdbuf sudo systemd-run timeout unshare xargs".split()
)
_REMOTE_SHELLS = frozenset({"ssh", "rsh"})
_VERSION = re.compile(r"[\d.]+$")
_CODE = re.compile(r"-[a-z]*c|-m")  # `-c CODE` of shells and Python, `-m MODULE` of Python


def _plain(text: str) -> str:
    """Refuse a template or a NUL character in `cwd` or a value of `env`. These values are the same for all events."""
    if is_template(text):
        raise ValueError(f"a template can't be used here: {_CURE}")
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _variable(name: str) -> str:
    """Refuse a name that an environment variable can't have."""
    if not name or "=" in name or "\0" in name:
        raise ValueError("the name of a variable must not be empty, and must contain neither `=` nor a NUL character")
    return name


def _absolute(folder: str) -> str:
    if not folder.startswith("/"):
        raise ValueError("must be an absolute path, which begins with /")
    return folder


PlainText = Annotated[str, AfterValidator(_plain)]

# The type is marked as a template, although `_plain` refuses templates. Because of the mark, `check` does not need the
# credentials in the value. The same is true for the headers of a webhook.
Value = Annotated[str, Template(), AfterValidator(_plain)]


class CommandOptions(SinkOptions, defer_build=True):
    """The options of a command sink: the program with its arguments, its folder and its environment."""

    argv: list[Template] = Field(
        min_length=1, description="The program and its arguments, without a shell; templates only after `--`."
    )
    cwd: Annotated[PlainText, AfterValidator(_absolute)] = Field(
        default="/", description="The folder in which the program runs, an absolute path."
    )
    env: dict[Annotated[str, AfterValidator(_variable)], Value] = Field(
        default_factory=dict, description="The environment variables of the program, in addition to PATH."
    )

    @field_validator("argv")
    @classmethod
    def _safe(cls, argv: list[str]) -> list[str]:
        faults = [
            InitErrorDetails(type=PydanticCustomError("value_error", "{why}", {"why": why}), loc=(place,), input="")
            for place, why in _faults(argv)
        ]
        if faults:  # raised as pydantic's own errors, so that each fault is reported at its argument
            raise ValidationError.from_exception_data("argv", faults)
        return argv

    @property
    def environment(self) -> Mapping[str, str]:
        """The whole environment of the program: PATH, and the variables of `env`."""
        return {"PATH": os.environ.get("PATH") or os.defpath, **self.env}

    @property
    def check_warnings(self) -> Sequence[OptionWarning]:
        """The warnings about programs and folders that this machine lacks.

        A missing program or folder is not an error, because `check` may run on another machine than the router.
        """
        found = []
        fault = program_fault(self.argv[0], self.environment["PATH"])
        if fault:
            found.append(OptionWarning("argv", fault))
        if not Path(self.cwd).is_dir():
            found.append(OptionWarning("cwd", f"there is no folder {self.cwd} that this user can see"))
        return found

    def preview(self, event: Event) -> str:  # noqa: ARG002  # the preview does not show the event, which goes to stdin
        """Return the command line for an event, quoted as in a shell."""
        return shlex.join(self.argv)


def program_fault(program: str, path: str) -> str | None:
    """Return why this user can't run a program, or None if the user can. `program` is a name or an absolute path."""
    if shutil.which(program, path=path):
        return None
    if "/" not in program:
        return f"there is no program {program} in PATH that this user may run: write its absolute path"
    if not os.path.lexists(program):
        return f"there is no program {program}"
    if not Path(program).is_file():
        return f"{program} is not a program, because it is not a file"
    return f"this user has no permission to run {program}: run `chmod +x {shlex.quote(program)}`"


def _faults(argv: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the index and the fault of each argument that can't be used."""
    mark = argv.index(MARK) if MARK in argv else len(argv)
    program = argv[0]
    if not program or program == MARK:
        yield 0, "the program must not be empty"
    elif "/" in program and not program.startswith("/") and not is_template(program):
        yield 0, "write the absolute path of the program, or its name alone to look for it in PATH"
    for place, text in enumerate(argv):
        if "\0" in text:
            yield place, "must not contain a NUL character"
        elif place < mark and is_template(text):
            yield place, f"the program could treat a value of an event here as an option or a program: {_CURE}"
    after = [place for place in range(mark + 1, len(argv)) if is_template(argv[place])]
    if not after:
        return
    called = [_called(word) for word in argv[:mark]]
    remote = next((name for name in called if name in _REMOTE_SHELLS), None)
    runners = [place for place, name in enumerate(called) if name in _SHELLS]
    if remote is not None:
        yield (
            after[0],
            f"{remote} passes this value to a shell, which would run it as a command: let the program read the value from stdin",
        )
    elif runners and after[0] == mark + 1 and not _has_script(argv[runners[-1] + 1 : mark]):
        cure = "write the absolute path of the script or the program before `--`"
        yield after[0], f"{called[runners[-1]]} would run this value as a program: {cure}"


def _has_script(words: Sequence[str]) -> bool:
    """Return whether the words after a shell or launcher contain the code to run.

    The code is an absolute path, or the word after an option such as `-c`. Any other word may be the value of an
    option, such as the user in `sudo -u www-data`.
    """
    return any(
        word.startswith("/") or (before is not None and _CODE.fullmatch(before) and not word.startswith("-"))
        for before, word in itertools.pairwise([None, *words])
        if word is not None
    )


def _called(program: str) -> str:
    """Return the name of a program without its folder and version: `python` for `/usr/bin/python3.11`."""
    return _VERSION.sub("", program.rpartition("/")[2])
