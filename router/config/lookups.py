"""The models of lookups, which find a delivery's records, such as those of its user, company or device; floor 1."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from router.config.models import HttpConfig, Model
from router.config.scalars import Duration, ServerUrl
from router.options import Secret

LOOKUP_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"

TAKEN = frozenset(
    (  # noqa: SIM905  # a list of names
        "payload event events route sink on cidr range dict cycler joiner namespace loop self super true false none null "
        "True False None and or not in is if else"
    ).split()
)
"""The names that a lookup can't have, because they have a meaning in templates."""

_ORIGIN = re.compile(r"https?://[^/?#\s{}]+(?=[/?#]|$)", re.IGNORECASE)

Missing = Literal["dead-letter", "suppress", "empty"]


class LookupKeys(Model):
    """The keys of the configuration of every lookup."""

    type: str = Field(description="write redis-hash, file, http, or the type that a plugin registers")
    ttl: Duration = Field(60.0, description="how long the cache remembers a record, or that a key has no record")
    missing: Missing = Field(
        "dead-letter",
        description="what happens to a delivery if its record does not exist; with `empty`, the delivery is made with empty fields",
    )


_Key = Annotated[str, StringConstraints(min_length=1)]
_KEY = "write a template that gives the key of the record, such as user:{{ payload.user_id }}"


class RedisHashConfig(LookupKeys):
    """The configuration of a lookup whose records are hashes in Redis."""

    type: Literal["redis-hash"] = Field(description="write redis-hash, file, http, or the type that a plugin registers")
    key: _Key = Field(description=_KEY)
    url: ServerUrl | None = Field(
        None, description="the URL of the Redis server that holds the hashes; default: redis.url"
    )


class FileLookupConfig(LookupKeys):
    """The configuration of a lookup whose records are in a file. The file is read again when it changes."""

    type: Literal["file"] = Field(description="write redis-hash, file, http, or the type that a plugin registers")
    key: _Key = Field(description=_KEY)
    path: _Key = Field(
        description="write the path of a .csv, .json, .yaml or .yml file, relative to the file that contains this key"
    )
    by: _Key | None = Field(
        None,
        description="the column or field that holds the key; leave `by` out if the file is a mapping of keys to records",
    )


def _literal_origin(url: str) -> str:
    if not _ORIGIN.match(url):
        raise ValueError(
            "write the scheme and the host without a template (https://crm.example.org/…), so that no event can choose "
            "the server"
        )
    return url


class HttpLookupConfig(LookupKeys):
    """The configuration of a lookup whose records are JSON objects of an HTTP server, each at its own URL."""

    type: Literal["http"] = Field(description="write redis-hash, file, http, or the type that a plugin registers")
    url: Annotated[str, AfterValidator(_literal_origin)] = Field(
        description="write a template that gives the URL of the record, such as https://crm.example.org/users/{{ payload.user_id }}"
    )
    headers: dict[str, Secret] = Field(default_factory=dict, description="the headers of each request")
    http: HttpConfig = Field(default_factory=HttpConfig, description="the settings of the HTTP client")
    allow_private: bool = Field(False, description="whether the lookup may connect to private addresses")


class PluginLookupConfig(LookupKeys):
    """The configuration of a lookup of a plugin. The plugin's options are written beside these keys."""

    key: _Key = Field(description=_KEY)


BuiltInLookup = RedisHashConfig | FileLookupConfig | HttpLookupConfig
LOOKUPS: dict[str, type[BuiltInLookup]] = {
    "redis-hash": RedisHashConfig,
    "file": FileLookupConfig,
    "http": HttpLookupConfig,
}
"""The models of the built-in types of lookup."""


class LookupConfig(Model):
    """A configured lookup: its keys, and the options that a plugin's model has checked."""

    keys: BuiltInLookup | PluginLookupConfig
    options: Any = None

    @property
    def source(self) -> str:
        """The template of the key, which is the URL for an HTTP lookup."""
        return self.keys.url if isinstance(self.keys, HttpLookupConfig) else self.keys.key
