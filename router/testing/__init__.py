"""The test kit for plugin authors; floor 7, beside the command line.

`check_sink` and `check_lookup` test a sink or a lookup and return a report; `str(report)` is a table. `RecordingRouter`
takes events and records what each sink gets. Nothing here needs pytest or a Redis server.
"""

from router.testing.lookup_conformance import check_lookup
from router.testing.manual_clock import ManualClock
from router.testing.recording_router import Attempt, RecordingRouter
from router.testing.report import Check, ConformanceError, Report
from router.testing.sample_events import make_event
from router.testing.sink_conformance import check_sink
from router.testing.stand_ins import RETRY_AFTER, Failure, HttpService, Request, Service

__all__ = [
    "RETRY_AFTER",
    "Attempt",
    "Check",
    "ConformanceError",
    "Failure",
    "HttpService",
    "ManualClock",
    "RecordingRouter",
    "Report",
    "Request",
    "Service",
    "check_lookup",
    "check_sink",
    "make_event",
]
