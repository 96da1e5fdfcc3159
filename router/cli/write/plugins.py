"""`event-router plugins`; floor 7."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.common import config_option, env_file_option, json_option, print_json, tell
from router.cli.tables import Column, show_table
from router.errors import ConfigError, Exit

if TYPE_CHECKING:
    from router.plugin_loading.plugin_manager import LoadedPlugin, Plugins

COLUMNS = (
    Column("name"),
    Column("sinks", rank=1, least=12),
    Column("from", rank=3, least=12),
    Column("version", rank=4, least=8),
    Column("status"),
)
"""The columns of the table."""


@click.command()
@config_option
@env_file_option
@json_option
def plugins(config: Path | None, env_file: Path | None, *, as_json: bool) -> int:
    """List the loaded plugins with their origin, the disabled plugins, and the failed ones with their error.

    Without a configuration: the built-in plugins and the installed packages. Exit code 1 if a plugin failed.
    """
    found = loaded_plugins(config, env_file)
    if as_json:
        print_json([_document(plugin) for plugin in found.loaded])
    else:
        show_table(COLUMNS, [_row(plugin) for plugin in found.loaded])
        for plugin in found.failures:
            tell(f"{plugin.path or plugin.name}: {plugin.error}", "error")
        for folder in found.incomplete:
            tell(f"{folder}: no plugin, because it has no __init__.py", "note")
    return Exit.FINDINGS if found.failures else Exit.OK


def loaded_plugins(config: Path | None, env_file: Path | None) -> Plugins:
    """Return the plugins of a configuration, even of a faulty one; without a configuration, built-ins and packages."""
    from router.cli.common import find_config
    from router.ops.loading.loader import check
    from router.plugin_loading.plugin_manager import load_plugins

    try:
        path = find_config(config)
    except ConfigError:
        return load_plugins()
    try:
        return check(path, environ=os.environ, env_file=env_file, placeholders=True, pipes=True).plugins
    except ConfigError:
        if not path.is_file():
            raise
        folder = path.absolute().parent / "plugins"
        tell(f"{path} can't be read (`event-router check {path}` says why): its plugins.paths are left out", "warning")
        return load_plugins([folder] if folder.is_dir() else [])


def _document(plugin: LoadedPlugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "origin": plugin.origin,
        "path": str(plugin.path) if plugin.path else None,
        "version": plugin.version,
        "sinks": list(plugin.sinks),
        "lookups": list(plugin.lookups),
        "error": plugin.error,
        "disabled": plugin.disabled,
    }


def _row(plugin: LoadedPlugin) -> tuple[str, ...]:
    status = "disabled" if plugin.disabled else "failed" if plugin.error else "ok"
    return (
        plugin.name,
        ", ".join((*plugin.sinks, *(f"{name} (lookup)" for name in plugin.lookups))) or "-",
        plugin.origin,
        plugin.version or "-",
        status,
    )
