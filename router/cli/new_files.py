"""The writing of new files: all of them or none, and never over another file; floor 7."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from router.errors import RouterError


def refuse_existing(folder: Path, paths: Iterable[str], cure: str) -> None:
    """Raise `click.UsageError` if one of the files exists. A dangling link counts as existing.

    `cure` names what the user can do instead of moving the files away.
    """
    there = [str(folder / path) for path in paths if os.path.lexists(folder / path)]
    if there:
        raise _exists(there, cure)


def write_new(folder: Path, files: Mapping[str, str], cure: str) -> None:
    """Write files in their order into a folder; create missing folders.

    `cure` is what the user can do if a file exists.

    If writing fails or is interrupted, all created files and folders are removed again. Raises `click.UsageError` if a
    file exists, `RouterError` if a file can't be written.
    """
    made: list[Path] = []
    try:
        for path, text in files.items():
            _write(folder / path, text, made, cure)
    except BaseException:
        for each in reversed(made):
            with contextlib.suppress(OSError):
                each.rmdir() if each.is_dir() else each.unlink()
        raise


def _write(file: Path, text: str, made: list[Path], cure: str) -> None:
    """Write one file; add the file, and the folders created for it, to `made`."""
    try:
        missing = [each for each in file.parents if not each.exists()]
        for each in reversed(missing):
            each.mkdir()
            made.append(each)
        with file.open("x", encoding="utf-8") as opened:  # mode `x`: refuse an existing file, also behind a link
            made.append(file)
            opened.write(text)
    except FileExistsError:
        raise _exists([str(file)], cure) from None
    except OSError as error:
        raise RouterError(f"can't write {file}: {error.strerror}") from None


def _exists(paths: list[str], cure: str) -> click.UsageError:
    many = len(paths) > 1
    what = f"{' and '.join(paths)} {'exist' if many else 'exists'} already, and nothing is overwritten"
    them = "them" if many else "it"
    return click.UsageError(f"{what}: move {them} away, or {cure}")
