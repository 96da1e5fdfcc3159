"""Built-in sink `chat`: Slack, Discord, Microsoft Teams, Mattermost, Telegram and Google Chat.

A webhook (`url`) sends a message to the one channel of the webhook. A bot (`token`) sends a message to each recipient
in `to`: a channel or a user. Each service has a module in `services`, which ends with the description of the service (a
`Service`). The description defines how texts are escaped, which requests are sent, and what the responses mean.

The other modules are shared by all services. `markup` has mentions and Markdown, and `length` has the limits on texts.
`web_api` sends requests. `service` has the senders. `conversations` has the messages that reply to earlier messages or
replace them.
"""

from router.api import RegisterSink, hookimpl

from .chat_options import ChatOptions
from .chat_sink import ChatSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `chat`."""
    register("chat", ChatSink, options=ChatOptions)
