"""Loads plugins: the built-ins, drop-in folders and installed packages; floor 3.

Each call builds a fresh pluggy manager. Every plugin is loaded on its own and guarded: one that can't be loaded is named
with its reason and harms no other. Who may write a drop-in file may run code as the router, so files and folders that
others can write are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel

from router import hookspecs
from router.config.models import HostKeys
from router.config.scalars import NAME
from router.errors import text_of
from router.files import UnreadableError, read_file, resolve_path
from router.options import SinkOptions
from router.ownership import distrust
from router.plugin_contracts import Execution, QueueType, SinkCallable, SinkType

_MODULE_PREFIX = "event_router_plugin_"
_LONGEST = 300  # characters of a plugin's own error that are shown

ALL = "all"
"""The key of `defaults` for every type of sink, which is therefore the name of none."""

PATIENCE = 10.0
"""Seconds that one plugin may take to load."""


class TooSlowError(BaseException):
    """A plugin takes too long to load; no `except Exception` of its own holds this up."""


class NoOptions(SinkOptions):
    """The options of a sink that was registered without any: every key is refused."""


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """One plugin: where it came from, what it registered, or why it failed."""

    name: str
    origin: str
    """`built-in`, the folder of a drop-in file, or the pip package."""
    path: Path | None = None
    version: str | None = None
    sinks: tuple[str, ...] = ()
    error: str | None = None
    digest: str | None = None
    """SHA-256 of the file as it was loaded, to tell whether it has changed since."""


@dataclass(frozen=True, slots=True)
class Plugins:
    """Everything that was loaded."""

    sinks: dict[str, SinkType] = field(default_factory=dict)
    loaded: list[LoadedPlugin] = field(default_factory=list)

    @property
    def failures(self) -> list[LoadedPlugin]:
        """The plugins that could not be loaded."""
        return [plugin for plugin in self.loaded if plugin.error]


def builtins_folder() -> Path:
    """The folder of the built-in plugins: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_data" / "plugins"
    return installed if installed.is_dir() else package.parent / "plugins"


def load_plugins(paths: Sequence[Path] = (), *, entry_points: bool = True) -> Plugins:
    """Load the built-ins, the drop-in files in the folders `paths`, and installed packages.

    A folder found twice counts once, and one that resolves to the built-ins' is skipped. Never raises for a plugin's
    fault: see `Plugins.failures`.
    """
    plugins = Plugins()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs.Hooks)
    builtins = builtins_folder()
    for file in _files(builtins):
        _load_file(plugins, manager, file, "built-in")
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
        for file in _files(folder):
            _load_drop_in(plugins, manager, file, str(folder))
    if entry_points:
        for point in importlib.metadata.entry_points(group=hookspecs.PROJECT):
            _load_entry_point(plugins, manager, point)
    return plugins


