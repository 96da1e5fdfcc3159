"""What the tests of the command share."""

from __future__ import annotations

import shutil

import pytest

from tests.support.process import ROOT
from tests.support.redis import RedisServer

CONFIG = """\
version: 1
redis: {url: "${REDIS_URL}"}
sources:
  web-app: {type: pubsub, channels: [notification, "orders.*"]}
  shell: {type: pubsub, channels: [command], format: text, max_bytes: 100}
schemas:
  - {channels: [notification], file: schemas/notification.schema.json}
  - {channels: ["orders.*"], file: schemas/notification.schema.json, mode: warn}
sinks:
  audit: {type: log, path: audit.jsonl}
routes:
  - {id: everything, sinks: [audit]}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a configuration of ours and its schema."""
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def server(tmp_path_factory):
    """A Valkey of the test's own."""
    started = RedisServer("valkey", tmp_path_factory.mktemp("valkey")).start()
    yield started
    started.kill()
