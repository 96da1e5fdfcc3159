"""The way from a file to a configuration that can work; floor 4.

Read, include, expand, load plugins, then check section by section. Every step goes on after a fault, so that all of them
are reported together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from router.config.models import (
    SOURCES,
    AdminConfig,
    DeliverOnly,
    HostKeys,
    Model,
    PluginsConfig,
    RedisConfig,
    RouterConfig,
    SchemaConfig,
    SourceConfig,
)
from router.config.scalars import OFF, Zone
from router.core.rendering import OptionsTemplate, TemplateEnvironment
from router.core.rendering.expressions import Expiry, Expression
from router.errors import ConfigError, Problem
from router.ops.loading.checking import compiling, references, schema_files
from router.ops.loading.checking.file_modes import check_file_modes
from router.ops.loading.checking.lint import look_around
from router.ops.loading.checking.routes import RouteChecker
from router.ops.loading.checking.schema_files import SchemaEntry
from router.ops.loading.checking.sinks import check_defaults, check_sinks, entries_with_type, secrets_of, url_secrets
from router.ops.loading.draft import Draft
from router.ops.loading.reading import expand, includes, typed, yaml_nodes
from router.ops.loading.reading.nodes import (
    Mapping,
    Mark,
    Node,
    Scalar,
    child_path,
    find,
    name_paths,
    scalars,
    word,
    words,
)
from router.ops.loading.reading.placeholders import URL, WORD, Settler
from router.ops.loading.reading.problems import Problems, did_you_mean, unknown
from router.ops.loading.reading.redis_origin import RedisOrigin, imply, origin
from router.ops.redaction import SHORT, Redactor
from router.plugin_contracts import SinkType
from router.plugin_manager import Plugins, load_plugins

SECTIONS = (
    "version",
    "include",
    "redis",
    "plugins",
    "sources",
    "schemas",
    "defaults",
    "sinks",
    "routes",
    "unmatched",
    "deliver",
    "timezone",
    "dead_letters",
    "admin",
    "shutdown",
)
"""The keys of a configuration."""

_OPTIONAL = ("redis", "plugins", "schemas", "defaults", "dead_letters", "admin", "shutdown")
_DELIVER = ("send", "print", "{only: [globs], others: print}")

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can work, and everything that was read for it."""

    path: Path
    """The file, absolute."""
    env_file: Path | None
    """The file with more variables, absolute."""
    config: RouterConfig
    plugins: Plugins
    types: MappingType[str, SinkType]
    """The type of each configured sink, by the sink's name."""
    schemas: tuple[SchemaEntry, ...]
    """In the order of the configuration: the first that matches a channel counts."""
    templates: MappingType[tuple[str, str | None], OptionsTemplate]
    """The compiled options by (sink, route id); route None for the sink's own, as `unmatched` uses them."""
    order_by: MappingType[str, Expression]
    """The compiled `order_by` by sink, of those that have one."""
    expires: MappingType[str, Expiry]
    """The compiled `expires` by route id, of those that have one."""
    environment: TemplateEnvironment
    problems: tuple[Problem, ...]
    """Warnings and notes."""
    files: frozenset[Path]
    """Every file that was read, for whoever watches them, and the folders that plugins are."""
    folders: frozenset[Path]
    """Folders in which a new file may belong to the configuration: those of plugins and of `include`."""
    secrets: frozenset[str]
    """What must never be shown."""
    write_base: Path
    """The folder that relative paths to be written are in."""

    redis_origin: RedisOrigin
    """Where `redis.url` comes from."""
    unknown: MappingType[str, Problem]
    """By the path of a value in whose place a placeholder stands: why the value is not known."""
    places: MappingType[str, Mark]
    """Where each section stands, and each key in it, by its path: `redis`, `redis.url`, `sources.orders`."""

    def placed(self, message: str, section: str, key: str = "") -> Problem:
        """Return a problem without secrets, at the place of a section or of a key in it, as far as it is written."""
        path = child_path(section, key) if key else section
        mark = self.places.get(path) or self.places.get(section)
        file, line, column = (mark.file.name, mark.line, mark.column) if mark else (str(self.path), None, None)
        return Problem(Redactor(self.secrets).text(message), file, line, column, path)

    def require(self, *paths: str) -> None:
        """Raise `ConfigError` for each value at or below these paths in whose place a placeholder stands."""
        missing = [why for path, why in self.unknown.items() if any(_is_below(path, above) for above in paths)]
        if missing:
            raise ConfigError(missing)

    def overriding(self, sink: str) -> frozenset[str]:
        """The routes that replace options of a sink."""
        routes = self.config.routes
        return frozenset(r.id for r in routes for each in r.sinks if each.sink == sink and each.options is not None)


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith((f"{above}.", f"{above}["))


