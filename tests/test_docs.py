"""The documentation keeps up with the command line, and its snippets of YAML can be loaded."""

import re

import click
import pytest

from router.cli.first_steps.samples import publish_command, publish_lines
from router.cli.main import cli
from router.config.models import ListConfig, PubSubConfig, StreamConfig
from router.errors import ConfigError
from router.ops.loading import load
from tests.support.commands import literals
from tests.support.process import ROOT

REFERENCE = (ROOT / "docs" / "cli.md").read_text()


def commands(group, prefix=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*prefix, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))


ALL = list(commands(cli))


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) for words, _ in ALL])
def test_every_command_and_option_is_in_the_reference(words, command):
    heading = f"## {' '.join(words)}"
    assert f"\n{heading}\n" in REFERENCE
    assert unsaid(command, REFERENCE, heading) == []


def unsaid(command, page, heading):
    """The options and variables of a command that stand neither in its section nor among the options of several commands.

    A group's options are those of its commands, in the sections between them.
    """
    sections = {part.partition("\n")[0]: part for part in re.split(r"^(?=## )", page, flags=re.MULTILINE)}
    own = sections[heading] + "".join(
        sections.get(f"{heading.rpartition(' ')[0]}{end}", "") for end in ("", " options")
    )
    shared = sections["## Options of several commands"]
    found = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names = [*parameter.opts, *([f"{parameter.envvar}"] if parameter.envvar else [])]
            found += [name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", own + shared)]
    return found


def test_an_option_in_the_section_of_another_command_does_not_count():
    command = click.Command(
        "one", params=[click.Option(["--all"]), click.Option(["--json"]), click.Option(["-x", "--ex"])]
    )
    page = "## Options of several commands\n`--json`\n## one\nit has `--ex` and `-x`\n## two\n`--all`\n"
    assert unsaid(command, page, "## one") == ["--all"]


def test_every_option_of_the_reference_exists():
    known = {option for _, command in ALL for each in command.params for option in each.opts}
    known |= {"--version", "-V", "--help", "-h"}
    mentioned = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", REFERENCE))
    assert {word for word in mentioned if word.startswith("--")} <= known


PAGES = [path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.DOTALL)):
        file, _, anchor = target.partition("#")
        if target.startswith("http"):
            continue
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_the_readme_shows_what_run_says():
    example = (ROOT / "README.md").read_text()
    loaded = load(ROOT / "config.example.yaml", environ={})
    by_client, by_us = publish_lines(loaded, "redis://127.0.0.1:6379", "config.example.yaml")
    assert by_client in example
    assert by_us.partition(" publish ")[2] in example


def test_the_readme_shows_what_check_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (shown,) = re.findall(r"^config\.yaml:.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    file = tmp_path / "config.yaml"
    file.write_text("version: 1\nsources:\n  web: {type: pubsub, chanels: [notification]}\n")
    with pytest.raises(ConfigError) as raised:
        load(file.relative_to(tmp_path), environ={})
    assert shown in str(raised.value).splitlines()


def test_messages_say_that_the_router_keeps_trying():
    said = list(literals())
    assert any("the router keeps trying" in text for text in said)
    assert [text for text in said if re.search(r"\b(try|trying|tries) on\b", text)] == []


def test_the_page_and_the_help_say_how_publish_reaches_each_kind_of_source():
    section = REFERENCE.partition("\n## publish\n")[2].partition("\n## ")[0]
    sources = [
        PubSubConfig(type="pubsub", channels=["a"]),
        StreamConfig(type="stream", streams=["a"]),
        ListConfig(type="list", keys=["a"]),
    ]
    command = dict(ALL)[("publish",)]
    for source in sources:
        word = publish_command(source, b"a", b"{}")[0].decode().upper()
        assert word in section
        assert word in (command.help or "")
