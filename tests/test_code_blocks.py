"""Every block of code of README.md and of the plugin guide is executed as it is printed, and every YAML of a page loads.

The commands in blocks of `sh` are executed by `test_printed_commands.py`; the output shown in blocks of `text` and `json`
belongs to the tests of what prints it.
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest
import yaml

from router.config.models import RouterConfig
from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.process import ROOT, environment, run
from tests.support.waiting import PATIENCE

PAGES = ("README.md", "docs/plugins.md")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    page: str
    language: str
    file: str
    """The last file in backquotes before it, in the same section."""
    text: str


def blocks(page):
    text = (ROOT / page).read_text()
    for found in FENCE.finditer(text):
        section = text[: found.start()].rpartition("\n## ")[2]
        named = re.findall(r"`((?:plugins/|test_)[\w/]+\.py)`", FENCE.sub("", section))
        yield Block(page, found["language"], named[-1] if named else "plugins/unnamed.py", found["text"])


ALL = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in ALL if block.language == "python"]
TESTS = [block for block in PYTHON if block.file.startswith("test_")]
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))
OF_OTHERS = {"scrape_configs", "groups"}
"""Sections of Prometheus's own files."""
YAML = [
    (page, block.text)
    for page in ("README.md", *DOCS)
    for block in blocks(page)
    if block.language == "yaml" and not OF_OTHERS & set(yaml.safe_load(block.text) or OF_OTHERS)
]
WEBHOOK = {"type": "webhook", "url": "https://hooks.example.org/in"}
SECTIONS = set(RouterConfig.model_fields) | {"include"}

BASE = """
version: 1
sources:
  web-app: {type: pubsub, channels: [notification, "orders.*"]}
sinks:
  audit: {type: log, path: audit.jsonl}
  ops-mail: {type: email, host: smtp.example.org, from: a@example.org, to: b@example.org, subject: News, text: "hi"}
  ops-chat: {type: chat, service: slack, url: "https://hooks.slack.com/services/T/B/x", text: "hi"}
  user-mail: {type: email, to: "{{ payload.mail }}", text: "hi"}
  user-chat: {type: chat, service: telegram, token: "${TOKEN}", to: "{{ payload.chat }}", text: "hi"}
defaults:
  email: {host: smtp.example.org, from: a@example.org, subject: News}
routes:
  - {id: all, sinks: [audit]}
"""


def write_plugins(folder, page):
    """Write the plugins of a page where it says, but for those that are tests; returns the files."""
    files = [folder / block.file for block in PYTHON if block.page == page and block not in TESTS]
    assert len(set(files)) == len(files), "each block has a file of its own"
    for file, text in zip(files, (b.text for b in PYTHON if b.page == page and b not in TESTS), strict=True):
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o644)
    return files


def test_every_block_is_of_a_kind_that_is_held():
    assert {block.language for block in ALL} == {"python", "yaml", "sh", "text", "json", "toml"}
    assert [sum(block.page == page for block in PYTHON) for page in PAGES] == [1, 16]
    assert [block.file for block in TESTS] == ["test_banner.py", "test_rules.py", "test_route.py"]


def test_most_yaml_is_found():
    assert len(YAML) >= 18
    assert {page for page, _ in YAML} >= {"README.md", "docs/plugins.md", "docs/configuration.md", "docs/delivery.md"}


@pytest.mark.parametrize(("page", "snippet"), YAML, ids=lambda value: value.split("\n")[0])
def test_every_block_of_yaml_passes_check(tmp_path, page, snippet):
    """A part of a configuration is checked with what it leaves out, options of a sink as those of `ops-mail`.

    On the page of the webhook they are options of a webhook.
    """
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    for name in (
        "mail/ops.txt",
        "mail/order.html",
        "schemas/order.schema.json",
        "schemas/event.schema.json",
        "more-plugins/none",
    ):
        (tmp_path / name).parent.mkdir(mode=0o755, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "users.csv").write_text("user_id,email\n42,jane@example.org\n")
    write_plugins(tmp_path, page)
    base, written = yaml.safe_load(BASE), yaml.safe_load(snippet)
    if not SECTIONS & set(written):
        own = WEBHOOK if page == "docs/sinks/webhook.md" else base["sinks"]["ops-mail"]
        written = {"sinks": {"ops-mail": own | written}}
    document = base | written | {"sinks": base["sinks"] | written.get("sinks", {})}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    done = run("check", "--json", cwd=tmp_path)
    (report,) = json.loads(done.out)
    assert done.code == 0, [each for each in report["problems"] if each["severity"] == "error"]
    assert set(written.get("sinks", {})) <= set(report["summary"]["sinks"])
    if "routes" in written:
        assert [route["id"] for route in report["summary"]["routes"]] == [route["id"] for route in written["routes"]]


