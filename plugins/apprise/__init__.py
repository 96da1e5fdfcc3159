"""Built-in sink `apprise`: sends to any service that the library Apprise supports; a URL names the service.

`apprise_options` has the options and their checks. `targets` makes the text that logs and commands show for a URL.
`library` calls the library Apprise. `apprise_sink` sends the messages. The library is in the extra `apprise`.
"""

from router.api import RegisterSink, hookimpl

from .apprise_options import AppriseOptions
from .apprise_sink import AppriseSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `apprise`."""
    register("apprise", AppriseSink, options=AppriseOptions)
