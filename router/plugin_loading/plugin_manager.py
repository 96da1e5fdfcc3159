"""The plugin manager: loads built-ins, drop-in files and folders, and installed packages; floor 3.

Each load builds a new pluggy manager. Plugins are loaded one by one. If a plugin fails, the reason is reported, and the
other plugins still work. A user who can change a drop-in can run code as the router. So drop-ins that other users can
change are refused.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import msgspec
import pluggy
from msgspec.structs import replace

from router import hookspecs
from router.errors import text_of
from router.files import UnreadableError, distrust
from router.plugin_contracts import LookupType, SinkType
from router.plugin_loading.api_version import check_module, check_source
from router.plugin_loading.drop_ins import (
    Sources,
    code_of,
    digest_of,
    find_drop_ins,
    import_drop_in,
    plugin_name,
    read_sources,
    refusal,
)
from router.plugin_loading.lookup_types import lookup_registrar
from router.plugin_loading.option_models import SHADOWED
from router.plugin_loading.sink_types import sink_registrar

_BUILT_IN = "built-in"
_LONGEST = 300  # the largest number of characters shown of a plugin's own error

PATIENCE = 10.0
"""Seconds allowed for loading one plugin."""


class TooSlowError(BaseException):
    """Raised if a plugin takes too long to load.

    It is a BaseException, so that an `except Exception` in the plugin does not catch it.
    """


class LoadedPlugin(msgspec.Struct, frozen=True):
    """A plugin with its origin and the types of sinks and lookups it registered, or the error of its load."""

    name: str
    origin: str
    """`built-in`, the folder of a drop-in, or the pip package."""
    path: Path | None = None
    """The file or folder of a drop-in."""
    version: str | None = None
    sinks: tuple[str, ...] = ()
    lookups: tuple[str, ...] = ()
    error: str | None = None
    digest: str | None = None
    """The SHA-256 of the plugin's files when they were loaded. It shows whether the files were changed later."""
    code: tuple[Path, ...] = ()
    """The files of a drop-in, with the folders that contain them."""
    sources: Sources = msgspec.field(default_factory=dict)
    """The files of a drop-in as they were read when it was loaded."""
    disabled: bool = False
    """True if the plugin is switched off: it was not imported."""

    @property
    def named(self) -> str:
        """The name of the plugin in messages, and as the `origin` of its types.

        It is the path of a drop-in, or the origin and the name of any other plugin.
        """
        return str(self.path) if self.path and self.origin != _BUILT_IN else f"{self.origin} {self.name}"


class Plugins(msgspec.Struct, frozen=True):
    """All plugins, and the types of sinks and lookups of the imported plugins."""

    sinks: dict[str, SinkType] = msgspec.field(default_factory=dict)
    lookups: dict[str, LookupType] = msgspec.field(default_factory=dict)
    loaded: list[LoadedPlugin] = msgspec.field(default_factory=list)
    incomplete: list[Path] = msgspec.field(default_factory=list)
    """Folders beside the drop-ins with Python files but without `__init__.py`. Such folders are not plugins."""

    @property
    def code(self) -> frozenset[Path]:
        """The files and folders of all drop-ins."""
        return frozenset(path for plugin in self.loaded for path in plugin.code)

    @property
    def failures(self) -> list[LoadedPlugin]:
        """The plugins that could not be loaded."""
        return [plugin for plugin in self.loaded if plugin.error]

    @property
    def origins(self) -> dict[str, str]:
        """The plugin of each type of sink, also for built-in types that were not imported."""
        return {sink: plugin.named for plugin in self.loaded for sink in plugin.sinks}

    @property
    def disabled(self) -> list[str]:
        """The names of the plugins that are switched off."""
        return [plugin.name for plugin in self.loaded if plugin.disabled]


