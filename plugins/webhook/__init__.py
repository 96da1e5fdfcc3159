"""Built-in sink `webhook`: sends each event, or a batch of them, to a URL in one HTTP request.

`webhook_options` holds the options and their checks. `bodies` builds the body of a request, `cloud_events` builds it as
a CloudEvent, and `signatures` adds the headers that prove who sent it. `verdicts` interprets the answer, and
`client_certificates` makes the TLS context. `webhook_sink` uses all of these.
"""

from router.api import RegisterSink, hookimpl

from .webhook_options import WebhookOptions
from .webhook_sink import WebhookSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `webhook`."""
    register("webhook", WebhookSink, options=WebhookOptions)
