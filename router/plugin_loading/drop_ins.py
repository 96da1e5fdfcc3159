"""Drop-in plugins: finding, checking and importing their files; floor 3.

A drop-in is a `.py` file, or a folder with an `__init__.py` (a Python package). The files of a drop-in are read once
for each load, and all modules are compiled from these contents. After a reload, code of the old version may still run
and import another module of the drop-in. Such a module then has the old version too. A `.pyc` is not used, because the
check of permissions covers only the `.py` files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from router.files import UnreadableError, distrust, read_file, resolve_path

_MODULE_PREFIX = "event_router_plugin_"

KEPT = 8
"""The number of versions of one drop-in whose modules stay imported. The newest version gets new deliveries; older
versions may have deliveries under way."""

Sources = Mapping[Path, bytes]
"""The contents of a drop-in's files, by absolute path, as they were read for one load."""


def plugin_name(path: Path) -> str:
    """Return the plugin name of a drop-in: its file or folder name without `.py`."""
    return path.name.removesuffix(".py")


def find_drop_ins(folder: Path, incomplete: list[Path]) -> Iterator[Path]:
    """Yield the drop-ins of a folder in name order; add folders with Python files but no `__init__.py` to `incomplete`.

    Names that start with `_` or `.` are skipped.
    """
    for entry in _entries(folder):
        if entry.name.startswith("_"):
            continue
        if _is_code(entry):
            yield entry
        elif any(file.suffix == ".py" for file in _entries(entry)):
            incomplete.append(entry)


def code_of(drop_in: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield the importable files and folders of a drop-in: the drop-in itself, then the content of its folders."""
    yield drop_in
    if drop_in.suffix == ".py" or (here := drop_in.resolve()) in above:  # a link may lead to a folder above
        return
    for entry in filter(_is_code, _entries(drop_in)):
        yield from code_of(entry, above | {here})


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def _is_code(path: Path) -> bool:
    return path.suffix == ".py" or os.path.lexists(path / "__init__.py")


def refusal(drop_in: Path, code: Sequence[Path]) -> str | None:
    """Return why a drop-in must not be loaded, with the correction; None if it may be loaded.

    The reason is a clash of names, or code that other users can change.
    """
    twin = drop_in.with_name(f"{drop_in.name}.py")
    if drop_in.suffix != ".py" and os.path.lexists(twin):
        return (
            f"{twin.name} in the same folder has the same name and is loaded instead: remove or rename one of the two"
        )
    for path in code:
        refused = _distrusted(path)
        if refused:
            return refused if path == drop_in else f"{path.relative_to(drop_in)} {refused}"
    return None


def _distrusted(path: Path) -> str | None:
    """Return why a file or folder is untrusted, else None.

    For a link, the target and the target's folder are checked.
    """
    try:
        target = resolve_path(path)
    except UnreadableError as error:
        return f"can't be read: {error}"
    refused = distrust(target, regular=path.suffix == ".py")
    if refused is None and target.parent != path.parent.resolve():
        refused = distrust(target.parent, sticky=True)
    return refused


def read_sources(code: Iterable[Path]) -> Sources:
    """Return the content of each file in `code`, which also lists folders. Raises `UnreadableError`."""
    return {path.absolute(): read_file(path) for path in code if path.suffix == ".py"}


def digest_of(sources: Sources) -> str:
    """Return the SHA-256 of the files of a drop-in and their names."""
    return hashlib.sha256(b"".join(os.fsencode(file) + b"\0" + text for file, text in sources.items())).hexdigest()


class _Uncached(SourceFileLoader):
    """The loader that compiles modules from sources that were read before.

    It neither reads nor writes `.pyc` files, because their permissions were not checked.
    """

    def __init__(self, fullname: str, path: str, sources: Sources) -> None:
        super().__init__(fullname, path)
        self.sources = sources

    def get_data(self, path: str) -> bytes:
        """Return the content of a file.

        For a module, this is the content that was read for the load. For a data file, this is the current content.
        """
        source = self.sources.get(Path(path).absolute())
        return super().get_data(path) if source is None else source

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the module."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Submodules(MetaPathFinder):
    """The finder of modules inside packages that `_Uncached` loaded. Such modules are loaded with `_Uncached` too."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, _: ModuleType | None = None, /) -> ModuleSpec | None:
        """Return a module's spec; None for a module of another package.

        Raises `ModuleNotFoundError` if the package has no such module.
        """
        package, _dot, name = fullname.rpartition(".")
        loader = getattr(sys.modules.get(package), "__loader__", None)
        if not path or not isinstance(loader, _Uncached):
            return None
        for file in (Path(path[0], name, "__init__.py"), Path(path[0], f"{name}.py")):
            if file in loader.sources:
                own = _Uncached(fullname, str(file), loader.sources)
                return importlib.util.spec_from_file_location(fullname, file, loader=own)
        raise ModuleNotFoundError(f"there is neither {name}.py nor {name}/__init__.py in {path[0]}", name=fullname)


_SUBMODULES = _Submodules()


def import_drop_in(
    path: Path, sources: Sources, *, trusted: bool = False, last: ModuleType | None = None
) -> ModuleType:
    """Import a drop-in under a module name that is unique for its folder and its content.

    `last` is the module of the last successful load: if no file has changed since then, it is returned. Otherwise, all
    modules of the drop-in are imported from `sources`. If the import of a module fails, the modules of an earlier import
    stay in `sys.modules`. The modules of the last `KEPT` versions stay too, because their code may still run. With
    `trusted`, the drop-in is part of this package: it is imported only once, and Python can use and write `.pyc` files.
    """
    file = path if path.suffix == ".py" else path / "__init__.py"
    stem = f"{_MODULE_PREFIX}{re.sub('[^a-zA-Z0-9]', '_', plugin_name(path))}_{_hash(os.fsencode(path))}"
    name = stem if trusted else f"{stem}_{_hash(digest_of(sources).encode())}"
    known = sys.modules.get(name)
    if known is not None and (trusted or known is last):
        return known
    if not trusted and _SUBMODULES not in sys.meta_path:
        sys.meta_path.insert(0, _SUBMODULES)
    loader = SourceFileLoader(name, str(file)) if trusted else _Uncached(name, str(file), sources)
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    if spec is None:
        raise ImportError(f"{file.name} can't be imported")
    module = importlib.util.module_from_spec(spec)
    before = _forget(name)
    sys.modules[name] = module  # pydantic resolves a model's annotations in its module
    try:
        loader.exec_module(module)
    except BaseException:
        if sys.modules.get(name) is module:  # else, a later load has imported it, while this import took too long
            _forget(name)
            sys.modules.update(before)
        raise
    _forget_old(stem, name)
    return module


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:8]


_names: dict[str, list[str]] = {}
"""The module names of the imported versions of each drop-in, with the newest last."""


def _forget_old(stem: str, name: str) -> None:
    """Record that a version of a drop-in was imported. Remove the modules of all but the last `KEPT` versions."""
    names = _names.setdefault(stem, [])
    if name in names:
        names.remove(name)
    names.append(name)
    while len(names) > KEPT:
        _forget(names.pop(0))


def _forget(name: str) -> dict[str, ModuleType]:
    """Remove a module and its submodules from `sys.modules`; return them."""
    names = [key for key in list(sys.modules) if key == name or key.startswith(f"{name}.")]
    return {key: sys.modules.pop(key) for key in names}