def _files(folder: Path) -> Iterator[Path]:
    """The drop-in files of a folder in name order; names that start with `_`, `.` are skipped (so are `..` links)."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.suffix == ".py" and entry.name[0] not in "._":
            yield entry


def _load_drop_in(plugins: Plugins, manager: pluggy.PluginManager, file: Path, origin: str) -> None:
    try:
        target = resolve_path(file)
    except UnreadableError as error:
        plugins.loaded.append(LoadedPlugin(file.stem, origin, file, error=f"can't be read: {error}"))
        return
    refused = distrust(target, regular=True)
    if refused is None and target.parent != file.parent.resolve():
        refused = distrust(target.parent, sticky=True)
    if refused:
        plugins.loaded.append(LoadedPlugin(file.stem, origin, file, error=refused))
    else:
        _load_file(plugins, manager, file, origin)


def _load_file(plugins: Plugins, manager: pluggy.PluginManager, file: Path, origin: str) -> None:
    plugin = LoadedPlugin(file.stem, origin, file)
    try:
        plugin = replace(plugin, digest=hashlib.sha256(read_file(file)).hexdigest())
        module = _import(file)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # whatever a plugin raises while it loads is its own fault
        plugins.loaded.append(replace(plugin, error=_cause(error, file)))
        return
    _register(plugins, manager, plugin, module)


def _load_entry_point(plugins: Plugins, manager: pluggy.PluginManager, point: importlib.metadata.EntryPoint) -> None:
    distribution = point.dist
    origin = f"package {distribution.name}" if distribution else "package"
    plugin = LoadedPlugin(point.name, origin, version=distribution.version if distribution else None)
    try:
        with _guard():
            loaded = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # as above
        plugins.loaded.append(replace(plugin, error=_cause(error, None)))
        return
    _register(plugins, manager, plugin, loaded)


class _Uncached(SourceFileLoader):
    """Compiles the file itself: a `.pyc` beside it is neither read, for nobody judged who wrote it, nor written."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the module."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _import(file: Path) -> ModuleType:
    """Import a file under a name that can't shadow any other module."""
    name = _MODULE_PREFIX + file.stem
    loader = None if file.parent == builtins_folder() else _Uncached(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} can't be imported")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # pydantic looks a model's annotations up in its module
    try:
        with _guard():
            spec.loader.exec_module(module)
    except BaseException:
        _restore(name, before)
        raise
    return module


@contextlib.contextmanager
def _guard() -> Iterator[None]:
    """Meanwhile code of a plugin runs: what it prints must not get into our data, and it is interrupted when it blocks.

    Only the main thread can be interrupted; in another one it has all the time it wants.
    """
    with contextlib.redirect_stdout(sys.stderr):
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handler = signal.signal(signal.SIGALRM, _too_slow)
        timer = signal.setitimer(signal.ITIMER_REAL, PATIENCE, 1.0)  # again each second, should the plugin catch it
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, *timer)


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise TooSlowError(f"it takes longer than {PATIENCE:g} s to load")


def _restore(name: str, module: ModuleType | None) -> None:
    if module is None:
        del sys.modules[name]
    else:
        sys.modules[name] = module


