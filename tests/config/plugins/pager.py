"""A drop-in sink with an option of every kind, for the tests of the loader."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router.api import Addresses, Event, Html, Secret, SinkOptions, Template, Text, hookimpl


class Window(BaseModel):
    """A nested model."""

    model_config = ConfigDict(strict=True, extra="forbid")

    start: str = Field(alias="from", description="the first hour")
    till: str = "24"


class PagerOptions(SinkOptions):
    """Options of every kind."""

    to: Addresses = Field(description="who is paged")
    text: Text
    subject: Template | None = None
    html: Html | None = None
    headers: dict[str, Template] = Field(default_factory=dict)
    token: Secret = Secret("")
    url: Secret | None = None
    level: Annotated[int, Field(ge=0, le=10)] = 1
    urgent: bool = False
    factor: float = 1.0
    service: Literal["daily", "nightly"] = "daily"
    tags: str | list[str] = "none"
    window: Window | None = None

    @model_validator(mode="after")
    def _level(self) -> "PagerOptions":
        if self.level == 9:
            raise ValueError("level 9 needs `urgent: true`")
        return self


async def pager(event: Event, options: PagerOptions) -> None:
    """Page nobody."""


@hookimpl
def register_sinks(register):
    register("pager", pager, options=PagerOptions)
