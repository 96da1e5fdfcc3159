"""The options of the log sink, and their checks."""

from __future__ import annotations

import os
from typing import Literal, Self

from pydantic import Field, model_validator

from router.api import Event, SinkOptions, Template, escape, is_template

SOCKETS = {"journald": "/run/systemd/journal/socket", "syslog": "/dev/log"}
"""The default socket of each target that is a service."""

LONGEST_SOCKET = 107
"""The largest number of bytes in the path of a socket (Linux, `sun_path`)."""


class LogOptions(SinkOptions, defer_build=True):
    """The options of a log sink: the file, stream or service, and the template of the text."""

    path: str | None = Field(
        default=None,
        min_length=1,
        description="The file; a relative path starts at $LOGS_DIRECTORY, else at the configuration's folder.",
    )
    target: Literal["stdout", "stderr", "journald", "syslog"] | None = Field(
        default=None, description="A stream, the systemd journal or syslog instead of a file."
    )
    socket: str | None = Field(
        default=None,
        description="The socket of journald or syslog, if it is not the default one, as for a journal namespace.",
    )
    template: Template | None = Field(default=None, description="The text of each event; default: the JSON line.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        """Check that exactly one of `path` and `target` is given, and that the paths are valid."""
        if (self.path is None) == (self.target is None):
            raise ValueError("a log needs either `path` (a file) or `target` (stdout, stderr, journald or syslog)")
        if self.socket is not None and self.target not in SOCKETS:
            raise ValueError("`socket` can be used only with `target: journald` or `target: syslog`")
        for name, path in (("path", self.path), ("socket", self.socket)):
            if path is not None and is_template(path):
                raise ValueError(f"`{name}` is the same for all events: it can't contain a template")
            if path is not None and "\0" in path:
                raise ValueError(f"`{name}` can't contain a NUL character")
        if self.socket is not None:
            _check_socket(self.socket)
        return self

    @property
    def socket_path(self) -> str | None:
        """The socket of a service; None for files and streams. The command `check` tests whether it can be written."""
        return self.socket or SOCKETS.get(self.target or "")

    def preview(self, event: Event) -> str:  # noqa: ARG002  # the rendered options contain the text
        """Return the text that `template` gives.

        Without a template, return an empty text, because the event has no fixed id.
        """
        if self.template is None:
            return ""
        return self.template if self.target == "journald" else escape(self.template)


def _check_socket(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError("`socket` must be an absolute path, such as /run/systemd/journal.shop/socket")
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise ValueError(f"the path of `socket` has more than {LONGEST_SOCKET} bytes, the limit for sockets")