def load(
    path: Path,
    *,
    environ: MappingType[str, str],
    env_file: Path | None = None,
    placeholders: bool = False,
    deliver: str | None = None,
    pipes: bool = False,
) -> Loaded:
    """Load a configuration and everything it names.

    `environ` are the environment variables; those of `env_file` stand behind them. With `placeholders` an unset
    variable in a secret or a URL is a note and not an error. `deliver` (`send` or `print`) overrides the file's. With
    `pipes` the configuration and the env file may be pipes, or `-` for standard input: for commands that read them once.
    Raises `ConfigError` with every problem found.
    """
    draft = check(path, environ=environ, env_file=env_file, placeholders=placeholders, pipes=pipes)
    environment = TemplateEnvironment(timezone=draft.timezone)
    templates = compiling.compiled(draft, environment)
    order_by, expires = references.order_by(draft, environment), references.expires(draft, environment)
    files = frozenset(Path(os.path.normpath(file)) for file in draft.files | draft.reader.files)
    try:
        draft.problems.check()
    except ConfigError as error:
        error.files = files
        raise
    look_around(draft)
    if deliver is not None:
        draft.deliver = "print" if deliver == "print" else "send"
    absolute = path.absolute()
    logs = draft.environ.get("LOGS_DIRECTORY", "").split(":", maxsplit=1)[0]  # systemd lists several with colons
    secrets = frozenset(_secrets(draft))
    return Loaded(
        path=absolute,
        env_file=env_file and env_file.absolute(),
        config=_assembled(draft),
        plugins=draft.plugins,
        types={name: sink.type for name, sink in draft.sinks.items()},
        schemas=tuple(entry for _, entry, _ in draft.schemas),
        templates=templates,
        order_by=order_by,
        expires=expires,
        environment=environment,
        problems=draft.problems.all(),
        files=files,
        folders=frozenset(draft.folders),
        secrets=secrets,
        redis_origin=origin(draft.root),
        unknown=draft.unknown,
        places=_places(draft.root),
        write_base=Path(logs).absolute() if logs else absolute.parent,
    )


def check(
    path: Path,
    *,
    environ: MappingType[str, str],
    env_file: Path | None = None,
    placeholders: bool = False,
    pipes: bool = False,
) -> Draft:
    """Read a configuration and check every section, as `load` does, short of compiling templates.

    Raises `ConfigError` only when nothing of the file can be read; else the draft has the problems.
    """
    problems = Problems()
    absolute = path.absolute()
    files = {absolute}
    if env_file is not None:
        environ = {**expand.env_file(env_file, problems, pipes=pipes), **environ}
        files.add(env_file.absolute())
    root = yaml_nodes.read(absolute, str(path), problems, pipes=pipes)
    if root is None:
        raise ConfigError(problems.all())
    expander = expand.Expander(environ, problems)
    name_paths(root)
    expander.tree(root)
    folders = includes.folders(root)
    files.update(includes.merge(root, expander, problems), expander.files)
    implied = imply(root, environ)
    if implied is not None:
        expander.tree(implied)
    name_paths(root)
    settler = Settler(problems, placeholders=placeholders)
    check_file_modes(files, problems, Mark(root.mark.file, 1, 1))
    drop_ins = _plugin_folders(root, problems, settler)
    plugins = load_plugins(drop_ins)
    files |= plugins.code
    draft = Draft(root, problems, plugins, environ, files, folders | set(drop_ins), expander.secrets, settler.unknown)
    _settle(draft, settler)
    for scalar in scalars(root):
        for password in url_secrets(str(scalar.value)):
            problems.concealed.add(password)
    _sections(draft)
    return draft


def _plugin_folders(root: Mapping, problems: Problems, settler: Settler) -> list[Path]:
    """The folders that drop-in plugins stand in: `plugins/` beside the configuration if there is one, and `plugins.paths`."""
    beside = root.mark.file.folder / "plugins"
    folders = [beside] if beside.is_dir() else []
    node = root.get("plugins")
    if isinstance(node, Mapping):
        settler.settle(node, PluginsConfig)
    for item, named in words(find(node, "paths")):
        folder = item.mark.file.folder / named
        if named and folder.is_dir():
            folders.append(folder)
        elif named:
            problems.add(f"there is no folder {folder}", item)
    return folders


def _settle(draft: Draft, settler: Settler) -> None:
    """Decide about what `${…}` could not give, by the type of the field it stands in."""
    types = draft.plugins.sinks
    for section, entry in draft.root.entries.items():
        node = entry.node
        if section == "redis":
            settler.settle(node, RedisConfig, server=True)
        elif section == "admin":
            settler.settle(node, AdminConfig)
        elif section == "sources":
            settler.settle(node, dict[str, SourceConfig], server=True)
        elif section in {"sinks", "defaults"} and isinstance(node, Mapping):
            for name, sink in node.entries.items():
                kind = types.get((name if section == "defaults" else word(find(sink.node, "type"))) or "")
                settler.settle(sink.node, HostKeys | kind.options if kind else HostKeys)
        else:
            settler.settle(node, None)


