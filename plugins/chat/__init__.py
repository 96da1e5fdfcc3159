"""Built-in sink `chat`: Slack, Discord, Microsoft Teams, Mattermost, Telegram and Google Chat.

A message goes by a webhook (`url`) to the place the webhook belongs to, or by a bot (`token`) to whom `to` says: a channel
or one user. Each service is a module that ends with its `Service`: what text becomes for it, how it is reached and what its
answers mean. What they share is in `markup` (mentions, Markdown), `length`, `web_api` (requests, answers) and `service`.
"""

from router.api import RegisterSink, hookimpl

from .chat_options import ChatOptions
from .chat_sink import ChatSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `chat`."""
    register("chat", ChatSink, options=ChatOptions)
