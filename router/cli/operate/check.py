"""`event-router check`; floor 7."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from router.cli.common import (
    config_option,
    env_file_option,
    find_config,
    json_option,
    print_json,
    print_problems,
    print_text,
    verbose_option,
    wrapped,
)
from router.cli.operate import durability_warnings, written_files
from router.config.redis_url import shown
from router.errors import ConfigError, Exit, Problem
from router.escaping import escape
from router.ops.terminal import colours
from router.wording import counted

if TYPE_CHECKING:
    from router.config.models import SourceConfig
    from router.ops.loading import Loaded

PROMISES = {
    "pubsub": "at most once: Redis does not store messages for absent subscribers; gaps are noticed, measured and reported",
    "stream": "at least once: an entry is acknowledged when all its deliveries are settled or stored",
    "list": "at least once: an item is removed when all its deliveries are settled or stored",
}
QUEUE_PROMISES = {
    "memory": "memory: waiting deliveries are lost if the process dies",
    "redis": "redis: waiting deliveries survive the process",
}


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path, readable=False))
@config_option
@env_file_option
@json_option
@verbose_option
@click.option("--strict", is_flag=True, help="Exit with 1 when there are warnings.")
def check(files: tuple[Path, ...], config: Path | None, env_file: Path | None, *, as_json: bool, strict: bool) -> int:
    """Check a configuration for faults without sending anything: syntax, schemas, templates, plugins.

    The command needs no secrets and no Redis. If the configured Redis answers at once, its settings for queues are
    checked too. Exit code 78 if there is an error, 1 if there are warnings and `--strict` is given.
    """
    reports = [_report(path, env_file) for path in files or (find_config(config),)]
    if as_json:
        print_json([_document(report) for report in reports])
    else:
        for report in reports:
            _print(report)
    severities = {problem.severity for report in reports for problem in report.problems}
    if "error" in severities:
        return Exit.CONFIG
    return Exit.FINDINGS if strict and "warning" in severities else Exit.OK


class Report(NamedTuple):
    """The findings about one file; `summary` is None if the file has errors."""

    path: Path
    problems: Sequence[Problem]
    summary: dict[str, Any] | None


def _report(path: Path, env_file: Path | None) -> Report:
    from router.ops.loading import Cases, load, read_case_file
    from router.ops.redaction import Redactor

    try:
        cases = read_case_file(path)
        config, tests = (path, Cases()) if cases is None else (cases.config, Cases(own=False, files=[cases]))
        loaded = load(config, environ=os.environ, env_file=env_file, placeholders=True, pipes=True, tests=tests)
    except ConfigError as error:
        return Report(path, error.problems, None)
    hidden = Redactor(loaded.secrets).value(summary(loaded))
    return Report(
        path, [*loaded.problems, *durability_warnings.problems(loaded), *written_files.problems(loaded)], hidden
    )


def summary(loaded: Loaded) -> dict[str, Any]:
    """Return a summary of a configuration, as data."""
    config = loaded.config
    return {
        "redis": _server(config.redis.url),
        "redis_from": str(loaded.redis_origin),
        "sources": {
            name: {
                "type": source.type,
                **_reads(source),
                "url": _server(source.url) if source.url else None,
                "promise": PROMISES[source.type],
            }
            for name, source in config.sources.items()
        },
        "schemas": [{"channels": entry.channels, "file": entry.file, "mode": entry.mode} for entry in loaded.schemas],
        "sinks": {name: _sink(loaded, name) for name in config.sinks},
        "routes": [
            {
                "id": route.id,
                "sources": route.sources,
                "channels": route.channels,
                "match": route.match is not None,
                "when": route.when is not None,
                "sinks": [target.sink for target in route.sinks],
                "final": route.final,
                "enabled": route.enabled,
            }
            for route in config.routes
        ],
        "unmatched": config.unmatched
        if isinstance(config.unmatched, str)
        else [each.sink for each in config.unmatched],
        "deliver": config.deliver if isinstance(config.deliver, str) else {"only": config.deliver.only},
        "written_to": str(loaded.write_base),
    }


def _reads(source: SourceConfig) -> dict[str, list[str] | str]:
    """Return the channels, streams or lists of a source, under their keys in the configuration."""
    if source.type == "pubsub":
        return {"channels": source.channels, "patterns": source.patterns}
    if source.type == "stream":
        return {"streams": source.streams, "group": source.group}
    return {"keys": source.keys}


def _server(url: str) -> str:
    return url if url == "embedded" else shown(url)


def _sink(loaded: Loaded, name: str) -> dict[str, Any]:
    kind = loaded.types[name]
    queue = loaded.config.sinks[name].host.queue
    where = (queue and queue.type) or kind.queue
    if loaded.config.deliver == "print":
        where = "memory"
    document: dict[str, Any] = {"type": kind.name, "origin": kind.origin, "queue": QUEUE_PROMISES[where]}
    file = written_files.written_file(loaded, name)
    if file is not None:
        document |= {"path": str(file), **_writing(written_files.judge(file))}
    socket = written_files.written_socket(loaded, name)
    if socket is not None:
        document |= {"socket": str(socket), **_writing(written_files.judge_socket(socket))}
    return document


def _writing(verdict: written_files.Verdict) -> dict[str, Any]:
    return {"writable": verdict.writable, "reason": verdict.reason or None}


def _document(report: Report) -> dict[str, Any]:
    return {
        "file": str(report.path),
        "ok": report.summary is not None,
        "problems": [
            {
                "severity": problem.severity,
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
                "path": problem.path,
                "message": problem.message,
                "excerpt": problem.excerpt,
            }
            for problem in report.problems
        ],
        "summary": report.summary,
    }


def _print(report: Report) -> None:
    print_problems(report.problems, err=False)
    counts = [
        counted(count, severity)
        for severity in ("error", "warning", "note")
        if (count := sum(problem.number(severity) for problem in report.problems))
    ]
    verdict = "ok" if report.summary else "can't work"
    styled = click.style(verdict, fg="green" if report.summary else "red", bold=True)
    click.echo(f"{escape(str(report.path))}: {', '.join([styled, *counts])}", color=colours(os.environ, 1))
    if report.summary:
        for title, lines in _lines(report.summary):
            for index, line in enumerate(lines):
                print_text(wrapped(f"  {title if index == 0 else '':<9} {line}", indent=14))


def _lines(summary: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [
        ("redis", [_redis_line(summary["redis"], summary["redis_from"])]),
        ("sources", [line for name, source in summary["sources"].items() for line in _source_lines(name, source)]),
        ("schemas", [f"{_list(each['channels'])}: {each['file']} ({each['mode']})" for each in summary["schemas"]]),
        ("routes", [_route_line(route) for route in summary["routes"]]),
        ("unmatched", [_list(summary["unmatched"])]),
        ("sinks", [_sink_line(name, sink) for name, sink in summary["sinks"].items()]),
        ("deliver", [_deliver_line(summary["deliver"])]),
    ]


def _redis_line(url: str, origin: str) -> str:
    return url if url == origin else f"{url} (from {origin})"


def _source_lines(name: str, source: dict[str, Any]) -> list[str]:
    place = f" at {source['url']}" if source["url"] else ""
    names = [name for key in ("channels", "patterns", "streams", "keys") for name in source.get(key, [])]
    return [f"{name}: {source['type']}{place}, {_list(names)}", f"  {source['promise']}"]


def _route_line(route: dict[str, Any]) -> str:
    where = [f"{_list(route[key])}" for key in ("sources", "channels") if route[key]]
    conditions = " and ".join(key for key in ("match", "when") if route[key])
    flags = [text for text, shown in (("final", route["final"]), ("disabled", not route["enabled"])) if shown]
    asked = f"{' '.join(where) or 'every event'}{conditions and f' with {conditions}'}"
    return f"{route['id']}: {asked} -> {_list(route['sinks'])}{_list(flags, ' ({})')}"


def _sink_line(name: str, sink: dict[str, Any]) -> str:
    line = f"{name}: {sink['type']} ({sink['origin']})"
    where = sink.get("path") or ("socket" in sink and f"to the socket {sink['socket']}")
    if where:
        line += f", writes {where}" + ("" if sink["writable"] else f", but {sink['reason']}")
    return line


def _deliver_line(deliver: str | dict[str, Any]) -> str:
    if deliver == "print":
        return "print: shows who would get what, sends nothing, writes nothing to Redis, stores no dead letter"
    return "send" if isinstance(deliver, str) else f"send to {_list(deliver['only'])}, print the others"


def _list(words: Sequence[str] | str, form: str = "{}") -> str:
    text = words if isinstance(words, str) else ", ".join(words)
    return form.format(text) if text else ""