def builtins_folder() -> Path:
    """Return the folder of the built-in plugins: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_data" / "plugins"
    return installed if installed.is_dir() else package.parent / "plugins"


def load_plugins(
    paths: Sequence[Path] = (),
    *,
    entry_points: bool = True,
    disable: Callable[[LoadedPlugin], bool] = lambda _plugin: False,
    used: Collection[str] | None = None,
) -> Plugins:
    """Load the built-ins, the drop-ins in the folders `paths`, and installed packages.

    A folder given twice is loaded once; the folder of the built-ins is skipped. A plugin for which `disable` is true is
    listed and not imported. If `used` is given, a built-in is imported only if its type is in `used`, to save time and
    memory. A faulty plugin raises no error: see `Plugins.failures`.
    """
    loading = _Loading(Plugins(), _manager(), disable)
    plugins = loading.plugins
    builtins = builtins_folder()
    for path in find_drop_ins(builtins, plugins.incomplete):
        _load_built_in(loading, path, used)
    seen = {builtins.resolve()}
    for folder in paths:
        resolved = folder.resolve()
        if resolved in seen:
            continue
        seen.add(resolved)
        refused = distrust(resolved)
        if refused:
            plugins.loaded.append(LoadedPlugin(folder.name, str(folder), folder, error=refused))
            continue
        for path in find_drop_ins(folder, plugins.incomplete):
            _load_drop_in(loading, path, str(folder))
    if entry_points:
        for point in importlib.metadata.entry_points(group=hookspecs.PROJECT):
            _load_entry_point(loading, point)
    _last_modules.clear()
    _last_modules.update(loading.modules)
    return plugins


_last_modules: dict[Path, ModuleType] = {}
"""The modules of the drop-ins that the last call of `load_plugins` loaded without an error."""


class _Loading(msgspec.Struct, frozen=True):
    """The state of a call of `load_plugins`: the result so far, the pluggy manager, the function `disable`, and the
    modules of the drop-ins that were loaded without an error.
    """

    plugins: Plugins
    manager: pluggy.PluginManager
    disable: Callable[[LoadedPlugin], bool]
    modules: dict[Path, ModuleType] = msgspec.field(default_factory=dict)


def _load_built_in(loading: _Loading, path: Path, used: Collection[str] | None) -> None:
    """Load a built-in, or only list it if its type is not used. The type has the name of the plugin's folder."""
    plugin = LoadedPlugin(plugin_name(path), _BUILT_IN, path, sinks=(plugin_name(path),))
    if used is None or plugin.name in used or loading.disable(plugin):
        _load_drop_in(loading, path, _BUILT_IN)
    else:
        loading.plugins.loaded.append(plugin)


def _load_drop_in(loading: _Loading, path: Path, origin: str) -> None:
    plugin = LoadedPlugin(plugin_name(path), origin, path, code=tuple(code_of(path)))
    trusted = origin == _BUILT_IN
    refused = None if trusted else refusal(path, plugin.code)
    if not loading.disable(plugin):
        try:
            sources = {} if refused else read_sources(plugin.code)
        except UnreadableError as error:
            refused = _cause(error, plugin)
        if refused:
            loading.plugins.loaded.append(replace(plugin, error=refused))
            return
        plugin = replace(plugin, sources=sources, digest=digest_of(sources))
    find = partial(import_drop_in, path, plugin.sources, trusted=trusted, last=_last_modules.get(path))
    _load(loading, plugin, partial(_main_source, plugin), find)


def load_again(path: Path, sources: Sources) -> Plugins:
    """Load only one drop-in, from the sources that were read for an earlier load.

    `path` is the file or folder of the drop-in. A faulty plugin raises no error: see `Plugins.failures`.
    """
    loading = _Loading(Plugins(), _manager(), lambda _plugin: False)
    plugin = LoadedPlugin(plugin_name(path), str(path.parent), path, code=tuple(sources), sources=sources)
    _load(loading, plugin, partial(_main_source, plugin), partial(import_drop_in, path, sources))
    return loading.plugins


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs.Hooks)
    return manager


def _main_source(plugin: LoadedPlugin) -> bytes:
    """Return the content of a drop-in's file, or of its `__init__.py`."""
    assert plugin.path is not None
    path = plugin.path.absolute()
    return plugin.sources.get(path if path.suffix == ".py" else path / "__init__.py", b"")


def _load_entry_point(loading: _Loading, point: importlib.metadata.EntryPoint) -> None:
    distribution = point.dist
    origin = f"package {distribution.name}" if distribution else "package"
    plugin = LoadedPlugin(point.name, origin, version=distribution.version if distribution else None)
    _load(loading, plugin, partial(_source_of, point.module), point.load)


def _source_of(module: str) -> bytes:
    """Return the content of an installed module's file without importing it; empty if there is no source file."""
    spec = importlib.util.find_spec(module)
    file = Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None
    return b"" if file is None else file.read_bytes()


