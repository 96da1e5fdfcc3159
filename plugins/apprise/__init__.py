"""Built-in sink `apprise`: sends to any service that the library Apprise supports; a URL names the service.

`apprise_options` has the options and their checks, `targets` makes the text that is shown for a URL, and `library`
calls Apprise, which is in the extra `apprise`. `apprise_sink` sends the messages.
"""

from router.api import RegisterSink, hookimpl

from .apprise_options import AppriseOptions
from .apprise_sink import AppriseSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `apprise`."""
    register("apprise", AppriseSink, options=AppriseOptions)
