"""The key `include`, which merges other files into the configuration; floor 4.

Mappings are merged and lists appended. If two files set the same key, the error names both files. An included file has
the same sections, but can't include other files. So there can be no cycle.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from router.ops.loading.reading import typed, yaml_nodes
from router.ops.loading.reading.expand import Expander
from router.ops.loading.reading.nodes import Entry, Mapping, Node, Scalar, Sequence, name_paths, quoted, word, words
from router.ops.loading.reading.problems import Problems

_MOST = 1000  # the maximum number of included files


def merge(root: Mapping, expander: Expander, problems: Problems, *, tests: bool = False) -> list[Path]:
    """Read the files that `include` names, expand them, and merge them into the root; return the paths of the files.

    If `tests` is False, the sections `tests` of these files are left out.
    """
    entry = root.entries.pop("include", None)
    if entry is None:
        return []
    read: list[Path] = []
    for path, name, node in _found(entry.node, problems):
        if path in read or path == root.mark.file.path or len(read) >= _MOST:
            continue
        read.append(path)
        included = yaml_nodes.read(path, name, problems, node)
        if included is not None:
            if not tests:
                included.entries.pop("tests", None)
            name_paths(included)
            expander.tree(included)
            _merge_file(root, included, problems)
    return read


def folders(root: Mapping) -> set[Path]:
    """Return the folders in which new files could match `include`."""
    node = root.get("include")
    named = words(node) if isinstance(node, Sequence) else [(node, word(node) or "")] if node else []
    parents = {(item.mark.file.folder / pattern).parent for item, pattern in named if glob.has_magic(pattern)}
    return {Path(os.path.normpath(parent)) for parent in parents if not glob.has_magic(str(parent))}


def _found(node: Node, problems: Problems) -> list[tuple[Path, str, Scalar]]:
    """Return the included files in order.

    For each file: its path, its name in messages, and the node that names the file.
    """
    items = node.items if isinstance(node, Sequence) else [node]
    found: list[tuple[Path, str, Scalar]] = []
    for item in items:
        item.path = "include"
        pattern = typed.text(item, problems)
        if pattern is None or not isinstance(item, Scalar):
            continue
        file = item.mark.file
        beside = os.path.dirname(file.name)  # noqa: PTH120  # the name as the user wrote it, not a path to open
        try:
            names = sorted(glob.glob(pattern, root_dir=file.folder, recursive=True))  # noqa: PTH207  # absolute ones too
        except (ValueError, OSError) as error:
            problems.add(f"this pattern can't be searched for: {error}", item)
            continue
        if not names and not glob.has_magic(pattern):
            names = [pattern]
        elif not names:
            problems.warn(f"no file matches {quoted(pattern)}", item, path="include")
        found += [(Path(os.path.normpath(file.folder / name)), os.path.join(beside, name), item) for name in names]  # noqa: PTH118  # as above
    return found


def _merge_file(root: Mapping, included: Mapping, problems: Problems) -> None:
    """Merge the sections of one included file into the configuration."""
    for key, entry in included.entries.items():
        mine = root.entries.get(key)
        if key == "include":
            problems.add("an included file can't include others", entry.mark, path=key)
        elif key == "allow_commands":  # otherwise a user who can write only to an included file could allow programs
            problems.add(
                f"an included file can't set `allow_commands`; set it in {root.mark.file.name}", entry.mark, path=key
            )
        elif mine is None:
            root.entries[key] = entry
        elif key == "version":
            _same_version(mine, entry, problems)
        elif isinstance(mine.node, Mapping) and isinstance(entry.node, Mapping):
            _merge_section(key, mine.node, entry.node, problems)
        elif isinstance(mine.node, Sequence) and isinstance(entry.node, Sequence):
            mine.node.items.extend(entry.node.items)
        elif isinstance(mine.node, Scalar) and mine.node.value is None:
            root.entries[key] = entry
        else:
            _twice(key, mine, entry, problems)


def _same_version(mine: Entry, entry: Entry, problems: Problems) -> None:
    if not isinstance(entry.node, Scalar) or not isinstance(mine.node, Scalar) or entry.node.value != mine.node.value:
        problems.add(f"must be the same version as in {mine.mark.file.name}", entry.node, path="version")


def _merge_section(section: str, mine: Mapping, other: Mapping, problems: Problems) -> None:
    for key, entry in other.entries.items():
        if key in mine.entries:
            _twice(f"{section}.{key}", mine.entries[key], entry, problems)
        else:
            mine.entries[key] = entry


def _twice(path: str, mine: Entry, entry: Entry, problems: Problems) -> None:
    first = f"{mine.mark.file.name}:{mine.mark.line}"
    problems.add(f"is already defined in {first}; remove one of the two definitions", entry.mark, path=path)