async def test_the_plugin_of_the_readme_delivers(redis_server, tmp_path):
    write_plugins(tmp_path, "README.md")
    (written,) = (yaml.safe_load(text) for page, text in YAML if page == "README.md" and "pager" in text)
    sources = {"web-app": {"type": "pubsub", "channels": ["notification"]}}
    async with stand_in() as pager:
        pager.default = Reply(body=b"")
        written["sinks"]["duty"] |= {"url": pager.url, "allow_private": True}
        async with daemon(redis_server, tmp_path, {"sources": sources, **written}) as router:
            router.publish("notification", {"user_id": 42, "message": "wake up"})
            await router.until(lambda: pager.requests)
            await router.stop()
    assert [seen.json for seen in pager.requests] == [{"number": "42", "text": "wake up"}]
    assert router.closing()["delivered"] == 1


async def test_the_plugins_of_the_guide_deliver(redis_server, tmp_path):
    write_plugins(tmp_path, "docs/plugins.md")
    message = "{{ payload.message }}"
    sinks = {
        "loud": {"type": "shout", "text": message},
        "far": {"type": "megaphone", "text": message},
        "shown": {"type": "banner", "text": message},
        "kept": {"type": "archive"},
    }
    config = {
        "sources": {"web-app": {"type": "pubsub", "channels": ["notification"]}},
        "sinks": sinks,
        "routes": [{"id": "all", "sinks": list(sinks)}],
    }
    said = ["HI", "HI!", "News of notification: hi"]
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", {"message": "hi"})
        await router.until(lambda: all(f'"event":"{text}"' in router.process.err for text in said))
        await router.stop()
    assert (router.closing()["received"], router.closing()["delivered"]) == (1, 4)
    assert '"event":"closed"' in router.process.err
    assert '"event":"delivery failed"' not in router.process.err


async def test_the_plugin_with_several_recipients_settles_each(redis_server, tmp_path):
    write_plugins(tmp_path, "docs/plugins.md")
    sources = {"web-app": {"type": "pubsub", "channels": ["notification"]}}
    async with stand_in() as post:
        post.rule = lambda seen: Reply(400 if seen.json["to"] == "eve" else 200, json={"id": 7})
        sink = {"type": "postcards", "url": post.url, "to": ["jane", "eve"], "allow_private": True}
        config = {"sources": sources, "sinks": {"cards": sink}, "routes": [{"id": "all", "sinks": ["cards"]}]}
        async with daemon(redis_server, tmp_path, config) as router:
            router.publish("notification", {"message": "hi"})
            await router.until(lambda: len(post.requests) == 2)
            await router.stop()
    assert [seen.json for seen in post.requests] == [{"to": to, "text": "hi"} for to in ("jane", "eve")]
    assert router.closing()["dead_lettered"] == {"permanent": 1}


def test_the_tests_of_the_guide_pass_and_fail_with_their_plugins(tmp_path):
    write_plugins(tmp_path, "docs/plugins.md")
    for block in TESTS:
        (tmp_path / block.file).write_text(block.text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]

    def passes():
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    done = passes()
    assert done.returncode == 0, done.stdout
    faults = [
        ("banner", "{options.text or", "{options.title or"),
        ("banner", "News of", "Nothing of"),
        ("crm", "raise TransientError", "raise ValueError"),
    ]
    for name, written, fault in faults:
        plugin = tmp_path / "plugins" / f"{name}.py"
        plugin.write_text(plugin.read_text().replace(written, fault))
    assert "3 failed, 1 passed" in passes().stdout


async def test_the_plugin_with_types_is_what_mypy_wants(tmp_path):
    files = write_plugins(tmp_path, "docs/plugins.md")
    (banner,) = (file for file in files if file.name == "banner.py")
    arguments = [
        "--strict",
        f"--config-file={tmp_path / 'none.ini'}",
        f"--cache-dir={ROOT / '.mypy_cache' / 'plugins'}",
    ]
    (tmp_path / "none.ini").write_text("[mypy]\n")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "mypy", *arguments, str(banner)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
