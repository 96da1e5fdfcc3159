"""Built-in sink `chat`: Slack, Discord, Microsoft Teams, Mattermost, Telegram and Google Chat.

A webhook (`url`) sends a message to the one channel of the webhook. A bot (`token`) sends it to each recipient in `to`: a
channel or a user. Each service has a module in `services` that ends with its `Service`: the escaping of its texts, the requests,
and the meaning of its answers. Shared code is in `markup` (mentions, Markdown), `length`, `web_api` (requests, answers), `service`
and `conversations` (messages that answer or replace earlier ones).
"""

from router.api import RegisterSink, hookimpl

from .chat_options import ChatOptions
from .chat_sink import ChatSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `chat`."""
    register("chat", ChatSink, options=ChatOptions)
