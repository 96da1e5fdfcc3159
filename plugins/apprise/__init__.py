"""Built-in sink `apprise`: any of the services that the library Apprise knows, each by its URL.

`apprise_options` holds the options and their checks, `targets` what is shown of a URL, `library` the calls of Apprise, which
is in the extra `apprise`. `apprise_sink` sends.
"""

from router.api import RegisterSink, hookimpl

from .apprise_options import AppriseOptions
from .apprise_sink import AppriseSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `apprise`."""
    register("apprise", AppriseSink, options=AppriseOptions)
