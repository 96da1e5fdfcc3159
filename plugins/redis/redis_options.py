"""The options of the redis sink, and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from router.api import RedisTarget, RedisUrl, SinkOptions, Template

Command = Literal["publish", "xadd", "lpush", "rpush"]
COMMANDS: tuple[Command, ...] = ("publish", "xadd", "lpush", "rpush")


class RedisOptions(SinkOptions, defer_build=True):
    """The options of a redis sink: one command with its key or channel, the server, and the value."""

    publish: Template | None = Field(default=None, description="The channel to publish on.")
    xadd: Template | None = Field(default=None, description="The key of the stream to append to.")
    maxlen: int | None = Field(default=None, ge=1, description="How many entries of the stream are kept.")
    lpush: Template | None = Field(
        default=None, description="The key of the list; new items are added at its beginning."
    )
    rpush: Template | None = Field(default=None, description="The key of the list; new items are added at its end.")
    url: RedisUrl | None = Field(default=None, description="Another server; default: the router's own.")
    template: Template | None = Field(default=None, description="The value; default: the payload as published.")

    @field_validator(*COMMANDS)
    @classmethod
    def _begins_literally(cls, key: str | None) -> str | None:
        if key == "":
            raise ValueError("must not be empty")
        if key is not None and key.startswith(("{{", "{%", "{#")):
            raise ValueError(
                "begins with a template, so an event could choose any name on the server: "
                'begin with a literal text, such as "inbox:{{ payload.user_id }}"'
            )
        return key

    @model_validator(mode="after")
    def _one_command(self) -> Self:
        given = [name for name in COMMANDS if getattr(self, name) is not None]
        if len(given) != 1:
            listed = f", not {' and '.join(f'`{name}`' for name in given)}" if given else ""
            raise ValueError(f"a redis sink needs one of `publish`, `xadd`, `lpush` and `rpush`{listed}")
        if self.maxlen is not None and self.xadd is None:
            raise ValueError("`maxlen` can be used only with `xadd`: it is the length of a stream")
        return self

    @property
    def command(self) -> Command:
        """The command of the sink."""
        return next(name for name in COMMANDS if getattr(self, name) is not None)

    @property
    def redis_targets(self) -> Sequence[RedisTarget]:
        """The channel or key to which the sink writes.

        The command `check` uses this to find sources that would read the events again.
        """
        kind: Literal["channel", "key"] = "channel" if self.command == "publish" else "key"
        return [RedisTarget(kind, getattr(self, self.command), self.command, self.url)]