def _sections(draft: Draft) -> None:
    root, problems = draft.root, draft.problems
    typed.unknown_keys(root, SECTIONS, problems)
    for key in _OPTIONAL:  # a section whose lines are all commented out
        found = root.get(key)
        if isinstance(found, Scalar) and found.value is None and found.cut is None:
            del root.entries[key]
    _version(root, problems)
    draft.redis = _simple(draft, "redis", draft.redis)
    draft.plugin_paths = _simple(draft, "plugins", draft.plugin_paths)
    draft.admin = _admin(draft)
    draft.shutdown = _simple(draft, "shutdown", draft.shutdown)
    _timezone(draft)
    _sources(draft)
    _schemas(draft)
    _sinks(draft)
    _routes(draft)
    _deliver(draft)
    _dead_letters(draft)


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
        value = yaml_nodes.resolve(value)
    if isinstance(value, bool) or not isinstance(value, int):
        problems.add(typed.expected("the number 1", node), node)
    elif value != 1:
        problems.add(f"this event-router reads version 1, not {value}", node)


def _simple(draft: Draft, key: str, default: M) -> M:
    """A section that is a plain model; the default where it is left out or wrong."""
    entry = draft.root.entries.get(key)
    node = typed.mapping(entry.node if entry else None, draft.problems)
    found = typed.check(type(default), node, draft.problems, at=entry) if node is not None else None
    return default if found is None else found


def _admin(draft: Draft) -> AdminConfig:
    """The section `admin`: a mapping, or the word `off`."""
    node = draft.root.get("admin")
    said = word(node)
    if said == OFF:
        return AdminConfig(listen=OFF)
    if said is not None:
        draft.problems.add(unknown("word", said, [OFF, "{listen: HOST:PORT}"]), node)
        return draft.admin
    return _simple(draft, "admin", draft.admin)


def _dead_letters(draft: Draft) -> None:
    """The section `dead_letters`; whom it notifies must be there, and once is enough."""
    draft.dead_letters = _simple(draft, "dead_letters", draft.dead_letters)
    references.check_notified(draft)


class _Zoned(Model):
    timezone: Zone


def _timezone(draft: Draft) -> None:
    entry = draft.root.entries.get("timezone")
    if entry is not None:
        zoned = typed.check(_Zoned, Mapping(entry.mark, {"timezone": entry}), draft.problems)
        if zoned is not None:
            draft.timezone = zoned.timezone


def _sources(draft: Draft) -> None:
    problems = draft.problems
    node = typed.mapping(_required(draft, "sources", "where events come from, by name"), problems)
    if node is None:
        return
    for name, entry, keys, kind in entries_with_type(node, "source", "what kind of source it is", problems):
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


def _sinks(draft: Draft) -> None:
    root, problems = draft.root, draft.problems
    defaults = typed.mapping(root.get("defaults"), problems)
    if defaults is not None:
        check_defaults(defaults, draft.plugins, problems, draft.reader)
    node = typed.mapping(_required(draft, "sinks", "where deliveries go, by name"), problems)
    if node is not None:
        draft.sinks = check_sinks(node, defaults, draft.plugins, problems, draft.reader)
        references.check_fallbacks(draft)


def _routes(draft: Draft) -> None:
    names = (list(draft.entries("sources")), list(draft.entries("sinks")))
    checker = RouteChecker(*names, draft.sinks, draft.problems, draft.reader)
    node = typed.sequence(_required(draft, "routes", "who gets what, a list"), draft.problems)
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


def _places(root: Mapping) -> dict[str, Mark]:
    """The places of the sections, and of the keys in those that are mappings."""
    found = {}
    for name, entry in root.entries.items():
        found[name] = entry.mark
        if isinstance(entry.node, Mapping):
            found.update({below.node.path: below.mark for below in entry.node.entries.values()})
    return found


def _secrets(draft: Draft) -> set[str]:
    """What must never be shown, placeholders and short defaults excepted."""
    found = set(draft.secrets) | secrets_of(draft.admin)
    for sink in draft.sinks.values():
        if sink.config is not None:
            found |= secrets_of(sink.config.options) | secrets_of(sink.config.host)
    harmless = {WORD, URL}
    for scalar in scalars(draft.root):
        if isinstance(scalar.value, str):
            found |= url_secrets(scalar.value)
            # Such a default stands in the file for all to read, and is a common word more often than not.
            if scalar.default and len(scalar.value) < SHORT:
                harmless.add(scalar.value)
            elif scalar.value in found and len(scalar.value) < SHORT:
                draft.problems.warn(
                    f"a secret of fewer than {SHORT} characters is hidden only where it stands as a word of its own",
                    scalar,
                )
    return {secret for secret in found if secret.strip()} - harmless


def _assembled(draft: Draft) -> RouterConfig:
    sinks: dict[str, Any] = {name: sink.config for name, sink in draft.sinks.items()}
    return RouterConfig.model_construct(
        version=1,
        redis=draft.redis,
        plugins=draft.plugin_paths,
        sources=draft.sources,
        schemas=[config for config, _, _ in draft.schemas],
        sinks=sinks,
        routes=draft.routes,
        unmatched=draft.unmatched,
        deliver=draft.deliver,
        timezone=draft.timezone,
        dead_letters=draft.dead_letters,
        admin=draft.admin,
        shutdown=draft.shutdown,
    )
