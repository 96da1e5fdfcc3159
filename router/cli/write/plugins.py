"""`event-router plugins`; floor 7."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.common import (
    config_option,
    env_file_option,
    json_option,
    print_json,
    print_message,
    print_text,
    wrapped,
)
from router.cli.tables import Column, show_table
from router.errors import ConfigError, Exit
from router.wording import counted

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


_LONGEST = 60
"""The maximum number of characters of the list of types of a plugin in the table. The first type is always listed."""

OPTIONS = (
    Column("option"),
    Column("type", rank=3, least=12, wraps=True),
    Column("default", rank=2, least=10, wraps=True),
    Column("meaning", rank=1, least=20, wraps=True),
)
"""The columns of the table of options."""


@click.command()
@click.argument("name", metavar="[TYPE]", required=False)
@config_option
@env_file_option
@json_option
def plugins(name: str | None, config: Path | None, env_file: Path | None, *, as_json: bool) -> int:
    """List the loaded, disabled and failed plugins with their origin; with TYPE, list the options of this type.

    TYPE is a type of sink or lookup, or the name of a plugin. Without a configuration, the command reads the built-in
    plugins, the installed packages and the drop-ins in the folder plugins/. The exit code is 1 if a plugin failed.
    """
    found = loaded_plugins(config, env_file)
    if name is not None:
        return _show_options(found, name, as_json=as_json)
    if as_json:
        print_json([_document(plugin) for plugin in found.loaded])
    else:
        show_table(COLUMNS, [_row(plugin) for plugin in found.loaded])
        for plugin in found.failures:
            print_message(f"{plugin.path or plugin.name}: {plugin.error}", "error")
        for folder in found.incomplete:
            print_message(f"{folder} is not a plugin, because it has no __init__.py", "note")
    return Exit.FINDINGS if found.failures else Exit.OK


def _show_options(found: Plugins, name: str, *, as_json: bool) -> int:
    """Print the options of the types with this name. Raises `click.UsageError` if there is no such type."""
    from router.cli.write.plugin_options import default_in_words, known, types_named

    failed = [plugin for plugin in found.failures if plugin.name == name]
    types = [each.document() for each in types_named(found, name)]
    if not types and not failed:
        from router.ops.loading.reading.problems import did_you_mean

        hint = did_you_mean(name, known(found))
        broken = (
            f"; {counted(len(found.failures), 'plugin')} failed, see `event-router plugins`" if found.failures else ""
        )
        raise click.UsageError(
            f"no sink type, lookup type or plugin is named {name!r}; known names: {', '.join(known(found))}{hint}{broken}"
        )
    if as_json:
        print_json(types)
    else:
        for each in types:
            print_text(f"{each['kind']} {each['type']}, from {each['origin']}")
            rows = [(row["name"], row["type"], default_in_words(row), row["description"]) for row in each["options"]]
            if rows:
                show_table(OPTIONS, rows)
            print_text(
                wrapped(
                    f"{'' if rows else 'no own options; '}the keys of every {each['kind']}: {', '.join(each['host_keys'])}"
                )
            )
    for plugin in failed:
        print_message(f"{plugin.path or plugin.name}: {plugin.error}", "error")
    return Exit.FINDINGS if failed else Exit.OK


def loaded_plugins(config: Path | None, env_file: Path | None) -> Plugins:
    """Return the plugins of a configuration, even of a faulty one.

    Without a configuration, these are the built-in plugins, the installed packages and the drop-ins in the folder
    `plugins`.
    """
    from router.cli.common import find_config
    from router.ops.loading.loader import check
    from router.plugin_loading.plugin_manager import load_plugins

    try:
        path = find_config(config)
    except ConfigError:
        return load_plugins(_drop_ins(Path()))
    try:
        draft = check(path, environ=os.environ, env_file=env_file, placeholders=True, pipes=True, every_type=True)
        return draft.plugins
    except ConfigError:
        if not path.is_file():
            raise
        print_message(
            f"{path} can't be read, so its plugins.paths are not used; `event-router check {path}` shows why", "warning"
        )
        return load_plugins(_drop_ins(path.absolute().parent))


def _drop_ins(folder: Path) -> list[Path]:
    """Return the folder of drop-ins beside a configuration, if there is one."""
    plugins = folder.absolute() / "plugins"
    return [plugins] if plugins.is_dir() else []


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


def _listed(types: Sequence[str]) -> str:
    """Return the types of a plugin for the table.

    The text names as many types as fit into `_LONGEST` characters, and the number of the others.
    """
    listed = ", ".join(types)
    if len(listed) <= _LONGEST:
        return listed or "-"
    shown = len(types)
    while shown > 1 and len(listed) > _LONGEST:
        shown -= 1
        listed = f"{', '.join(types[:shown])} and {len(types) - shown} more"
    return listed


def _row(plugin: LoadedPlugin) -> tuple[str, ...]:
    status = "disabled" if plugin.disabled else "failed" if plugin.error else "ok"
    return (
        plugin.name,
        _listed((*plugin.sinks, *(f"{name} (lookup)" for name in plugin.lookups))),
        plugin.origin,
        plugin.version or "-",
        status,
    )
