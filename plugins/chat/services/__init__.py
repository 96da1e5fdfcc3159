"""The chat services by their names in the configuration. Each module ends with its `Service`."""

from __future__ import annotations

from ..service import Service
from .discord import DISCORD
from .google_chat import GOOGLE_CHAT
from .mattermost import MATTERMOST
from .slack import SLACK
from .teams import TEAMS
from .telegram import TELEGRAM

SERVICES: dict[str, Service] = {
    "slack": SLACK,
    "discord": DISCORD,
    "teams": TEAMS,
    "mattermost": MATTERMOST,
    "telegram": TELEGRAM,
    "google-chat": GOOGLE_CHAT,
}
