"""The search for loops: sinks that write to a channel or key of a source, or to a key of the router; floor 4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from router.config import redis_url
from router.config.models import PubSubConfig
from router.core.matching import exactly
from router.core.rendering import TemplateEnvironment
from router.core.rendering.environment import literal
from router.core.wiring.channel_sets import meet
from router.errors import class_and_text
from router.ops.loading.checking.sinks import CheckedSink
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Mapping, Node, quoted
from router.ops.loading.reading.placeholders import WORD
from router.options import RedisTarget, SinkOptions, is_template


class _Written(NamedTuple):
    """A channel or key to which a sink writes: the target, its node in the configuration, and a glob of its names."""

    target: RedisTarget
    node: Node
    glob: str


def look_for_loops(draft: Draft, environment: TemplateEnvironment) -> None:
    """Report each sink that writes to a channel or key of a source on the same server, or to a key of the router.

    For a literal name, the problem is an error. For a template that may give such a name, the problem is a warning. But
    a template that may give a key of the router is an error too.
    """
    for sink in draft.sinks.values():
        for target, node in _targets(draft, sink):
            glob = _glob_of(target.name, environment)
            if glob is not None:  # a faulty template is reported where templates are compiled
                written = _Written(target, node, glob)
                _own_keys(draft, written)
                _loop(draft, written)


def _glob_of(name: str, environment: TemplateEnvironment) -> str | None:
    """Return a glob that matches every name to which a template may render; None for a faulty template."""
    if not is_template(name):
        return exactly(literal(name))
    from router.core.rendering.possible_texts import glob_of

    return glob_of(name, environment.plain)


def _targets(draft: Draft, sink: CheckedSink) -> Iterator[tuple[RedisTarget, Node]]:
    """Yield the channels and keys to which a sink writes, by its own options and by the overrides of routes."""
    if sink.config is None:
        return
    own = _of(draft, sink, sink.config.options)
    yield from _placed(own, sink.keys)
    for route in draft.routes:
        for entry in route.sinks:
            place = draft.places.get((sink.name, route.id))
            if entry.sink == sink.name and entry.options is not None and place is not None:
                replaced = _of(draft, sink, entry.options)
                yield from _placed([target for target in replaced if target not in own], place)


def _of(draft: Draft, sink: CheckedSink, options: SinkOptions) -> Sequence[RedisTarget]:
    """Return the targets in the options. `redis_targets` is code of a plugin, so it may raise or return anything."""
    try:
        return [each for each in options.redis_targets if isinstance(each, RedisTarget) and isinstance(each.name, str)]
    except Exception as error:  # noqa: BLE001  # any error of a plugin is a fault of its sink
        message = f"its plugin ({sink.type.origin}) fails in `redis_targets`: {class_and_text(error)}"
        draft.problems.add(message, sink.entry.mark, path=sink.entry.node.path)
        return []


def _placed(targets: Sequence[RedisTarget], keys: Mapping) -> Iterator[tuple[RedisTarget, Node]]:
    for target in targets:
        yield target, keys.get(target.option) or keys


def _own_keys(draft: Draft, written: _Written) -> None:
    """Report a target if it is a key of the router, or a template that may give such a key."""
    prefix = f"{{{draft.redis.key_prefix}}}:"
    if not meet((written.glob,), (f"{exactly(prefix)}*",)):
        return
    kind = written.target.kind
    if is_template(written.target.name):
        message = f"an event could choose one of the router's own {kind}s ({prefix}…)"
        draft.problems.add(f"{message}: begin the template with another literal text, such as inbox:", written.node)
    else:
        message = f"names that begin with {quoted(prefix)} are reserved for the router; choose another {kind}"
        draft.problems.add(message, written.node)


def _loop(draft: Draft, written: _Written) -> None:
    """Report the first source that reads the target from the same server."""
    target = written.target
    place = server_of(draft, target.url)
    for name, source in draft.sources.items():
        subscribes = isinstance(source, PubSubConfig)
        server, database = server_of(draft, source.url)
        same = server == place[0] and (subscribes or database == place[1])
        if server is None or not same or subscribes != (target.kind == "channel"):
            continue
        for read in source.reads:
            if not meet((written.glob,), (read if subscribes else exactly(read),)):
                continue
            if not is_template(target.name):
                message = f"source {name} reads {quoted(read)} from the same server, so every event would come back as a new event"
                draft.problems.add(f"{message}: write to another {target.kind}", written.node)
            else:
                message = f"this template may give a {target.kind} that source {name} reads from the same server ({quoted(read)})"
                cure = f"begin the template with a literal text with which no such {target.kind} begins"
                draft.problems.warn(f"{message}: the event would come back as a new event; {cure}", written.node)
            return


def server_of(draft: Draft, url: str | None) -> tuple[str | None, str]:
    """Return the server and database of a URL (None: the router's own Redis). The server is None if it is unknown."""
    if url is None and WORD in redis_url.server(draft.redis.url):
        return "", ""
    if url is not None and redis_url.fault(url):  # the URL is an option of a plugin without the type `RedisUrl`
        return None, ""
    url = draft.redis.url if url is None else url
    server = redis_url.server(url)
    return None if WORD in server else server, redis_url.database(url) or "0"
