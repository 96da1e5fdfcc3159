"""`check_sink`: what is sound passes every check, and each faulty sink is found by exactly the check for its fault."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.testing import ConformanceError, HttpService, check_sink, make_event

FAULTY = Path(__file__).parent / "faulty_sinks"


@pytest.fixture
def service():
    with HttpService() as service:
        yield service


@pytest.fixture
def descriptors():
    """Closes what the test leaves open: a faulty sink leaks it on purpose."""
    before = set(os.listdir("/dev/fd"))  # noqa: PTH208  # numbers, not paths
    yield
    for number in set(os.listdir("/dev/fd")) - before:  # noqa: PTH208
        with contextlib.suppress(OSError):
            os.close(int(number))


async def check(kind, service, **more):
    options = {"url": service.url, "text": "{{ payload.message }}", **more}
    return await check_sink(kind, options, service=service, plugins=FAULTY)


@pytest.mark.parametrize(("kind", "skipped"), [("good", ["batch"]), ("good_in_thread", ["batch"]), ("GoodBatch", [])])
async def test_a_sound_sink_passes_every_check(kind, skipped, service):
    report = await check(kind, service)
    report.raise_for_failures()
    assert [each.name for each in report.not_checked] == skipped, str(report)
    assert f"sink {kind}: {12 - len(skipped)} passed, 0 failed" in str(report)


@pytest.mark.parametrize(
    ("kind", "found_by", "said"),
    [
        (
            "swallows_cancellation",
            "cancellation",
            "returned, so the delivery counts as delivered: do not catch CancelledError",
        ),
        ("goes_on", "cancellation", "did not end within 1 s after it was cancelled"),
        ("wraps_cancellation", "cancellation", "`deliver` was cancelled, and raised TransientError: too slow"),
        ("Blocks", "blocking", "pagers.py:"),
        ("swallows_failures", "failures", "'unavailable' of the service, and the delivery counts as delivered"),
        ("WrongLength", "batch", "deliver_batch returned"),
        ("LeaksTask", "tasks", "task was left after close: sleep"),
        ("LeaksSocket", "sockets", "socket was left after close: a connection to 127.0.0.1:"),
        ("logs_secret", "secrets", "***"),
        ("raises_secret", "secrets", "for ***"),
        ("ignores_retry_after", "retry-after", "to wait 7 s, and the sink raised TransientError: HTTP 429"),
        ("changes_event", "event", "the sink changed the event: payload"),
        ("fails_on_unicode", "unicode", "UnicodeEncodeError"),
        ("accident", "failures", "KeyError: 'answer' (faulty_sinks/pagers.py, line "),
        ("sends_nothing", "delivers", "the service has received nothing"),
        ("exits", "delivers", "the sink raised RuntimeError: SystemExit: 2"),
        ("cancels_itself", "delivers", "the sink raised TransientError: the plugin cancelled itself"),
        ("hangs", "delivers", "the sink did not return within 0.5 s"),
        ("DoesNotOpen", "opens", "open() raised TransientError: no connection"),
        ("DoesNotClose", "opens", "close() raised ValueError: not open (faulty_sinks/pagers.py, line "),
    ],
)
@pytest.mark.usefixtures("descriptors")
async def test_a_fault_is_found_by_exactly_its_check(kind, found_by, said, service):
    report = await check(kind, service, **({"timeout": "500ms"} if kind == "hangs" else {}))
    assert [each.name for each in report.failed] == [found_by], str(report)
    assert said in report.failed[0].detail
    assert "hidden-token" not in str(report)
    with pytest.raises(ConformanceError, match=f"{found_by} +FAILED"):
        report.raise_for_failures()


async def test_options_that_do_not_fit_the_event_are_said(service):
    report = await check("good", service, text="{{ payload.number }}", only_if="payload.number")
    [failed] = report.failed
    assert failed.name == "delivers"
    assert "suppressed (only_if); pass an `event` that fits the options" in failed.detail
    options = {"url": service.url, "text": "{{ payload.number }}"}
    event = make_event({"number": "7"})
    report = await check_sink("good", options, service=service, event=event, plugins=FAULTY)
    report.raise_for_failures()


async def test_options_that_are_wrong_are_refused():
    with pytest.raises(ConfigError, match="`url` is required"):
        await check_sink("good", {"text": "hi"}, plugins=FAULTY)
