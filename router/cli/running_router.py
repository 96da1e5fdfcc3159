"""Finding the router that runs on this machine; floor 7."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from router.admin.admin_client import STATUS, Client
from router.admin.sockets import default_address
from router.cli.common import find_config, load_config, tell
from router.config.models import AdminConfig
from router.config.redis_url import shown
from router.config.scalars import OFF, address
from router.errors import ConfigError, RouterError, UnavailableError
from router.files import distrust
from router.ops.state import state_path

if TYPE_CHECKING:
    from router.ops.loading import Loaded

SERVICE_STATE = Path("/var/lib/event-router")
"""The state directory of the shipped unit. Root has none of the service's variables, and finds the service there."""

SERVICE_ENVIRONMENT = Path("/etc/event-router/environment")
"""The environment file of the shipped unit; systemd sets its variables for the service alone."""


def running(config: Path | None, env_file: Path | None, instance: str, *, may_be_faulty: bool = False) -> Client:
    """Return a client of the router that runs under this name.

    If a configuration is given and not `may_be_faulty`, its `admin` address is used. Otherwise the sockets of the state
    directories are tried first, then the address in the default configuration. Raises `UnavailableError` if none runs.
    """
    sockets = [Client(default_address(state, instance)) for state in _states()]
    if (config is None or may_be_faulty) and (client := _answering(sockets)):
        return client
    named = _named(config, env_file)
    if named.listen == OFF:
        raise UnavailableError("the configuration says `admin: off`: that router can't be asked")
    if named.listen is not None:
        return Client(address(named.listen), named.token.get_secret_value() if named.token else None)
    if client := _answering(sockets):
        return client
    tried = ", ".join(str(client.address.path) for client in sockets)
    raise UnavailableError(f"no router runs here under the name {instance!r} (nothing listens at {tried})")


def _answering(clients: Iterable[Client]) -> Client | None:
    return next((client for client in clients if client.answers()), None)


def configuration(config: Path | None, env_file: Path | None, instance: str) -> Loaded:
    """Load the configuration of the router that runs under this name, for a command that connects to its Redis.

    The order is: the given file, the file that the running router was started with, the file that `run` would find.
    Only the secrets of `redis` are needed. Raises `ConfigError` if one of them is missing.
    """
    used = _Used(config, env_file) if config is not None else _used(env_file, instance)
    loaded = load_config(used.file, used.env_file, placeholders=True)
    origin, borrowed = loaded.redis_origin, None
    if origin.variable in used.variables and (not origin.is_set or "redis.url" in loaded.unknown):
        # Neither this environment nor the env file has the variable: the router was started in another shell that has it.
        borrowed = origin.variable
        environ = {**os.environ, **used.variables}
        loaded = load_config(used.file, used.env_file, environ=environ, placeholders=True)
    if config is None and used.file is not None and (borrowed or used.file != _found()):
        redis = f", Redis {shown(loaded.config.redis.url)} from its ${borrowed}" if borrowed else ""
        tell(f"note: this is the configuration of the running router, {used.file}{redis}", "note")
    loaded.require("redis")
    return loaded


class _Used(NamedTuple):
    """The configuration and the env file that a command reads, and variables that only the router's environment has."""

    file: Path | None
    env_file: Path | None
    variables: Mapping[str, str] = {}


def _found() -> Path | None:
    """Return the configuration that a command finds without `-c`."""
    try:
        return find_config(None).absolute()
    except ConfigError:
        return None


def _used(env_file: Path | None, instance: str) -> _Used:
    """Return the files that the running router was started with; the given ones if it doesn't say."""
    for state in _states():
        client = Client(default_address(state, instance))
        if not client.answers():
            continue
        with contextlib.suppress(RouterError):
            told = client.get(STATUS)["config"]
            named = {name: Path(told[name]) for name in ("file", "env_file") if told.get(name)}
            variables = _variables(told)
            if state == SERVICE_STATE:
                # The router belongs to another user. Root must not read, and send away, the files that such a file
                # names, nor connect to an address in it.
                named = {name: path for name, path in named.items() if distrust(path) is None}
                variables = {}
                if SERVICE_ENVIRONMENT.exists():
                    named.setdefault("env_file", SERVICE_ENVIRONMENT)
            return _Used(named.get("file"), env_file or named.get("env_file"), variables)
    return _Used(None, env_file)


def _variables(told: Mapping[str, Any]) -> dict[str, str]:
    """Return the variable that gave the router its Redis, with the URL, if this environment does not have it."""
    variable = str(told.get("redis_from", ""))
    name = variable.removeprefix("$")
    if not variable.startswith("$") or os.environ.get(name) or not told.get("redis"):
        return {}
    return {name: str(told["redis"])}


def _states() -> Iterator[Path]:
    """Yield the state directories that may have the socket, the likeliest first."""
    with contextlib.suppress(ConfigError):
        yield state_path(os.environ)
    yield SERVICE_STATE


def _named(config: Path | None, env_file: Path | None) -> AdminConfig:
    """Return the section `admin` of the configuration; the default if it is missing or can't be read."""
    try:
        path = find_config(config)
    except ConfigError:
        return AdminConfig()
    try:
        return load_config(path, env_file, placeholders=True).config.admin
    except ConfigError as error:
        if config is not None and not path.is_file():
            raise
        tell(f"warning: {path} has faults ({error.problems[0]}); looking in the state directory", "warning")
        return AdminConfig()