def _register(plugins: Plugins, manager: pluggy.PluginManager, plugin: LoadedPlugin, module: Any) -> None:
    """Add the plugin to the manager, call its own `register_sinks` alone and keep what it registered.

    Whatever it does wrong is noted on it; what it had registered before it failed is taken back.
    """
    found: dict[str, SinkType] = {}
    try:
        if manager.register(module, name=f"{plugin.origin}/{plugin.name}") is None:
            raise ValueError("it is loaded already")
        with _guard():
            for implementation in manager.hook.register_sinks.get_hookimpls():
                if implementation.plugin is module:
                    implementation.function(*_arguments(implementation, plugins, found, plugin))
        _no_unknown_hooks(module)
        if not manager.get_hookcallers(module):
            raise ValueError(_unmarked(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # as above
        if manager.is_registered(module):
            manager.unregister(module)
        plugins.loaded.append(replace(plugin, error=_cause(error, plugin.path)))
        return
    plugins.sinks.update(found)
    plugins.loaded.append(replace(plugin, sinks=tuple(found)))


def _arguments(
    implementation: pluggy.HookImpl, plugins: Plugins, found: dict[str, SinkType], plugin: LoadedPlugin
) -> list[object]:
    return [_registrar(plugins, found, plugin)] if implementation.argnames else []


def _unmarked(module: Any) -> str:
    """Why a plugin that loads well does nothing."""
    names = [name for name in sorted(_known_hooks()) if callable(getattr(module, name, None))]
    if names:
        return f"`{names[0]}` lacks `@hookimpl`: write that above it (from router.api import hookimpl)"
    return f"no function is marked with `@hookimpl`; the hooks are {', '.join(sorted(_known_hooks()))}"


def _known_hooks() -> set[str]:
    return {name for name in vars(hookspecs.Hooks) if not name.startswith("_")}


def _no_unknown_hooks(module: Any) -> None:
    """Refuse a `@hookimpl` that fits no hook: a misspelt name would never be called."""
    known = _known_hooks()
    marker = f"{hookspecs.PROJECT}_impl"
    marked = {name for name, value in vars(module).items() if getattr(value, marker, None)}
    unknown = sorted(marked - known)
    if unknown:
        raise ValueError(f"there is no hook {unknown[0]!r}; the hooks are {', '.join(sorted(known))}")


def _registrar(plugins: Plugins, found: dict[str, SinkType], plugin: LoadedPlugin) -> hookspecs.RegisterSink:
    def register(
        name: str,
        sink: SinkCallable,
        *,
        options: type[SinkOptions] | None = None,
        queue: QueueType = "redis",
        concurrency: int = 4,
        batch: int | None = None,
        execution: Execution | None = None,
    ) -> None:
        other = plugins.sinks.get(name) or found.get(name)
        if other:
            raise ValueError(f"sink type {name!r} is taken: {other.origin} registered it")
        origin = str(plugin.path) if plugin.path and plugin.origin != "built-in" else f"{plugin.origin} {plugin.name}"
        kind = SinkType(name, sink, options or NoOptions, queue, concurrency, batch, execution, origin)
        fault = _fault(kind)
        if fault:
            raise ValueError(f"sink type {name!r}: {fault}")
        found[name] = kind

    return register


def _fault(kind: SinkType) -> str | None:
    """What is wrong with a registration: a plugin may have handed in anything, whatever the annotations say."""
    sink: Any = kind.sink
    options: Any = kind.options
    if not isinstance(kind.name, str) or not re.fullmatch(NAME, kind.name) or kind.name == ALL:
        return f"its name is 1 to 64 of the letters a-z A-Z, digits, `_`, `.` and `-`, and not `{ALL}`"
    if not callable(sink):
        return f"{sink!r} is neither a function nor a class"
    is_class = inspect.isclass(sink)
    if is_class and not (hasattr(sink, "deliver") or hasattr(sink, "deliver_batch")):
        return f"class {sink.__name__} has neither `deliver` nor `deliver_batch`"
    if not (inspect.isclass(options) and issubclass(options, SinkOptions)):
        return f"`options` is a subclass of SinkOptions, not {options!r}"
    taken = sorted(_keys(options) & _keys(HostKeys))
    if taken:
        return f"its option `{taken[0]}` has the name of a key of the host's, and would never be set"
    if kind.queue not in {"memory", "redis"}:
        return f"`queue` is 'memory' or 'redis', not {kind.queue!r}"
    if not _is_count(kind.concurrency):
        return f"`concurrency` is a whole number above 0, not {kind.concurrency!r}"
    if kind.batch is not None and not _is_count(kind.batch):
        return f"`batch` is None or a whole number above 0, not {kind.batch!r}"
    if kind.execution not in {None, "process"}:
        return f"`execution` is None or 'process', not {kind.execution!r}"
    if kind.execution == "process" and (is_class or inspect.iscoroutinefunction(sink)):
        return "`execution='process'` is for plain functions"
    return None


def _keys(model: type[BaseModel]) -> set[str]:
    """What the fields of a model are called in the configuration."""
    return {field.alias or name for name, field in model.model_fields.items()}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _cause(error: BaseException, file: Path | None) -> str:
    """One line that says what went wrong and, where it is known, on which line of the plugin."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} (line {error.lineno})"
    text = "; ".join(text_of(error).split("\n"))[:_LONGEST].strip("; ")
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    lines = (
        [
            frame.lineno
            for frame in inspect.getinnerframes(error.__traceback__, context=0)
            if file is not None and frame.filename == str(file)
        ]
        if error.__traceback__
        else []
    )
    return f"{message} (line {lines[-1]})" if lines else message
