"""Loading and checking a configuration; floor 4.

The steps are: read, include, expand, load plugins, check each section. Every step continues after a fault, so that all
faults are reported together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from router.config.models import (
    AdminConfig,
    HostKeys,
    PluginsConfig,
    RedisConfig,
    RouterConfig,
    SourceConfig,
)
from router.core.conditions import Condition
from router.core.lookups.definitions import LookupDefinition
from router.core.rendering import OptionsTemplate, TemplateEnvironment
from router.core.routing import Routing, SchemaRule
from router.errors import ConfigError, Problem
from router.ops.loading import case_files
from router.ops.loading.case_files import Cases
from router.ops.loading.checking import compiling, conditions
from router.ops.loading.checking.lint import check_file_modes, look_around
from router.ops.loading.checking.redis_loops import look_for_loops
from router.ops.loading.checking.sinks import likely_secrets, secrets_of, url_secrets, used_types
from router.ops.loading.draft import Draft
from router.ops.loading.reading import expand, includes, yaml_nodes
from router.ops.loading.reading.nodes import (
    Mapping,
    Mark,
    child_path,
    find,
    name_paths,
    scalars,
    walk,
    word,
    words,
)
from router.ops.loading.reading.placeholders import URL, WORD, Settler
from router.ops.loading.reading.problems import Problems
from router.ops.loading.reading.redis_origin import RedisOrigin, imply, origin
from router.ops.loading.sections import check_sections
from router.ops.redaction import SHORT, Redactor
from router.plugin_contracts import SinkType
from router.plugin_loading.plugin_manager import Plugins, load_plugins

if TYPE_CHECKING:
    from router.config.cases import Case
    from router.core.rendering.expressions import Expiry, Expression


class Loaded(msgspec.Struct, frozen=True):
    """A valid configuration, and everything that was read for it."""

    path: Path
    """The file, absolute."""
    env_file: Path | None
    """The file with more variables, absolute."""
    config: RouterConfig
    plugins: Plugins
    types: MappingType[str, SinkType]
    """The type of each configured sink, by the sink's name."""
    schemas: tuple[SchemaRule, ...]
    """The schemas in the order of the configuration. For a channel, the first schema that matches applies."""
    templates: MappingType[tuple[str, str | None], OptionsTemplate]
    """The compiled options by (sink, route id). The route id is None for the sink's own options."""
    order_by: MappingType[str, Expression]
    """The compiled `order_by` by sink. Sinks without the key are left out."""
    only_if: MappingType[tuple[str, str | None], Expression]
    """The compiled `only_if` by (sink, route id). The route id is None for the sink's own `only_if`."""
    expires: MappingType[str, Expiry]
    """The compiled `expires` by route id. Routes without the key are left out."""
    conditions: MappingType[str, Condition]
    """The compiled `match` and `when` by route id. Routes without conditions are left out."""
    lookups: MappingType[str, LookupDefinition]
    """The lookups by name, with compiled keys."""
    environment: TemplateEnvironment
    problems: tuple[Problem, ...]
    """Warnings and notes."""
    files: frozenset[Path]
    """Every file that was read, including the code of plugins, for `run --watch`."""
    folders: frozenset[Path]
    """The folders of plugins and of `include`, where a new file may belong to the configuration."""
    secrets: frozenset[str]
    """The secrets. They must never be shown."""
    write_base: Path
    """The folder from which the relative paths of written files start."""

    redis_origin: RedisOrigin
    """The origin of `redis.url`."""
    unknown: MappingType[str, Problem]
    """The reasons why values are unknown, by the paths of their placeholders."""
    places: MappingType[str, Mark]
    """The place of each section and of each key in a section, by path: `redis`, `redis.url`, `sources.orders`.

    If tests were loaded, `places` contains the place of every node, such as `routes[0].match.severity`.
    """
    cases: tuple[Case, ...]
    """The tests that `load` was asked to read."""

    def placed(self, message: str, section: str, key: str = "") -> Problem:
        """Return a problem, without secrets, at the place of a key, or of its section if the file lacks the key."""
        path = child_path(section, key) if key else section
        mark = self.places.get(path) or self.places.get(section)
        file, line, column = (mark.file.name, mark.line, mark.column) if mark else (str(self.path), None, None)
        return Problem(Redactor(self.secrets).text(message), file, line, column, path)

    def require(self, *paths: str) -> None:
        """Raise `ConfigError` if values at or below these paths are placeholders, with one problem for each value."""
        missing = [problem for path, problem in self.unknown.items() if any(_is_below(path, above) for above in paths)]
        if missing:
            raise ConfigError(missing)

    def routing(self) -> Routing:
        """Return the routes and schemas, compiled."""
        config = self.config
        unmatched = config.unmatched if isinstance(config.unmatched, list) else []
        fallbacks = [name for sink in config.sinks.values() for name in sink.host.fallback]
        return Routing(config.routes, self.schemas, unmatched, fallbacks, conditions=self.conditions)

    def has_keys(self, sink: str) -> bool:
        """Return whether the options of a sink, or a route's overrides, contain a key that orders deliveries."""
        return any(template.has_keys for (owner, _), template in self.templates.items() if owner == sink)

    def overriding(self, sink: str) -> frozenset[str]:
        """Return the ids of the routes that override options of a sink."""
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
    tests: Cases | None = None,
) -> Loaded:
    """Load a configuration and every file that the configuration names. Raises `ConfigError` with every problem found.

    - `environ`: the environment variables. They take precedence over the variables of `env_file`.
    - `placeholders`: if True, an unset variable in a secret or URL is reported as a note, not as an error.
    - `deliver`: `send` or `print`, which replaces the key `deliver` of the file.
    - `pipes`: if True, `path` and `env_file` may be pipes, or `-` for standard input. A pipe can be read only once.
    - `tests`: the tests to load. If None, the section `tests` is ignored, even if it has faults.
    """
    draft = check(path, environ=environ, env_file=env_file, placeholders=placeholders, pipes=pipes, tests=tests)
    environment = TemplateEnvironment(timezone=draft.timezone, lookups=draft.entries("lookups"))
    lookups, with_lookups = compiling.lookups(draft, environment.with_lookups), environment.with_lookups
    templates, only_if = compiling.compiled(draft, with_lookups), compiling.only_if(draft, with_lookups)
    draft.lookups_used = compiling.lookups_used(lookups, templates, only_if)
    draft.conditions = conditions.compiled(draft, environment)
    order_by, expires = compiling.order_by(draft, environment), compiling.expires(draft, environment)
    files = _finished_checks(draft, with_lookups)
    return Loaded(
        path=path.absolute(),
        env_file=env_file and env_file.absolute(),
        config=_assembled(draft, deliver),
        plugins=draft.plugins,
        types={name: sink.type for name, sink in draft.sinks.items()},
        schemas=tuple(entry for _, entry, _ in draft.schemas),
        templates=templates,
        order_by=order_by,
        only_if=only_if,
        expires=expires,
        conditions=draft.conditions,
        lookups=lookups,
        environment=environment,
        secrets=frozenset(_secrets(draft)),
        problems=draft.problems.all(),
        files=files,
        folders=frozenset(draft.folders),
        redis_origin=origin(draft.root),
        unknown=draft.unknown,
        places=_places(draft.root) if tests is None else _every_place(draft.root),
        cases=tuple(draft.cases),
        write_base=_write_base(draft),
    )


