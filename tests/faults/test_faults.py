"""A small run of each fault scenario. `make faults` plays the scenarios in full."""

import pytest

import tests.faults.scenarios  # noqa: F401  # fills the list
from tests.faults.registry import SCENARIOS, run

SMALL = [name for name, one in SCENARIOS.items() if one.small]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SMALL)
def test_what_is_promised_holds(name, tmp_path):
    lacking = SCENARIOS[name].lacks()
    if lacking:
        pytest.skip(lacking)
    found = run(SCENARIOS[name], full=False, folder=tmp_path, kind="valkey")
    assert not found.problems, "\n".join([f"{found}", *found.problems])
