"""Built-in sink `webpush`: sends notifications to the browsers of users by Web Push.

`webpush_options` has the options and their checks. `push_subscriptions` reads the subscription of a browser. `vapid`
signs the requests. `encryption` makes a body that only the browser can read. `webpush_sink` sends the messages, and
`blame` judges refusals. The libraries are in the extra `webpush`.
"""

from router.api import RegisterSink, hookimpl

from .webpush_options import WebPushOptions
from .webpush_sink import WebPushSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `webpush`."""
    register("webpush", WebPushSink, options=WebPushOptions)