def _load(loading: _Loading, plugin: LoadedPlugin, source: Callable[[], bytes], find: Callable[[], Any]) -> None:
    """Import a plugin with `find`, add it to the manager, call its hooks and store the types it registers.

    `source` returns the content of the plugin's main file, which may set `requires_api`. An error is stored in
    `LoadedPlugin.error`. Types that the plugin registered before the error are discarded.
    """
    plugins, manager = loading.plugins, loading.manager
    if loading.disable(plugin):
        plugins.loaded.append(replace(plugin, disabled=True))
        return
    sinks: dict[str, SinkType] = {}
    lookups: dict[str, LookupType] = {}
    module = None
    try:
        with _guard():
            check_source(source())
            module = find()
            check_module(module)
            if manager.register(module, name=f"{plugin.origin}/{plugin.name}") is None:
                raise ValueError("the plugin is already loaded")
            _call(
                manager.hook.register_sinks,
                module,
                sink_registrar(plugins.origins, sinks, plugin.named, plugin.sources),
            )
            _call(manager.hook.register_lookups, module, lookup_registrar(plugins.lookups, lookups, plugin.named))
        _no_unknown_hooks(module)
        if not manager.get_hookcallers(module):
            raise ValueError(_unmarked(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # a plugin may raise anything, even SystemExit
        if manager.is_registered(module):
            manager.unregister(module)
        plugins.loaded.append(replace(plugin, error=_cause(error, plugin)))
        return
    plugins.sinks.update(sinks)
    plugins.lookups.update(lookups)
    plugins.loaded.append(replace(plugin, sinks=tuple(sinks), lookups=tuple(lookups)))
    if plugin.path is not None:
        loading.modules[plugin.path] = module


@contextlib.contextmanager
def _guard() -> Iterator[None]:
    """Guard code of a plugin: redirect its prints to stderr, and interrupt it after `PATIENCE` seconds.

    Only the main thread can be interrupted (by SIGALRM). In other threads, the time is not limited. Pydantic's warning
    about an option with the name of an attribute is not shown, because the router refuses such an option.
    """
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.filterwarnings("ignore", SHADOWED, UserWarning)
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handler = signal.signal(signal.SIGALRM, _too_slow)
        timer = signal.setitimer(signal.ITIMER_REAL, PATIENCE, 1.0)  # repeated, in case the plugin catches the error
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, *timer)


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise TooSlowError(f"the plugin takes longer than {PATIENCE:g} s to load")


def _call(hook: pluggy.HookCaller, module: Any, register: object) -> None:
    """Call a plugin's own implementations of a hook."""
    for implementation in hook.get_hookimpls():
        if implementation.plugin is module:
            implementation.function(*([register] if implementation.argnames else []))


def _unmarked(module: Any) -> str:
    """Return why a plugin that was imported without error registers no hook, with the correction."""
    names = [name for name in sorted(_known_hooks()) if callable(getattr(module, name, None))]
    if names:
        return f"the function `{names[0]}` is not marked as a hook: write `@hookimpl` above it (from router.api import hookimpl)"
    where = " of __init__.py" if hasattr(module, "__path__") else ""
    return f"no function{where} is marked with `@hookimpl`; the hooks are {', '.join(sorted(_known_hooks()))}"


def _known_hooks() -> set[str]:
    return {name for name in vars(hookspecs.Hooks) if not name.startswith("_")}


def _no_unknown_hooks(module: Any) -> None:
    """Raise `ValueError` for a `@hookimpl` without a matching hook: a misspelt name would never be called."""
    known = _known_hooks()
    marker = f"{hookspecs.PROJECT}_impl"
    marked = {name for name, value in vars(module).items() if getattr(value, marker, None)}
    unknown = sorted(marked - known)
    if unknown:
        raise ValueError(f"there is no hook {unknown[0]!r}; the hooks are {', '.join(sorted(known))}")


def _cause(error: BaseException, plugin: LoadedPlugin) -> str:
    """Return one line with the error, the plugin's file and line if known, and a hint."""
    frames = inspect.getinnerframes(error.__traceback__, context=0) if error.__traceback__ else []
    places = [(frame.filename, frame.lineno) for frame in frames]
    text = "; ".join(text_of(error).split("\n"))[:_LONGEST].strip("; ")
    if isinstance(error, SyntaxError):
        text = error.msg
        places.append((str(error.filename), error.lineno or 0))
    files = {str(file): f"{file.relative_to(plugin.path or file)}, ".removeprefix("., ") for file in plugin.code}
    lines = [f" ({files[file]}line {line})" for file, line in places if file in files]
    return f"{type(error).__name__}{text and ': '}{text}{lines[-1] if lines else ''}{_hint(error, plugin)}"


def _hint(error: BaseException, plugin: LoadedPlugin) -> str:
    """Return a hint if a plugin imports its own module without the dot, or a one-file plugin imports a file beside it."""
    if plugin.path is None or not isinstance(error, ImportError):
        return ""
    own = {plugin.name, *map(plugin_name, (*plugin.code, *plugin.path.parent.glob("*.py")))}
    if (error.name or "").partition(".")[0] not in own and "no known parent package" not in text_of(error):
        return ""
    return "; put a plugin with several modules into a folder with an __init__.py, and import them with `from .name import …`"
