"""Finding the router that runs on this machine; floor 7."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from router.admin.admin_client import Client
from router.admin.sockets import STATUS, default_address
from router.cli.common import find_config, load_config, print_message
from router.config.models import AdminConfig
from router.config.redis_url import shown
from router.config.scalars import OFF, address
from router.errors import ConfigError, RouterError, UnavailableError
from router.files import distrust
from router.ops.state import state_path

if TYPE_CHECKING:
    from router.ops.loading import Loaded

SERVICE_STATE = Path("/var/lib/event-router")
"""The state directory of the shipped unit. A command that root runs lacks the service's variables. It finds the
service here."""

SERVICE_ENVIRONMENT = Path("/etc/event-router/environment")
"""The environment file of the shipped unit. systemd sets the variables of this file only for the service."""


def running(config: Path | None, env_file: Path | None, instance: str, *, prefers_socket: bool = False) -> Client:
    """Return a client of the router that runs under this name.

    Without a given configuration, the sockets of the state directories are tried first, then the `admin` address of the
    default configuration. With a given configuration, these places are tried, in this order:

    1. with `prefers_socket`, the socket of a router that runs the given file
    2. the `admin` address of the given file
    3. the sockets of the state directories

    A configuration with faults is used as far as possible. Raises `UnavailableError` if no router is found.
    """
    sockets = [Client(default_address(state, instance)) for state in _states()]
    if config is None:
        found = _answering(sockets)
    else:
        found = next((each for each in sockets if _runs(each, config)), None) if prefers_socket else None
    if found is not None:
        return found
    named = _named(config, env_file)
    if named.fault is not None and not prefers_socket:
        print_message(f"warning: {named.fault}", "warning")
    listen = named.admin.listen
    client = None
    if listen not in {None, OFF}:
        client = Client(address(str(listen)), named.admin.token.get_secret_value() if named.admin.token else None)
        if client.answers():
            return client
    if config is not None:
        # If the file sets `listen`, a router at a socket counts only if it was started with this file. It then loaded
        # the file before `listen` was set. If the file does not set `listen`, any router at a socket counts.
        found = next((each for each in sockets if (_runs(each, config) if listen else each.answers())), None)
    if found is not None:
        return found
    if listen == OFF:
        raise UnavailableError("commands can't reach the router, because its configuration has `admin: off`")
    if client is not None and named.fault is None:
        return client
    tried = ", ".join(str(each.address) for each in [*sockets, *([client] if client else [])])
    if named.fault is not None:
        raise UnavailableError(
            f"no router was found under the name {instance!r} (nothing listens at {tried}). A router may listen at "
            f"another address, which can't be read: {named.fault}"
        )
    raise UnavailableError(f"no router runs here under the name {instance!r} (nothing listens at {tried})")


def _runs(client: Client, config: Path) -> bool:
    """Return whether the router of a client responds, and was started with this file."""
    if not client.answers():
        return False
    with contextlib.suppress(RouterError, OSError):
        return Path(client.get(STATUS)["config"]["file"]).resolve() == config.resolve()
    return False


def _answering(clients: Iterable[Client]) -> Client | None:
    return next((client for client in clients if client.answers()), None)


def configuration(config: Path | None, env_file: Path | None, instance: str) -> Loaded:
    """Load the configuration of the router that runs under this name, for a command that needs the router's Redis.

    If `config` is not given, the file is the one that the running router was started with. If no router runs, it is the
    file that `run` would find. Only the secrets of `redis` are needed. Raises `ConfigError` if such a secret is
    missing.
    """
    used = _Used(config, env_file) if config is not None else _used(env_file, instance)
    loaded = load_config(used.file, used.env_file, placeholders=True)
    origin, borrowed = loaded.redis_origin, None
    if origin.variable in used.variables and (not origin.is_set or "redis.url" in loaded.unknown):
        # The variable is set neither here nor in the env file, so the router was started in another environment.
        borrowed = origin.variable
        environ = {**os.environ, **used.variables}
        loaded = load_config(used.file, used.env_file, environ=environ, placeholders=True)
    if config is None and used.file is not None and (borrowed or used.file != _found()):
        redis = (
            f", and the Redis URL {shown(loaded.config.redis.url)} from the variable {borrowed} of that router's environment"
            if borrowed
            else ""
        )
        print_message(f"note: this command uses the configuration of the running router ({used.file}){redis}", "note")
    loaded.require("redis")
    return loaded


class _Used(NamedTuple):
    """The configuration and the env file that a command reads, and variables that are set only for the router."""

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
    """Return the files that the running router was started with.

    If no router responds, return only the given env file.
    """
    for state in _states():
        client = Client(default_address(state, instance))
        if not client.answers():
            continue
        with contextlib.suppress(RouterError):
            reported = client.get(STATUS)["config"]
            named = {name: Path(reported[name]) for name in ("file", "env_file") if reported.get(name)}
            variables = _variables(reported)
            if state == SERVICE_STATE:
                # The router belongs to another user, who may be able to change its files. Such a file could name other
                # files and addresses. Root must not read and send those files, or connect to those addresses.
                named = {name: path for name, path in named.items() if distrust(path) is None}
                variables = {}
                if SERVICE_ENVIRONMENT.exists():
                    named.setdefault("env_file", SERVICE_ENVIRONMENT)
            return _Used(named.get("file"), env_file or named.get("env_file"), variables)
    return _Used(None, env_file)


def _variables(reported: Mapping[str, Any]) -> dict[str, str]:
    """Return the variable with the URL of the router's Redis, and this URL, if this environment lacks the variable."""
    variable = str(reported.get("redis_from", ""))
    name = variable.removeprefix("$")
    if not variable.startswith("$") or os.environ.get(name) or not reported.get("redis"):
        return {}
    return {name: str(reported["redis"])}


def _states() -> Iterator[Path]:
    """Yield the state directories that may have the socket, the likeliest first."""
    with contextlib.suppress(ConfigError):
        yield state_path(os.environ)
    yield SERVICE_STATE


class _Named(NamedTuple):
    """The section `admin` of a configuration, and the first fault of the file, if it has one."""

    admin: AdminConfig
    fault: str | None = None


def _named(config: Path | None, env_file: Path | None) -> _Named:
    """Return the section `admin` of the configuration, even if the configuration has faults.

    If the section can't be read, return the default section. Raises `ConfigError` if a given configuration does not
    exist.
    """
    from router.ops.loading import read_admin

    try:
        path = find_config(config)
    except ConfigError:
        return _Named(AdminConfig())
    admin, errors = read_admin(path, environ=os.environ, env_file=env_file)
    if errors and config is not None and not path.is_file():
        raise ConfigError(errors)
    return _Named(admin, f"{path} has faults ({errors[0].headline()})" if errors else None)
