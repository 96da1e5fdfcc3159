"""The results of a delivery by recipient: who is settled, who failed, and what an attempt that was cut off leaves behind."""

import asyncio

import pytest

from router.core.delivery.recipient_results import Recipients
from router.errors import GoneError, PermanentError, SinkError, TransientError
from tests.support.sinks import make_event

EVENT = make_event({"id": 7})


def saying(*answers):
    """A function that sends: each call returns or raises the next answer."""
    left = list(answers)

    async def send():
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return send


async def test_each_recipient_is_settled_once():
    with Recipients().attempt(EVENT) as results:
        assert await results.settle("jane", saying("id-1")) is None
        assert await results.settle("team", saying(None)) is None
        gone = GoneError("410")
        assert await results.settle("old", saying(gone)) is gone
        assert await results.settle("old", saying()) is gone, "nobody is asked again"
        assert await results.settle("jane", saying()) is None
    assert (results.answer, len(results), "jane" in results, "eve" in results) == ("id-1", 3, True, False)
    assert results.failures == {"old": gone}


async def test_the_error_of_several_names_each_and_holds_no_sink_back():
    late = TransientError("429", retry_after=9.0)
    with Recipients().attempt(EVENT) as results:
        await results.settle("a", saying(late))
        await results.settle("b", saying(SinkError("401", retry_after=60.0)))
    failures = results.partial_error().failures
    assert failures["a"] is late
    assert (type(failures["b"]), str(failures["b"]), failures["b"].retry_after) == (TransientError, "401", 60.0)


@pytest.mark.parametrize("cut", [asyncio.CancelledError(), ValueError("a bug")])
async def test_an_attempt_that_was_cut_off_leaves_its_results_to_the_next_one(cut):
    recipients = Recipients()
    refused = PermanentError("no such user")

    async def attempt(*, last):
        with recipients.attempt(EVENT) as results:
            known = len(results)
            await results.settle("jane", saying("id-1"))
            await results.settle("joe", saying(refused))
            await results.settle("eve", saying(last))
        return known, results

    with pytest.raises(type(cut)):
        await attempt(last=cut)
    known, results = await attempt(last="id-3")
    assert (known, results.answer, results.failures) == (2, "id-1, id-3", {"joe": refused})
    known, _ = await attempt(last="id-3")
    assert known == 0, "an attempt that ended is not remembered"


async def test_what_is_remembered_is_bounded():
    recipients = Recipients(2)
    events = [make_event({}, id=f"e-{number}") for number in range(3)]

    async def cut_off(event):
        with recipients.attempt(event) as results:
            await results.settle("jane", saying("id"))
            raise KeyError

    for event in events:
        with pytest.raises(KeyError):
            await cut_off(event)
    known = []
    for event in reversed(events):
        with recipients.attempt(event) as results:
            known.append(len(results))
    assert known == [1, 1, 0]
