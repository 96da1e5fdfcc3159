"""Built-in sink `webhook`: sends each event, or a batch of them, to a URL in one HTTP request.

`webhook_options` has the options and their checks. `bodies` builds the body of a request, and `cloud_events` builds a
CloudEvent. `signatures` makes the headers that prove the sender of a request. `verdicts` interprets the response.
`client_certificates` makes the TLS context. `webhook_sink` uses all these modules.
"""

from router.api import RegisterSink, hookimpl

from .webhook_options import WebhookOptions
from .webhook_sink import WebhookSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `webhook`."""
    register("webhook", WebhookSink, options=WebhookOptions)
