"""The order of lookups whose keys use other lookups; floor 2."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

Needs = Mapping[str, Collection[str]]
"""The lookups that the key of each lookup uses, by name."""


def cycle(needs: Needs, start: str) -> list[str]:
    """Return a cycle of lookups, from `start` back to `start`.

    The key of each lookup uses the next lookup. Return an empty list if there is no cycle.
    """
    before: dict[str, str] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        for needed in sorted(needs.get(name, ())):
            if needed == start:
                path = [start]
                while name != start:
                    path.append(name)
                    name = before[name]
                return [*path, start][::-1]
            if needed not in before:
                before[needed] = name
                waiting.append(needed)
    return []


def in_order(needs: Needs, wanted: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the wanted lookups, and all lookups that their keys need, in groups.

    A key uses only lookups of earlier groups. Raises `ValueError` if `needs` has a cycle.
    """
    everything: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in everything:
            everything.add(name)
            waiting.extend(needs.get(name, ()))
    groups: list[tuple[str, ...]] = []
    done: set[str] = set()
    while done != everything:
        group = tuple(sorted(name for name in everything - done if done.issuperset(needs.get(name, ()))))
        if not group:
            raise ValueError("the keys of these lookups depend on each other in a cycle")
        groups.append(group)
        done.update(group)
    return tuple(groups)
