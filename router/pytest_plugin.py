"""The pytest plugin of the test kit, which pytest finds by the entry-point group `pytest11`; floor 8.

pytest imports this module at each start. So the module imports other modules of the router only when a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from router.events import Event
    from router.testing import HttpService, ManualClock, RecordingRouter


@pytest.fixture
def event_router_make_event() -> Callable[..., Event]:
    """Return `router.testing.make_event`. Example: `event_router_make_event({"message": "hi"}, channel="orders")`."""
    from router.testing import make_event  # noqa: PLC0415  # see the module's docstring

    return make_event


@pytest.fixture
def event_router_clock() -> ManualClock:
    """Return a clock whose time changes only when the test advances it."""
    from router.testing import ManualClock  # noqa: PLC0415

    return ManualClock()


@pytest.fixture
def event_router_service() -> Iterator[HttpService]:
    """Yield an HTTP server on a loopback address that stands in for a service. A test can make it fail."""
    from router.testing import HttpService  # noqa: PLC0415

    with HttpService() as service:
        yield service


@pytest.fixture
def event_router_recording_router(pytestconfig: pytest.Config) -> Callable[..., RecordingRouter]:
    """Return `router.testing.RecordingRouter`, which finds drop-ins in `plugins/` below the root folder of the tests."""
    from router.testing import RecordingRouter  # noqa: PLC0415

    return partial(RecordingRouter, plugins=_plugins(pytestconfig))


@pytest.fixture
def event_router_check_sink(pytestconfig: pytest.Config) -> Callable[..., Any]:
    """Return `router.testing.check_sink`, which finds drop-ins in `plugins/` below the root folder of the tests."""
    from router.testing import check_sink  # noqa: PLC0415

    return partial(check_sink, plugins=_plugins(pytestconfig))


@pytest.fixture
def event_router_check_lookup(pytestconfig: pytest.Config) -> Callable[..., Any]:
    """Return `router.testing.check_lookup`, which finds drop-ins in `plugins/` below the root folder of the tests."""
    from router.testing import check_lookup  # noqa: PLC0415

    return partial(check_lookup, plugins=_plugins(pytestconfig))


def _plugins(config: pytest.Config) -> list[Path]:
    folder = config.rootpath / "plugins"
    return [folder] if folder.is_dir() else []