def _finished_checks(draft: Draft, environment: TemplateEnvironment) -> frozenset[Path]:
    """Make the last checks, add warnings and notes, and return every file that was read.

    Raises `ConfigError` if an error was found. The attribute `files` of the error lists the files too.

    With this list, `run --watch` notices that a faulty file was corrected. The search for loops is the last check,
    because it needs the environment of the templates.
    """
    look_for_loops(draft, environment)
    files = frozenset(Path(os.path.normpath(file)) for file in draft.files | draft.reader.files)
    try:
        draft.problems.check()
    except ConfigError as error:
        error.files = files
        raise
    look_around(draft, environment)
    environment.forget_trees()
    return files


def _write_base(draft: Draft) -> Path:
    """Return the base of relative paths of written files: systemd's log folder, else the configuration's folder."""
    # systemd separates several folders by colons.
    logs = draft.environ.get("LOGS_DIRECTORY", "").split(":", maxsplit=1)[0]
    return Path(logs).absolute() if logs else draft.root.mark.file.path.parent


def check(
    path: Path,
    *,
    environ: MappingType[str, str],
    env_file: Path | None = None,
    placeholders: bool = False,
    pipes: bool = False,
    tests: Cases | None = None,
    every_type: bool = False,
) -> Draft:
    """Read a configuration and check every section. Unlike `load`, compile no templates and no conditions.

    If `every_type` is True, built-in plugins are imported even if the configuration does not use them. Raises
    `ConfigError` only if the file can't be read. All other problems are in the returned draft.
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
    if tests is None or not tests.own:
        root.entries.pop("tests", None)
    name_paths(root)
    expander.tree(root)
    folders = includes.folders(root)
    files.update(includes.merge(root, expander, problems, tests=tests is not None and tests.own), expander.files)
    case_files.merge(root, tests, expander)
    implied = imply(root, environ)
    if implied is not None:
        expander.tree(implied)
    name_paths(root)
    problems.concealed.root = root
    settler = Settler(problems, placeholders=placeholders)
    check_file_modes(files, problems, Mark(root.mark.file, 1, 1))
    drop_ins = _plugin_folders(root, problems, settler)
    disabled = {name for _, name in words(find(root, "plugins", "disable"))}
    used = None if every_type else used_types(root)
    plugins = load_plugins(drop_ins, disable=lambda plugin: plugin.name in disabled, used=used)
    files |= plugins.code
    draft = Draft(root, problems, plugins, environ, files, folders | set(drop_ins), expander.secrets, settler.unknown)
    _settle(draft, settler)
    for scalar in scalars(root):
        for password in url_secrets(str(scalar.value)):
            problems.concealed.add(password)
    check_sections(draft)
    return draft


def read_admin(
    path: Path, *, environ: MappingType[str, str], env_file: Path | None = None
) -> tuple[AdminConfig, tuple[Problem, ...]]:
    """Return the section `admin` of a configuration, and the errors of the file.

    Errors in other sections do not matter. If the section `admin` can't be read, the default is returned. Templates and
    conditions are not checked.
    """
    try:
        draft = check(path, environ=environ, env_file=env_file, placeholders=True, pipes=True)
    except ConfigError as error:
        return AdminConfig(), tuple(error.problems)
    return draft.admin, tuple(problem for problem in draft.problems.all() if problem.severity == "error")


def _plugin_folders(root: Mapping, problems: Problems, settler: Settler) -> list[Path]:
    """Return the folders of drop-in plugins: `plugins/` beside the configuration, if it exists, and `plugins.paths`."""
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
    """Replace each unset `${…}` by a placeholder, or report it, depending on the type of its field."""
    types = draft.plugins.sinks
    for section, entry in draft.root.entries.items():
        node = entry.node
        if section == "redis":
            settler.settle(node, RedisConfig)
        elif section == "admin":
            settler.settle(node, AdminConfig)
        elif section == "sources":
            settler.settle(node, dict[str, SourceConfig])
        elif section == "lookups" and isinstance(node, Mapping):
            from router.ops.loading.lookup_entries import settle_lookups

            settle_lookups(node, draft.plugins, settler)
        elif section in {"sinks", "defaults"} and isinstance(node, Mapping):
            for name, sink in node.entries.items():
                kind = types.get((name if section == "defaults" else word(find(sink.node, "type"))) or "")
                settler.settle(sink.node, HostKeys | kind.options if kind else HostKeys)
        else:
            settler.settle(node, None)


def _places(root: Mapping) -> dict[str, Mark]:
    """Return the place of each section, and of each key in a section that is a mapping."""
    found = {}
    for name, entry in root.entries.items():
        found[name] = entry.mark
        if isinstance(entry.node, Mapping):
            found.update({below.node.path: below.mark for below in entry.node.entries.values()})
    return found


def _every_place(root: Mapping) -> dict[str, Mark]:
    """Return the place of every node: the place of its key, or its beginning if it has no key."""
    found = {below.path: below.mark for below in walk(root)}
    keys = (entry for below in walk(root) if isinstance(below, Mapping) for entry in below.entries.values())
    return {**found, **{entry.node.path: entry.mark for entry in keys}}


def _secrets(draft: Draft) -> set[str]:
    """Return the secrets, except placeholders and short defaults."""
    found = set(draft.secrets) | secrets_of(draft.admin)
    for sink in draft.sinks.values():
        if sink.config is not None:
            found |= secrets_of(sink.config.options) | secrets_of(sink.config.host)
    for keys in (*(sink.keys for sink in draft.sinks.values()), *draft.places.values()):
        found |= likely_secrets(keys)
    for lookup in draft.lookups.values():
        from router.ops.loading.lookup_entries import lookup_secrets

        if lookup.config is not None:
            found |= lookup_secrets(lookup.config)
    harmless = {WORD, URL}
    for scalar in scalars(draft.root):
        if isinstance(scalar.value, str):
            found |= url_secrets(scalar.value)
            # A short default, such as `guest`, is readable in the file anyway. If this word were hidden everywhere,
            # other messages would become unreadable.
            if scalar.default and len(scalar.value) < SHORT:
                harmless.add(scalar.value)
            elif scalar.value in found and len(scalar.value) < SHORT:
                draft.problems.warn(
                    f"a secret of fewer than {SHORT} characters is hidden in the output only if it is a whole word there; use a longer secret",
                    scalar,
                )
    return {secret for secret in found if secret.strip()} - harmless


def _assembled(draft: Draft, deliver: str | None) -> RouterConfig:
    """Return the configuration made of the checked sections. `deliver` replaces the key `deliver` of the file."""
    sinks: dict[str, Any] = {name: sink.config for name, sink in draft.sinks.items()}
    return RouterConfig.model_construct(
        version=1,
        redis=draft.redis,
        plugins=draft.plugin_paths,
        allow_commands=draft.allow_commands,
        sources=draft.sources,
        schemas=[config for config, _, _ in draft.schemas],
        lookups={name: lookup.config for name, lookup in draft.lookups.items()},
        sinks=sinks,
        routes=draft.routes,
        unmatched=draft.unmatched,
        deliver=draft.deliver if deliver is None else "print" if deliver == "print" else "send",
        timezone=draft.timezone,
        dead_letters=draft.dead_letters,
        admin=draft.admin,
        shutdown=draft.shutdown,
    )
