"""Drop-in plugins: finding, checking and importing their files; floor 3.

A drop-in is a `.py` file, or a folder with an `__init__.py` (a Python package). Its modules are compiled each time: a
`.pyc` is not used, because the check of permissions covers only the `.py` files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from router.files import UnreadableError, distrust, read_file, resolve_path

_MODULE_PREFIX = "event_router_plugin_"


def plugin_name(path: Path) -> str:
    """Return the plugin name of a drop-in: its file or folder name without `.py`."""
    return path.name.removesuffix(".py")


def find_drop_ins(folder: Path, incomplete: list[Path]) -> Iterator[Path]:
    """Yield the drop-ins of a folder in name order; note in `incomplete` folders with Python files and no `__init__.py`.

    Names that start with `_` or `.` are skipped (so are `..` links).
    """
    for entry in _entries(folder):
        if entry.name.startswith("_"):
            continue
        if _is_code(entry):
            yield entry
        elif any(file.suffix == ".py" for file in _entries(entry)):
            incomplete.append(entry)


def code_of(drop_in: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield the importable files and folders of a drop-in: itself, then the content of a folder."""
    yield drop_in
    if drop_in.suffix == ".py" or (here := drop_in.resolve()) in above:  # a link may lead back up
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
    """Return why a drop-in must not be loaded, and the cure: a name clash, or code that other users may change."""
    twin = drop_in.with_name(f"{drop_in.name}.py")
    if drop_in.suffix != ".py" and os.path.lexists(twin):
        return f"{twin.name} is beside it and is loaded instead: remove or rename one of the two"
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


def digest_of(code: Sequence[Path]) -> str:
    """Return the SHA-256 of the files among `code`. Raises `UnreadableError`."""
    files = [path for path in code if path.suffix == ".py"]
    return hashlib.sha256(b"".join(os.fsencode(file) + b"\0" + read_file(file) for file in files)).hexdigest()


class _Uncached(SourceFileLoader):
    """The loader that always compiles the source file.

    It neither reads a `.pyc`, which was not checked, nor writes one.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the module."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Submodules(MetaPathFinder):
    """The finder of modules inside packages that `_Uncached` loaded: it loads them with `_Uncached` too."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, _: ModuleType | None = None, /) -> ModuleSpec | None:
        """Return a module's spec; None in other packages.

        Raises `ModuleNotFoundError` if the package has no such module.
        """
        package, _dot, name = fullname.rpartition(".")
        if not path or not isinstance(getattr(sys.modules.get(package), "__loader__", None), _Uncached):
            return None
        for file in (Path(path[0], name, "__init__.py"), Path(path[0], f"{name}.py")):
            if file.is_file():
                return importlib.util.spec_from_file_location(fullname, file, loader=_Uncached(fullname, str(file)))
        raise ModuleNotFoundError(f"there is neither {name}.py nor {name}/__init__.py in {path[0]}", name=fullname)


_SUBMODULES = _Submodules()


def import_drop_in(path: Path, *, trusted: bool = False) -> ModuleType:
    """Import a drop-in under a module name that is unique, also among drop-ins of different folders.

    All of its modules are imported again. If one fails, the modules of an earlier import stay in `sys.modules`. With
    `trusted`, Python may use and write `.pyc` files.
    """
    file = path if path.suffix == ".py" else path / "__init__.py"
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()
    name = f"{_MODULE_PREFIX}{re.sub('[^a-zA-Z0-9]', '_', plugin_name(path))}_{digest[:8]}"
    if not trusted and _SUBMODULES not in sys.meta_path:
        sys.meta_path.insert(0, _SUBMODULES)
    loader = (SourceFileLoader if trusted else _Uncached)(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    if spec is None:
        raise ImportError(f"{file.name} can't be imported")
    module = importlib.util.module_from_spec(spec)
    before = _forget(name)
    sys.modules[name] = module  # pydantic resolves a model's annotations in its module
    try:
        loader.exec_module(module)
    except BaseException:
        _forget(name)
        sys.modules.update(before)
        raise
    return module


def _forget(name: str) -> dict[str, ModuleType]:
    """Remove a module and its submodules from `sys.modules`; return them."""
    names = [key for key in list(sys.modules) if key == name or key.startswith(f"{name}.")]
    return {key: sys.modules.pop(key) for key in names}
