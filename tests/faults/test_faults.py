"""The fault scenarios, scaled down: what may be lost is nothing, what may come twice is next to nothing."""

import pytest

from tests.faults import scenarios
from tests.faults.harness import recording
from tests.faults.scenarios import SINKS, SMALL


@pytest.fixture
def server(start_server):
    return start_server("valkey", options={"appendonly": "yes", "appendfsync": "everysec"})


def run(name, server, folder):
    with recording() as recorder:
        return getattr(scenarios, name)(folder / "router", server, recorder, SMALL)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "duplicates"),
    [
        ("killed", 0.05),  # what was in hand at each kill may come again
        ("stopped", 0.0),
        ("refused", 0.0),
        ("destroyed", 0.0),
        ("flushed", 0.0),
        ("taken_over", 0.1),
        ("poisoned", 0.2),
    ],
)
def test_nothing_is_lost(name, duplicates, server, tmp_path):
    found = run(name, server, tmp_path)
    assert found.lost == dict.fromkeys(SINKS, 0)
    assert max(found.duplicated.values()) <= duplicates * found.published
