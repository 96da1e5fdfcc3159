"""Chat services that keep their messages, and refuse to answer or change one that they do not have."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.support.http import Reply, Seen, StandIn


@dataclass
class Shown:
    """A message as people see it."""

    channel: str
    text: str
    answers: str | None = None


@dataclass
class ChatService:
    """The base of a service: `shown` are its messages by id, the oldest first. Deleting one there is what people do."""

    shown: dict[str, Shown] = field(default_factory=dict)
    edits: int = 0
    numbers: Any = field(default_factory=lambda: count(101))

    def attach(self, server: StandIn) -> StandIn:
        """Let a stand-in answer as this service does."""
        server.rule = self.answer
        return server

    def answer(self, seen: Seen) -> Reply | None:
        raise NotImplementedError

    def add(self, channel: str, text: str, answers: Any = None) -> str:
        new = str(next(self.numbers))
        self.shown[new] = Shown(channel, text, None if answers is None else str(answers))
        return new

    def change(self, message: str, text: str) -> None:
        self.shown[message].text = text
        self.edits += 1


class Slack(ChatService):
    """https://docs.slack.dev/reference/methods/chat.postMessage and …/chat.update

    `chat.update` takes the id of a channel, for direct messages `D…` and not the user's; `message_not_found` for others.
    A message that can't have replies is refused with `cannot_reply_to_message`.
    """

    def answer(self, seen: Seen) -> Reply:
        said = seen.json
        if seen.path == "/chat.postMessage":
            thread = said.get("thread_ts")
            if thread is not None and (thread not in self.shown or self.shown[thread].answers):
                return Reply(json={"ok": False, "error": "cannot_reply_to_message"})
            channel = f"D{said['channel'][1:]}" if said["channel"].startswith("U") else said["channel"]
            return Reply(json={"ok": True, "channel": channel, "ts": self.add(channel, said["text"], thread)})
        assert seen.path == "/chat.update"
        if not said["channel"].startswith(("C", "D")):
            return Reply(json={"ok": False, "error": "channel_not_found"})
        found = self.shown.get(said["ts"])
        if found is None or found.channel != said["channel"]:
            return Reply(json={"ok": False, "error": "message_not_found"})
        self.change(said["ts"], said["text"])
        return Reply(json={"ok": True, "channel": said["channel"], "ts": said["ts"], "text": said["text"]})


class Telegram(ChatService):
    """https://core.telegram.org/bots/api#sendmessage, #replyparameters and #editmessagetext

    Ids are numbers. Without `allow_sending_without_reply`, an answer to an unknown message is refused, and a text that is
    equal to the old one too.
    """

    def answer(self, seen: Seen) -> Reply:
        said, method = seen.json, seen.path.rpartition("/")[2]
        chat = said["chat_id"]
        assert isinstance(chat, int) or str(chat).startswith("@")
        if method == "sendMessage":
            parent = said.get("reply_parameters", {}).get("message_id")
            if parent is not None and (not isinstance(parent, int) or str(parent) not in self.shown):
                return self.no("message to be replied not found")
            new = self.add(str(chat), said["text"], parent)
            return Reply(json={"ok": True, "result": {"message_id": int(new), "chat": {"id": chat}}})
        assert method == "editMessageText"
        found = self.shown.get(str(said["message_id"]))
        if found is None or found.channel != str(chat):
            return self.no("message to edit not found")
        if found.text == said["text"]:
            return self.no("message is not modified: specified new message content is exactly the same")
        self.change(str(said["message_id"]), said["text"])
        return Reply(json={"ok": True, "result": {"message_id": said["message_id"], "chat": {"id": chat}}})

    @staticmethod
    def no(why: str) -> Reply:
        return Reply(400, json={"ok": False, "error_code": 400, "description": f"Bad Request: {why}"})


class Discord(ChatService):
    """https://docs.discord.com/developers/resources/message#create-message, #edit-message and …/webhook

    `message_reference` to an unknown message is refused, because `fail_if_not_exists` is true by default. A webhook tells
    the id only with `wait=true`, knows no `message_reference`, and edits below its own URL.
    """

    def answer(self, seen: Seen) -> Reply:
        said = seen.json
        if seen.path == "/users/@me/channels":
            return Reply(404, json={"code": 10013, "message": "Unknown User"})
        path = re.fullmatch(r"(?:/channels/(\d+)|(/services/\S+?))(?:/messages(?:/(\d+))?)?", seen.path)
        assert path is not None, seen.path
        channel, hook, message = path.groups()
        if seen.method == "PATCH":
            if message not in self.shown:
                return Reply(404, json={"code": 10008, "message": "Unknown Message"})
            self.change(message, said["content"])
            return Reply(json={"id": message, "channel_id": channel or "77"})
        if hook and "wait=true" not in seen.query:
            self.add("77", said["content"])
            return Reply(204)
        parent = said.get("message_reference", {}).get("message_id")
        assert not (hook and parent)
        if parent is not None and parent not in self.shown:
            unknown = {"_errors": [{"code": "MESSAGE_REFERENCE_UNKNOWN_MESSAGE", "message": "Unknown message"}]}
            return Reply(
                400, json={"code": 50035, "message": "Invalid Form Body", "errors": {"message_reference": unknown}}
            )
        return Reply(json={"id": self.add(channel or "77", said["content"], parent), "channel_id": channel or "77"})


class Mattermost(ChatService):
    """https://docs.mattermost.com/api/reference/create-post and …/patch-post

    `root_id` must be a first message: neither unknown, nor an answer itself.
    """

    def answer(self, seen: Seen) -> Reply:
        said = seen.json
        if seen.method == "PUT":
            message = seen.path.split("/")[4]
            assert seen.path == f"/api/v4/posts/{message}/patch"
            if message not in self.shown:
                return Reply(404, json={"id": "app.post.get.app_error", "message": "Unable to get the post."})
            self.change(message, said["message"])
            return Reply(json={"id": message, "channel_id": self.shown[message].channel})
        assert seen.path == "/api/v4/posts"
        root = said.get("root_id")
        if root is not None and (root not in self.shown or self.shown[root].answers):
            why = "Invalid RootId parameter."
            return Reply(400, json={"id": "api.post.create_post.root_id.app_error", "message": why})
        new = self.add(said["channel_id"], said["message"], root)
        return Reply(json={"id": new, "channel_id": said["channel_id"]})


BOTS: dict[str, tuple[type[ChatService], str]] = {
    "slack": (Slack, "U42"),
    "telegram": (Telegram, "42"),
    "discord": (Discord, "42"),
    "mattermost": (Mattermost, "channel:c42"),
}
"""The services with bots, each with an address."""
