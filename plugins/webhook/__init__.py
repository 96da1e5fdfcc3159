"""Built-in sink `webhook`: sends each event, or a batch of them, to a URL in one HTTP request.

`webhook_options` holds the options and their checks. `bodies` makes what is sent, `cloud_events` its form as a CloudEvent,
`signatures` the headers that prove who sent it, `verdicts` the meaning of the answer, `client_certificates` the TLS
context. `webhook_sink` puts them together.
"""

from router.api import RegisterSink, hookimpl

from .webhook_options import WebhookOptions
from .webhook_sink import WebhookSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `webhook`."""
    register("webhook", WebhookSink, options=WebhookOptions)
