"""The sections of a configuration, checked one after another; floor 4."""

from __future__ import annotations

from typing import Literal, TypeVar

from router.config.models import SOURCES, AdminConfig, DeliverOnly, Model, SchemaConfig
from router.config.scalars import OFF, Zone
from router.ops.loading.checking import references, schema_files
from router.ops.loading.checking.routes import RouteChecker
from router.ops.loading.checking.sinks import check_defaults, check_sinks, entries_with_type
from router.ops.loading.draft import Draft
from router.ops.loading.reading import typed
from router.ops.loading.reading.nodes import Mapping, Mark, Node, Scalar, resolve, word
from router.ops.loading.reading.problems import Problems, did_you_mean, unknown

SECTIONS = (
    "version",
    "include",
    "redis",
    "plugins",
    "allow_commands",
    "sources",
    "schemas",
    "lookups",
    "defaults",
    "sinks",
    "routes",
    "unmatched",
    "deliver",
    "timezone",
    "dead_letters",
    "admin",
    "shutdown",
    "tests",
)
"""The keys of a configuration."""

_OPTIONAL = ("redis", "plugins", "schemas", "lookups", "defaults", "dead_letters", "admin", "shutdown", "tests")
_DELIVER = ("send", "print", "{only: [globs], others: print}")

M = TypeVar("M", bound=Model)


def check_sections(draft: Draft) -> None:
    """Check every section of the merged tree, and store the valid parts in the draft."""
    root, problems = draft.root, draft.problems
    typed.unknown_keys(root, SECTIONS, problems)
    for key in _OPTIONAL:  # the section is empty if all its lines are commented out
        found = root.get(key)
        if isinstance(found, Scalar) and found.empty:
            del root.entries[key]
    _version(root, problems)
    draft.redis = _simple(draft, "redis", draft.redis)
    draft.plugin_paths = _simple(draft, "plugins", draft.plugin_paths)
    _allow_commands(draft)
    draft.admin = _admin(draft)
    draft.shutdown = _simple(draft, "shutdown", draft.shutdown)
    _timezone(draft)
    _sources(draft)
    _schemas(draft)
    _lookups(draft)
    _sinks(draft)
    _routes(draft)
    _deliver(draft)
    _dead_letters(draft)
    if "tests" in draft.root.entries:
        from router.ops.loading.case_entries import check_cases  # noqa: PLC0415  # `run` loads no tests

        draft.cases = check_cases(draft)


def _required(draft: Draft, key: str, what: str) -> Node | None:
    node = draft.root.get(key)
    if node is None and not any(did_you_mean(other, [key]) for other in draft.root.entries if other not in SECTIONS):
        draft.problems.add(f"`{key}` is required: {what}", Mark(draft.root.mark.file, 1, 1), path=key)
    return node


def _version(root: Mapping, problems: Problems) -> None:
    node = root.get("version")
    if node is None:
        problems.add("`version` is required: write `version: 1`", Mark(root.mark.file, 1, 1), path="version")
        return
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(node, Scalar) and node.expanded and isinstance(value, str):
        value = resolve(value)
    if isinstance(value, bool) or not isinstance(value, int):
        problems.add(typed.expected("the number 1", node), node)
    elif value != 1:
        problems.add(f"this event-router reads version 1, not {value}", node)


def _simple(draft: Draft, key: str, default: M) -> M:
    """Return a section that is a plain model; the default if the section is missing or has faults."""
    entry = draft.root.entries.get(key)
    node = typed.mapping(entry.node if entry else None, draft.problems)
    found = typed.check(type(default), node, draft.problems, at=entry) if node is not None else None
    return default if found is None else found


def _admin(draft: Draft) -> AdminConfig:
    """Return the section `admin`: a mapping, or the word `off`."""
    node = draft.root.get("admin")
    said = word(node)
    if said == OFF:
        return AdminConfig(listen=OFF)
    if said is not None:
        draft.problems.add(unknown("word", said, [OFF, "{listen: HOST:PORT}"]), node)
        return draft.admin
    return _simple(draft, "admin", draft.admin)


def _dead_letters(draft: Draft) -> None:
    """Check the section `dead_letters`. The sinks in `notify` must exist, and must be named only once."""
    draft.dead_letters = _simple(draft, "dead_letters", draft.dead_letters)
    references.check_notified(draft)


