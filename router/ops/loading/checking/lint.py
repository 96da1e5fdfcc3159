"""Warnings and notes about a valid configuration: probable mistakes and facts to know; floor 4.

`check --strict` fails for warnings, and not for notes. If other users can write to a file, the file is refused only if
it is code (see `router.files`). If other users can write to a configuration, there is a warning, because they could
send events elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from router.config.models import PubSubConfig, StreamConfig
from router.config.redis_url import database
from router.core.matching import any_of, is_glob
from router.core.rendering import TemplateEnvironment
from router.errors import class_and_text
from router.files import UnreadableError, others_may_write, resolve_path
from router.ops.loading.checking.conditions import without_fields
from router.ops.loading.checking.merging import note_double_deliveries, note_fallbacks_beside_sinks
from router.ops.loading.checking.reachability import look_for_the_unreachable
from router.ops.loading.checking.shared_keys import look_for_shared_keys
from router.ops.loading.checking.sinks import IN_CLEAR, CheckedSink, url_secrets
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Mapping, Mark, find, scalars, words
from router.ops.loading.reading.problems import Problems, unknown
from router.ops.redaction import HIDDEN
from router.options import OptionWarning, SinkOptions
from router.wording import counted

_OPENING = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb"
_CLOSING = "\u201c\u201d\u2018\u2019\u00ab\u00bb"


def look_around(draft: Draft, environment: TemplateEnvironment) -> None:
    """Add the warnings and notes to a draft without errors."""
    _typographic_quotes(draft)
    _passwords(draft)
    _unused_sinks(draft)
    _unused_lookups(draft)
    look_for_the_unreachable(draft, environment)
    _broken_plugins(draft)
    _warnings_of_options(draft)
    _unknown_disabled_plugins(draft)
    _databases(draft)
    _embedded_settings(draft)
    _exact_names(draft)
    look_for_shared_keys(draft)
    _claims(draft)
    _texts_without_fields(draft)
    note_double_deliveries(draft)
    note_fallbacks_beside_sinks(draft)
    _memory_beside_redis(draft)


def _typographic_quotes(draft: Draft) -> None:
    """Warn about typographic quotes, because YAML reads typographic quotes as a part of the text."""
    for scalar in scalars(draft.root):
        if not scalar.style and scalar.text[:1] in _OPENING and scalar.text[-1:] in _CLOSING and len(scalar.text) > 1:
            message = f"the quotes {scalar.text[0]} and {scalar.text[-1]} are a part of the text, because YAML knows only the quotes \" and '; write \" or ' instead"
            draft.problems.warn(message, scalar)


def _passwords(draft: Draft) -> None:
    """Warn about passwords that are written in a URL.

    Such a password is a secret, like the value of a secret option.
    """
    for scalar in scalars(draft.root):
        text = scalar.text if scalar.expanded else str(scalar.value)
        if any("${" not in each and each != HIDDEN for each in url_secrets(text)):
            draft.problems.warn(IN_CLEAR, scalar)


def _unused_sinks(draft: Draft) -> None:
    used = {target.sink for route in draft.routes for target in route.sinks}
    if isinstance(draft.unmatched, list):
        used.update(target.sink for target in draft.unmatched)
    if draft.dead_letters.notify is not None:
        used.update(draft.dead_letters.notify.sinks)
    for sink in draft.sinks.values():
        if sink.config is not None:
            used.update(sink.config.host.fallback)
    for name, entry in draft.entries("sinks").items():
        if name not in used:
            draft.remark("no route uses this sink, so it gets no deliveries", entry)


def _unused_lookups(draft: Draft) -> None:
    used = frozenset[str]().union(*draft.lookups_used.values())
    for name, entry in draft.entries("lookups").items():
        if name not in used:
            draft.remark("no template and no `only_if` uses this lookup", entry)


def _broken_plugins(draft: Draft) -> None:
    for plugin in draft.plugins.failures:
        place = plugin.path or plugin.origin
        draft.problems.warn(f"the plugin {plugin.name} ({place}) could not be loaded: {plugin.error}")


def _warnings_of_options(draft: Draft) -> None:
    """Add the warnings about the options of sinks: about the sinks' own options, and about overrides of routes."""
    for sink in draft.sinks.values():
        if sink.config is None:
            continue
        own = _warnings_of(draft, sink, sink.config.options)
        _place_warnings(draft, own, sink.keys)
        for route in draft.routes:
            for entry in route.sinks:
                place = draft.places.get((sink.name, route.id))
                if entry.sink == sink.name and entry.options is not None and place is not None:
                    replaced = _warnings_of(draft, sink, entry.options)
                    _place_warnings(draft, [each for each in replaced if each not in own], place)


def _warnings_of(draft: Draft, sink: CheckedSink, options: SinkOptions) -> list[OptionWarning]:
    """Return the warnings about options. `check_warnings` is code of a plugin, so it may raise or return anything."""
    try:
        found = [each for each in options.check_warnings if isinstance(each, OptionWarning)]
        return [each for each in found if isinstance(each.option, str) and isinstance(each.message, str)]
    except Exception as error:  # noqa: BLE001  # any error of a plugin
        why = class_and_text(error)
        message = f"its plugin ({sink.type.origin}) fails in `check_warnings`: {why}"
        draft.remark(message, sink.entry)
        return []


