"""A configuration for one sink or lookup under test, loaded in the same way as by the daemon; floor 7."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from msgspec.structs import replace
from pydantic import SecretStr

from router.ops.loading import Loaded, load
from router.testing.in_process import NO_REDIS

NAME = "under-test"
"""The name of the sink or lookup in its configuration."""

LOOKUP = "record"
"""The name of the lookup in its configuration. It must be a valid name in a template."""

Folders = Path | str | Sequence[Path | str] | None
"""The folders of drop-in plugins. None means `plugins/` in the current folder, if this folder exists."""


@contextlib.contextmanager
def configured(folders: Folders, **sections: Any) -> Iterator[Loaded]:
    """Yield a configuration with these sections and the plugins in `folders`. At the end, the files are removed.

    Values may also be paths or secrets. Raises `ConfigError` for invalid options and for a type that does not exist.
    """
    document = {
        "version": 1,
        "redis": {"url": NO_REDIS},
        "plugins": {"paths": plugin_paths(folders)},
        "allow_commands": True,
        "sources": {"test": {"type": "pubsub", "channels": ["*"]}},
        "sinks": {"kept": {"type": "log", "path": "kept.jsonl"}},
        **sections,
    }
    document["routes"] = [{"id": "all", "sinks": list(document["sinks"])}]
    with written(document) as path:
        yield replace(load(path, environ=os.environ), write_base=path.parent)


@contextlib.contextmanager
def written(document: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the path of a configuration file. The file is in a folder of its own, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="event-router-test-") as folder:
        path = Path(folder, "config.yaml")
        path.write_text(yaml.safe_dump(_plain(document), allow_unicode=True, sort_keys=False), encoding="utf-8")
        path.chmod(0o600)
        yield path


def plugin_paths(folders: Folders) -> list[Path]:
    """Return the folders of drop-in plugins as absolute paths."""
    if folders is None:
        beside = Path("plugins").absolute()
        return [beside] if beside.is_dir() else []
    several = [folders] if isinstance(folders, str | Path) else folders
    return [Path(folder).absolute() for folder in several]


def _plain(value: Any) -> Any:
    """Return a value of the configuration as a type that YAML has."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def code_of(loaded: Loaded, made: Callable[..., Any] | None) -> set[Path]:
    """Return the files of all drop-ins, and of the package that defines `made`, the plugin's function or class."""
    files = set(loaded.plugins.code)
    package = str(getattr(made, "__module__", "")).partition(".")[0]
    for name, module in list(sys.modules.items()):
        if package and name.partition(".")[0] == package and (file := getattr(module, "__file__", None)):
            files.add(Path(file))
    return files