class _Zoned(Model):
    timezone: Zone


class _Allowed(Model):
    allow_commands: bool


def _alone(draft: Draft, key: str, model: type[M]) -> M | None:
    """Return the model of a section that is a single value; None if the section is missing or has a fault."""
    entry = draft.root.entries.get(key)
    return None if entry is None else typed.check(model, Mapping(entry.mark, {key: entry}), draft.problems)


def _timezone(draft: Draft) -> None:
    zoned = _alone(draft, "timezone", _Zoned)
    if zoned is not None:
        draft.timezone = zoned.timezone


def _allow_commands(draft: Draft) -> None:
    allowed = _alone(draft, "allow_commands", _Allowed)
    draft.allow_commands = allowed is not None and allowed.allow_commands


def _sources(draft: Draft) -> None:
    problems = draft.problems
    node = typed.mapping(_required(draft, "sources", "name each source and write its type and keys"), problems)
    if node is None:
        return
    for name, entry, keys, kind in entries_with_type(node, "source", "write pubsub, stream or list", problems):
        if kind not in SOURCES:
            problems.add(unknown("type of source", kind, tuple(SOURCES)), keys.entries["type"].node)
            continue
        source = typed.check(SOURCES[kind], keys, problems, at=entry)
        if source is not None:
            draft.sources[name] = source


def _schemas(draft: Draft) -> None:
    problems = draft.problems
    node = typed.sequence(draft.root.get("schemas"), problems)
    for item in node.items if node is not None else ():
        keys = typed.mapping(item, problems)
        config = typed.check(SchemaConfig, keys, problems) if keys is not None else None
        named = keys.get("file") if keys is not None else None
        if config is not None and named is not None:
            entry = schema_files.compiled(config, named, problems, draft.files)
            if entry is not None:
                draft.schemas.append((config, entry, item))


def _lookups(draft: Draft) -> None:
    node = typed.mapping(draft.root.get("lookups"), draft.problems)
    if node is not None:
        from router.ops.loading.lookup_entries import check_lookups  # noqa: PLC0415  # few configurations have lookups

        draft.lookups = check_lookups(node, draft.plugins, draft.problems, draft.files)


def _sinks(draft: Draft) -> None:
    root, problems = draft.root, draft.problems
    defaults = typed.mapping(root.get("defaults"), problems)
    if defaults is not None:
        check_defaults(defaults, draft.plugins, problems, draft.reader)
    node = typed.mapping(_required(draft, "sinks", "name each sink and write its type and options"), problems)
    if node is not None:
        draft.sinks = check_sinks(node, defaults, draft.plugins, problems, draft.reader)
        references.check_fallbacks(draft)
        _programs(draft)


def _programs(draft: Draft) -> None:
    """Report the sinks that run programs, if the configuration does not allow programs."""
    for sink in draft.sinks.values():
        if sink.type.runs_programs and not draft.allow_commands:
            message = f"a sink of type {sink.type.name} runs programs with the rights of the router"
            cure = f"write `allow_commands: true` at the top level of {draft.root.mark.file.name} to allow it"
            draft.problems.add(f"{message}, which is not allowed: {cure}", sink.keys.get("type"))


def _routes(draft: Draft) -> None:
    names = (list(draft.entries("sources")), list(draft.entries("sinks")))
    checker = RouteChecker(*names, draft.sinks, draft.problems, draft.reader)
    node = typed.sequence(_required(draft, "routes", "list the routes, which send events to sinks"), draft.problems)
    if node is not None:
        draft.routes = checker.routes(node)
        draft.places = checker.places
    unmatched = draft.root.get("unmatched")
    if unmatched is not None:
        draft.unmatched = checker.unmatched(unmatched)


def _deliver(draft: Draft) -> None:
    entry = draft.root.entries.get("deliver")
    if entry is None:
        return
    if isinstance(entry.node, Mapping):
        draft.deliver = typed.check(DeliverOnly, entry.node, draft.problems, at=entry) or "print"
        return
    said = word(entry.node)
    known: dict[str | None, Literal["send", "print"]] = {"send": "send", "print": "print"}
    if said in known:
        draft.deliver = known[said]
    elif said is not None:
        draft.problems.add(unknown("word", said, _DELIVER), entry.node)
    else:
        draft.problems.add(typed.expected(" or ".join(_DELIVER), entry.node), entry.node)
