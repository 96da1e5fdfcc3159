"""Built-in sink `chat`: Slack, Discord, Microsoft Teams, Mattermost, Telegram and Google Chat.

A webhook (`url`) sends a message to the one channel of the webhook. A bot (`token`) sends it to each recipient in `to`:
a channel or a user. Each service has a module in `services`, whose last definition is its `Service`. It says how texts
are escaped, which requests are sent, and what the answers mean. Shared code is in `markup` (mentions, Markdown),
`length`, `web_api` (requests, answers), `service` and `conversations` (messages that reply to earlier messages or
replace them).
"""

from router.api import RegisterSink, hookimpl

from .chat_options import ChatOptions
from .chat_sink import ChatSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `chat`."""
    register("chat", ChatSink, options=ChatOptions)
