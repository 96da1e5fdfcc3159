"""What plugins say they write to in Redis: servers that are not known, and plugins that say nonsense."""

from __future__ import annotations

import pytest

from router.errors import ConfigError
from router.ops.loading import load

PLUGIN = """
from router.api import RedisTarget, SinkOptions, Template, hookimpl

class Options(SinkOptions):
    channel: Template | None = None
    url: str | None = None

    @property
    def redis_targets(self):
        {body}

async def forward(event, options): ...

@hookimpl
def register_sinks(register):
    register("forward", forward, options=Options)
"""
CONFIG = """
version: 1
redis: {{url: "{own}"}}
sources: {{web: {{type: pubsub, channels: [n], url: "{source}"}}}}
sinks: {{out: {{type: forward, channel: n, url: "{sink}"}}}}
routes: [{{id: all, sinks: [out]}}]
"""
SOUND = 'return [RedisTarget("channel", self.channel, option="channel", url=self.url)]'


def messages(tmp_path, body=SOUND, own="redis://own", source="redis://a", sink="redis://b"):
    """What is reported of a plugin with this property, in a configuration with these servers."""
    (tmp_path / "plugins").mkdir(mode=0o755)
    file = tmp_path / "plugins" / "forward.py"
    file.write_text(PLUGIN.format(body=body))
    file.chmod(0o644)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(own=own, source=source, sink=sink))
    try:
        found = load(config, environ={}, placeholders=True).problems
    except ConfigError as error:
        found = error.problems
    return [problem.message for problem in found if problem.severity != "note"]


LOOP = [
    'source web reads "n" from the same server, so every event would come back as a new event: write to another channel'
]


@pytest.mark.parametrize(
    ("source", "sink", "same"),
    [
        ("redis://a", "redis://A:6379/3", True),
        ("rediss://user:pw@a", "redis://a", True),
        ("redis://[::1]:7", "redis://127.0.0.1:7", True),
        ("redis://localhost", "redis://localhost.:6379", True),
        ("unix:///run/r.sock?db=1", "unix:///run/r.sock", True),
        ("redis://a", "redis://a:6380", False),
        ("unix:///run/r.sock", "unix:///run/s.sock", False),
        ("${A}", "${B}", False),  # they may be the same, which `run` finds out
        ("redis://a", "no url at all", False),
        ("redis://a", "redis://a:99999", False),
    ],
)
def test_which_servers_are_the_same(tmp_path, source, sink, same):
    found = messages(tmp_path, source=source, sink=sink)
    assert [message for message in found if "clear" not in message] == (LOOP if same else [])


def test_the_router_s_own_server_is_the_same_even_if_it_is_not_known(tmp_path):
    body = 'return [RedisTarget("channel", self.channel, option="channel")]'
    config = CONFIG.replace(', url: "{source}"', "").replace(', url: "{sink}"', "")
    (tmp_path / "config.yaml").write_text(config.format(own="${OWN}"))
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "forward.py").write_text(PLUGIN.format(body=body))
    (tmp_path / "plugins" / "forward.py").chmod(0o644)
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "config.yaml", environ={}, placeholders=True)
    assert [problem.message for problem in raised.value.problems if problem.severity == "error"] == LOOP


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('x')", "fails in `redis_targets`: KeyError: 'x'"),
        ("return None", "fails in `redis_targets`: TypeError"),
        ("return [None, 5, ('channel', 'n', 'channel')]", None),
        ("return [RedisTarget('channel', None, 'channel'), RedisTarget('channel', 'n', 'nowhere', 'redis://c')]", None),
        ("return [RedisTarget('channel', 'n', 'nowhere', 'redis://a')]", "write to another channel"),
    ],
)
def test_a_plugin_that_says_nonsense(tmp_path, body, said):
    found = messages(tmp_path, body)
    assert len(found) == (said is not None)
    assert all(said in message for message in found)
