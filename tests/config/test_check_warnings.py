"""What the options of plugins warn of: at its place, without secrets, and from plugins that say nonsense too."""

from __future__ import annotations

import pytest

from router.ops.loading import load

PLUGIN = """
from router.api import OptionWarning, Secret, SinkOptions, hookimpl

class Options(SinkOptions):
    device: str = ""
    token: Secret

    @property
    def check_warnings(self):
        {body}

async def record(event, options): ...

@hookimpl
def register_sinks(register):
    register("record", record, options=Options)
"""
CONFIG = """
version: 1
sources: {web: {type: pubsub, channels: [n]}}
sinks: {out: {type: record, token: "${TOKEN}", device: /dev/x}}
routes: [{id: all, sinks: [out]}]
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [OptionWarning('device', 'gone')]", [(4, 56, "sinks.out.device", "gone")]),
        (
            "return [OptionWarning('none', f'no {self.token.get_secret_value()}')]",
            [(4, 14, "sinks.out", "no ${TOKEN}")],
        ),
        ("return [None, 5, ('device', 'x'), OptionWarning('device', None)]", []),
        ("return None", [(4, 9, "sinks.out", "fails in `check_warnings`: TypeError")]),
        ("raise KeyError('x')", [(4, 9, "sinks.out", "fails in `check_warnings`: KeyError: 'x'")]),
    ],
)
def test_a_warning_is_placed(tmp_path, body, said):
    (tmp_path / "plugins").mkdir(mode=0o755)
    file = tmp_path / "plugins" / "record.py"
    file.write_text(PLUGIN.format(body=body))
    file.chmod(0o644)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "config.yaml").chmod(0o600)
    found = [each for each in load(tmp_path / "config.yaml", environ={"TOKEN": "the-token"}).problems if each.line]
    assert [(each.line, each.column, each.path, each.severity) for each in found] == [
        (*place, "warning") for *place, _ in said
    ]
    assert all(text in each.message for each, (*_, text) in zip(found, said, strict=True))
