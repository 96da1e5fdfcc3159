"""`event-router new-plugin`; floor 7."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shlex
import sys
from pathlib import Path

import click

from router.cli.common import find_config, print_message, print_text
from router.errors import ConfigError, Exit

_NAME = "[a-z][a-z0-9]*([_-][a-z0-9]+)*"
_LONGEST = 40
_WORDS = frozenset({"all", "null", "true", "false"})
"""The names that can't be types of sinks, because they have another meaning in a configuration."""

CONFIG = "config.yaml"
_ELSEWHERE = "name another folder with `event-router new-plugin NAME FOLDER`"


def _name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    """Return the name of a plugin if it is valid as a type of sink and as the name of a module."""
    if not re.fullmatch(_NAME, name) or len(name) > _LONGEST:
        rule = (
            f"a name has 1 to {_LONGEST} of the characters a-z 0-9 _ - and begins with a letter; "
            "a single _ or - may stand between letters or digits"
        )
        close = re.sub("[^a-z0-9]+", "-", re.sub("(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")[:_LONGEST]
        hint = f" (did you mean `{close}`?)" if re.fullmatch(_NAME, close) else ""
        raise click.BadParameter(f"{name!r} is not a valid name for a plugin{hint}: {rule}")
    if keyword.iskeyword(name) or name in _WORDS:
        language = "the configuration" if name in _WORDS else "Python"
        raise click.BadParameter(f"{name!r} is a word with a meaning in {language}: choose another name")
    return name


@click.command("new-plugin")
@click.argument("name", callback=_name)
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--package", "as_package", is_flag=True, help="Write a project for pip, in a folder of its own.")
def new_plugin(name: str, folder: Path | None, *, as_package: bool) -> int:
    """Write a working plugin with its test, and print the next commands. The plugin is a sink of the type NAME.

    Without --package, the plugin is a drop-in: plugins/NAME.py in FOLDER, the folder of the configuration. By default,
    FOLDER is the folder of $EVENT_ROUTER_CONFIG if this variable is set, else the current folder. With --package, the
    plugin is a project for pip in FOLDER, by default event-router-NAME. The exit code is 2 if one of the files exists
    already, or if another plugin has registered the type.
    """
    from router.cli.new_files import refuse_existing, write_new
    from router.cli.write import plugin_files
    from router.version import __version__

    beside = Path(os.environ.get("EVENT_ROUTER_CONFIG") or CONFIG).parent
    if as_package:
        folder = folder or Path(f"event-router-{name}")
        files = plugin_files.package(name, __version__)
    else:
        beside = folder = folder or beside
        files = plugin_files.drop_in(name)
    refuse_existing(folder, files, _ELSEWHERE)
    _refuse_taken(name, beside / "plugins", as_package=as_package)
    write_new(folder, files, _ELSEWHERE)
    print_text("\n".join(f"wrote {folder / path}" for path in files))
    if as_package:
        _show_package(name, folder)
    else:
        _show_drop_in(name, folder)
    return Exit.OK


def _refuse_taken(name: str, drop_ins: Path, *, as_package: bool) -> None:
    """Raise `click.UsageError` if another plugin has registered this type of sink, or a drop-in has the same name."""
    from router.cli.write import plugin_files
    from router.plugin_loading.plugin_manager import load_plugins

    taken = load_plugins([drop_ins] if drop_ins.is_dir() else []).sinks.get(name)
    if taken is not None:
        raise click.UsageError(f"the sink type {name!r} is already registered by {taken.origin}: choose another name")
    twin = drop_ins / plugin_files.module(name)
    if not as_package and os.path.lexists(twin):
        raise click.UsageError(
            f"a plugin of this name exists already, {twin}: choose another name, or move that plugin away"
        )


def _show_drop_in(name: str, folder: Path) -> None:
    """Print what to do next with a drop-in, and warn if the router will refuse it."""
    from router.cli.write import plugin_files
    from router.files import distrust
    from router.plugin_loading.drop_ins import code_of, refusal

    file = folder / plugin_files.drop_in_path(name)
    refused = distrust(file.parent.resolve()) or refusal(file, list(code_of(file)))
    if refused:
        print_message(f"warning: the router will not load {file}: {refused}", "warning")
    print_text("Next: run its test, see its options, use it.")
    _show_pytest(folder / plugin_files.test_path(name))
    config = _config_in(folder)
    if config is not None:
        _show_options(name, config)
    _show_sink(name)


def _config_in(folder: Path) -> Path | None:
    """Return the configuration that reads the drop-ins of a folder; None if no configuration does.

    If there is no configuration at all, the command `plugins` reads the drop-ins of the current folder. So this folder
    counts as having a configuration.
    """
    given = os.environ.get("EVENT_ROUTER_CONFIG")
    if given and Path(given).parent == folder:
        return Path(given)
    if (folder / CONFIG).is_file():
        return folder / CONFIG
    try:
        find_config(None)
    except ConfigError:
        return Path(CONFIG) if folder == Path() and not given else None
    return None


def _show_package(name: str, folder: Path) -> None:
    """Print what to do next with a package."""
    print_text("Next: install it together with the router, run its test, see its options, use it.")
    place = folder if folder.is_absolute() else f"./{folder}"  # pip would look up a name without a slash on an index
    _show_install("-e", str(place))
    _show_pytest(folder)
    _show_options(name, None)
    _show_sink(name)


def _show_pytest(path: Path) -> None:
    if not _has("pytest"):
        _show_install("pytest")
    print_text(f"  {shlex.join([_python(), '-m', 'pytest', str(path)])}")


def _show_install(*what: str) -> None:
    """Print the command that installs a package beside the router: with pip, or with uv if there is no pip."""
    pip = [_python(), "-m", "pip", "install"] if _has("pip") else ["uv", "pip", "install", "--python", _python()]
    print_text(f"  {shlex.join([*pip, *what])}")


def _show_options(name: str, config: Path | None) -> None:
    """Print the command that lists the options of the plugin. For a package, the command needs no configuration."""
    from router.cli.first_steps.samples import ours, ourselves

    command = f"plugins {name}"
    print_text(f"  {shlex.join(ourselves())} {command}" if config is None else f"  {ours(command, config)}")


def _show_sink(name: str) -> None:
    """Print the part of a configuration that uses the sink."""
    print_text("In the configuration:")
    print_text(
        f'  sinks:\n    {name}: {{type: {name}, url: "https://{name}.example.org/messages", to: "{{{{ payload.user_id }}}}"}}'
    )
    print_text(f"  routes:\n    - {{id: {name}, sinks: [{name}]}}")


def _has(module: str) -> bool:
    """Return whether the Python of this command can import a module."""
    return importlib.util.find_spec(module) is not None


def _python() -> str:
    """Return the Python of this command, as it is called from the current folder."""
    python = Path(sys.executable)
    return str(python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python)