def _place_warnings(draft: Draft, warnings: Iterable[OptionWarning], keys: Mapping) -> None:
    for warning in warnings:
        draft.problems.warn(warning.message, keys.get(warning.option) or keys)


def _unknown_disabled_plugins(draft: Draft) -> None:
    """Warn about a name in `plugins.disable` that no plugin has.

    The name may be misspelt, and the intended plugin is loaded.
    """
    known = list(dict.fromkeys(plugin.name for plugin in draft.plugins.loaded))
    for item, name in words(find(draft.root, "plugins", "disable")):
        if name not in known:
            draft.problems.warn(unknown("plugin", name, known), item)


def _databases(draft: Draft) -> None:
    for name, source in draft.sources.items():
        if not isinstance(source, PubSubConfig) or database(source.url or draft.redis.url) in {"", "0"}:
            continue
        entry = draft.entries("sources")[name]
        message = "the number of the database has no effect on pub/sub: events from every database of the server arrive"
        draft.remark(message, entry, "note", find(entry.node, "url"))


def _embedded_settings(draft: Draft) -> None:
    """Add notes about settings of the embedded server that have no effect, because another server is used."""
    entry = draft.entries("redis").get("appendfsync")
    if entry is not None and draft.redis.url != "embedded":
        message = "has no effect, because the router does not use the embedded server; set appendfsync in the configuration of Redis itself"
        draft.remark(message, entry, "note")


def _exact_names(draft: Draft) -> None:
    """Report names of streams and lists that look like patterns, because these names are read as exact names."""
    for name, source in draft.sources.items():
        if isinstance(source, PubSubConfig):
            continue
        for read in source.reads:
            if is_glob(read):
                message = f"{read!r} is read as an exact name, because only a pubsub source supports patterns"
                draft.remark(message, draft.entries("sources")[name])


def _claims(draft: Draft) -> None:
    """Report streams with a `claim.idle` so short that another router may claim an entry during a slow attempt."""
    timeouts = [sink.config.host.timeout for sink in draft.sinks.values() if sink.config is not None]
    longest = max(timeouts, default=0.0)
    for name, source in draft.sources.items():
        if isinstance(source, StreamConfig) and source.claim.idle < 2 * longest:
            why = "otherwise another router may claim an entry during a slow attempt"
            message = f"claim.idle should be at least {2 * longest:g} s, twice the longest `timeout` of a sink; {why}"
            draft.remark(message, draft.entries("sources")[name])


def _texts_without_fields(draft: Draft) -> None:
    """Report conditions on fields in routes that may get events of a text source. Such events have no fields."""
    for entry, source in without_fields(draft):
        message = f"the events of source {source} are plain text, which has no fields to match; write only other sources in `sources` of this route"
        draft.remark(message, entry)


def _memory_beside_redis(draft: Draft) -> None:
    """Add notes about sinks with a queue in memory that can delay the other sinks of a stream or list."""
    if draft.deliver == "print":
        return
    noted: set[str] = set()
    for name, source in draft.sources.items():
        if isinstance(source, PubSubConfig):
            continue
        reached = _reached(draft, name, source.reads)
        others = sorted(sink for sink in reached if _queue(draft, sink) == "redis")
        for sink in sorted(reached):
            if others and _queue(draft, sink) == "memory" and sink not in noted:
                noted.add(sink)
                entries = counted(source.max_in_flight, "entry", "entries")
                get = "gets" if len(others) == 1 else "get"
                message = (
                    f"the queue of this sink is in memory: while the sink fails, the router reads only {entries} of {name} "
                    f"(`max_in_flight`), and {', '.join(others)} {get} no new events from {name}; write `queue: redis` to avoid this"
                )
                draft.remark(message, draft.entries("sinks")[sink], "note")


def _reached(draft: Draft, source: str, reads: Iterable[str]) -> set[str]:
    """Return the sinks to which a route may send events of a source.

    `reads` are the exact names that the source reads.
    """
    names = [name.encode() for name in reads]
    found: set[str] = set()
    for route in draft.routes:
        takes = any_of(route.channels) if route.channels else None
        if route.enabled and source in (route.sources or [source]) and (takes is None or any(map(takes, names))):
            found.update(target.sink for target in route.sinks)
    return found


def _queue(draft: Draft, sink: str) -> str | None:
    """Return the type of a sink's queue; None if the sink has faults."""
    checked = draft.sinks.get(sink)
    if checked is None or checked.config is None:
        return None
    queue = checked.config.host.queue
    return (queue and queue.type) or checked.type.queue


def check_file_modes(files: Iterable[Path], problems: Problems, mark: Mark) -> None:
    """Warn about files that other users can write, and about folders in which other users can replace a file."""
    folders: dict[Path, Path] = {}
    for file in sorted(files):
        _look(file, problems, mark)
        with contextlib.suppress(UnreadableError):  # this error is reported where the file is read
            folders.setdefault(resolve_path(file).parent, file)
            folders.setdefault(file.parent, file)
    for folder, file in folders.items():
        _look(folder, problems, mark, f", which contains {file.name},")


def _look(path: Path, problems: Problems, mark: Mark, what: str = "") -> None:
    try:
        info = path.stat()
        # File modes on a read-only mount have no meaning: containers often show 0777.
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return
    except (OSError, ValueError):
        return
    if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
        why = others_may_write(path, info, sticky=True)
        if why:
            problems.warn(f"{path}{what} {why}", mark)
