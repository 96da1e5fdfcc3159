"""The context of a sink: its HTTP clients are guarded, and closed with it."""

import ssl
from pathlib import Path

import pytest
import trustme

from router.config.models import HostKeys
from router.engine.calling.context import Context
from router.engine.calling.threads import DaemonThreads
from router.engine.clock import SystemClock
from router.errors import PermanentError, SinkError
from router.plugin_contracts import message_memory
from tests.support.http import stand_in
from tests.support.sinks import FakeContext


def context_of(**keys):
    threads = DaemonThreads("sink s", 1)
    return Context(
        "s", clock=SystemClock(), base=Path(), threads=threads, keys=HostKeys.model_validate({"type": "x", **keys})
    )


async def test_a_client_with_its_own_tls_is_guarded_and_closed_with_the_context():
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    context, strict = context_of(allow_private=True), context_of()
    async with stand_in(serving) as server:
        client = context.http_with(trusting)
        assert (await client.request("GET", server.url)).status == 200
        with pytest.raises(SinkError, match="can't be trusted"):
            await context.http.request("GET", server.url)
        with pytest.raises(PermanentError, match="private address"):
            await strict.http_with(trusting).request("GET", server.url)
        (session,) = client._sessions.values()
        await context.close()
        await strict.close()
    assert session.closed
    assert len(server.requests) == 1


def test_a_sink_without_the_memory_that_it_needs_says_the_cure():
    context = FakeContext()
    with pytest.raises(SinkError, match=r"^`thread` and `update` need .* remove `deliver: print` or these options$"):
        message_memory(context, "thread", "update")
    with pytest.raises(SinkError, match=r"^`card` needs .* remove `deliver: print` or this option$"):
        message_memory(context, "card")
    context.messages = object()
    assert message_memory(context, "card") is context.messages
