"""Stand-ins for services that a webhook sink reaches: each enforces the rules of its service, and answers as it does.

The address beside a rule is that of the page of the service's documentation which states the rule.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote

from tests.support.http import Reply, Seen


class RefusedError(Exception):
    """The answer to a request that breaks a rule."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.json)
        self.reply = reply


class Service:
    """A service: `answer` judges a request. `taken` is what was accepted, `busy` makes it refuse for the rate alone."""

    host: ClassVar[str]
    """The scheme and host of the service, as its recipe has them."""
    secret: ClassVar[str]

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.busy = False
        self.lost_answers = 0
        """The number of next requests that are accepted, and whose answer never arrives."""

    def answer(self, seen: Seen) -> Reply:
        """Return the answer to a request."""
        if self.busy:
            return self.too_many()
        try:
            reply = self.take(seen)
        except RefusedError as refusal:
            return refusal.reply
        if self.lost_answers:
            self.lost_answers -= 1
            return Reply(how="reset")
        return reply

    def take(self, seen: Seen) -> Reply:
        """Accept a request, or raise `RefusedError`."""
        raise NotImplementedError

    def too_many(self) -> Reply:
        """Return the answer to too many requests."""
        raise NotImplementedError


def json_object(seen: Seen) -> dict[str, Any] | None:
    """The body, None if it is not a JSON object with the content type of JSON."""
    if seen.headers.get("Content-Type", "").partition(";")[0] != "application/json":
        return None
    try:
        found = json.loads(seen.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def is_text(value: Any, most: int = 1 << 20) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most


class PagerDuty(Service):
    """The Events API v2: https://developer.pagerduty.com/docs/send-alert-event"""

    host = "https://events.pagerduty.com"
    secret = "0123456789abcdef0123456789abcdef"

    def __init__(self) -> None:
        super().__init__()
        self.alerts: dict[str, int] = {}
        """The number of events of each open alert, by its `dedup_key`."""

    def take(self, seen: Seen) -> Reply:
        if (seen.method, seen.target) != ("POST", "/v2/enqueue"):
            raise RefusedError(Reply(404))
        event = json_object(seen)
        faults = ["the body is not JSON"] if event is None else list(self._faults(event, len(seen.body)))
        if faults or event is None:
            answer = {"status": "invalid event", "message": "Event object is invalid", "errors": faults}
            raise RefusedError(Reply(400, json=answer))
        key = event.get("dedup_key") or f"generated-{len(self.taken)}"
        # https://developer.pagerduty.com/docs/send-alert-event#alert-de-duplication
        self.alerts[key] = self.alerts.get(key, 0) + 1
        self.taken.append(event)
        # https://developer.pagerduty.com/docs/events-api-v2-overview#response-codes--retry-logic
        return Reply(202, json={"status": "success", "message": "Event processed", "dedup_key": key})

    @staticmethod
    def _faults(event: dict[str, Any], size: int) -> Iterator[str]:
        # https://developer.pagerduty.com/docs/send-alert-event#parameters
        payload = event.get("payload")
        key, payload = event.get("routing_key"), payload if isinstance(payload, dict) else {}
        if not is_text(key) or len(key) != 32:
            yield "Length of 'routing_key' is incorrect (should be 32 characters)"
        if event.get("event_action") not in {"trigger", "acknowledge", "resolve"}:
            yield "'event_action' is missing or invalid"
        if "dedup_key" in event and not is_text(event["dedup_key"], 255):
            yield "'dedup_key' is invalid"
        if not is_text(payload.get("summary"), 1024):
            yield "'payload.summary' is missing or too long"
        if not is_text(payload.get("source")):
            yield "'payload.source' is missing or blank"
        if payload.get("severity") not in {"critical", "error", "warning", "info"}:
            yield "'payload.severity' is invalid"
        if not isinstance(payload.get("custom_details", {}), dict):
            yield "'payload.custom_details' is not an object"
        try:
            datetime.fromisoformat(payload.get("timestamp", "2026-01-01T00:00:00Z"))
        except (TypeError, ValueError):
            yield "'payload.timestamp' is not a time of ISO 8601"
        # https://developer.pagerduty.com/docs/events-api-v2-overview#size-limits
        if size > 512 * 1024:
            yield "the event is too large"

    def too_many(self) -> Reply:
        # https://developer.pagerduty.com/docs/events-api-rate-limits: no time is asked for
        return Reply(
            429, json={"status": "throttle exceeded", "message": "Requests for this service are arriving too quickly"}
        )


class Twilio(Service):
    """Messages of the REST API: https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource"""

    host = "https://api.twilio.com"
    secret = "twilio-auth-token"
    account = "AC0123456789abcdef0123456789abcdef"
    number = "+15005550006"

    def take(self, seen: Seen) -> Reply:
        # https://www.twilio.com/docs/usage/requests-to-twilio#credentials
        expected = base64.b64encode(f"{self.account}:{self.secret}".encode()).decode()
        if seen.headers.get("Authorization") != f"Basic {expected}":
            raise RefusedError(self._error(401, 20003, "Authenticate"))
        if (seen.method, seen.target) != ("POST", f"/2010-04-01/Accounts/{self.account}/Messages.json"):
            raise RefusedError(self._error(404, 20404, f"The requested resource {seen.path} was not found"))
        is_form = seen.headers.get("Content-Type") == "application/x-www-form-urlencoded"
        fields = dict(parse_qsl(seen.body.decode(), keep_blank_values=True)) if is_form else {}
        for fault, code, message in self._rules(fields):
            if fault:
                raise RefusedError(self._error(400, code, message))
        self.taken.append(fields)
        sid = f"SM{len(self.taken):032x}"
        return Reply(201, json={"sid": sid, "status": "queued", "to": fields["To"], "error_code": None})

    def _rules(self, fields: dict[str, str]) -> Iterator[tuple[bool, int, str]]:
        to, sender, body = fields.get("To", ""), fields.get("From", ""), fields.get("Body", "")
        yield not to, 21604, "A 'To' phone number is required."  # https://www.twilio.com/docs/api/errors/21604
        # https://www.twilio.com/docs/api/errors/21211: E.164
        yield not re.fullmatch(r"\+[1-9][0-9]{6,14}", to), 21211, f"Invalid 'To' Phone Number: {to}"
        # https://www.twilio.com/docs/api/errors/21603
        yield not sender and "MessagingServiceSid" not in fields, 21603, "A 'From' phone number is required."
        yield bool(sender) and sender != self.number, 21659, f"{sender} is not a Twilio phone number"
        yield not body and "MediaUrl" not in fields, 21602, "Message body is required."
        # https://www.twilio.com/docs/api/errors/21617; what is outside GSM-7 is counted in UTF-16
        size = len(body.encode("utf-16-le")) // 2
        yield size > 1600, 21617, "The concatenated message body exceeds the 1600 character limit"

    def too_many(self) -> Reply:
        reply = self._error(429, 20429, "Too Many Requests")  # https://www.twilio.com/docs/api/errors/20429
        return Reply(429, json=reply.json, headers={"Retry-After": "2"})

    @staticmethod
    def _error(status: int, code: int, message: str) -> Reply:
        # https://www.twilio.com/docs/usage/twilios-response#response-formats-exceptions
        more = f"https://www.twilio.com/docs/errors/{code}"
        return Reply(status, json={"code": code, "message": message, "more_info": more, "status": status})


class Ntfy(Service):
    """Publishing as JSON: https://docs.ntfy.sh/publish/#publish-as-json"""

    host = "https://ntfy.sh"
    secret = "tk_0123456789abcdefghijklmnopqrs"

    def take(self, seen: Seen) -> Reply:
        if seen.method not in {"POST", "PUT"} or seen.target != "/":
            raise RefusedError(self._error(404, 40401, "page not found"))
        # https://docs.ntfy.sh/publish/#access-tokens
        if seen.headers.get("Authorization") != f"Bearer {self.secret}":
            raise RefusedError(self._error(401, 40101, "unauthorized"))
        message = json_object(seen)
        if message is None or not self._has_types(message):
            raise RefusedError(self._error(400, 40017, "invalid request: request body must be message JSON"))
        if not re.fullmatch("[-_A-Za-z0-9]{1,64}", message.get("topic", "")):
            raise RefusedError(self._error(400, 40009, "invalid request: topic invalid"))
        # https://docs.ntfy.sh/publish/#message-priority
        if message.get("priority", 3) not in {1, 2, 3, 4, 5}:
            raise RefusedError(self._error(400, 40007, "invalid priority parameter"))
        # https://docs.ntfy.sh/publish/#limitations: a longer message becomes an attachment, which this server has not
        if len(message.get("message", "").encode()) > 4096:
            raise RefusedError(self._error(400, 40014, "invalid request: attachments not allowed"))
        self.taken.append(message)
        return Reply(json={"id": f"m{len(self.taken):011d}", "event": "message", **message})

    @staticmethod
    def _has_types(message: dict[str, Any]) -> bool:
        texts = all(isinstance(message.get(name, ""), str) for name in ("topic", "title", "message"))
        tags = message.get("tags", [])
        return texts and type(message.get("priority", 3)) is int and all(isinstance(tag, str) for tag in tags)

    def too_many(self) -> Reply:
        return self._error(429, 42901, "limit reached: too many requests, please be nice")

    @staticmethod
    def _error(status: int, code: int, message: str) -> Reply:
        return Reply(status, json={"code": code, "http": status, "error": message})


class Matrix(Service):
    """A homeserver: https://spec.matrix.org/latest/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid"""

    host = "https://matrix.example.org"
    secret = "syt_bot_token"
    room = "!ops:example.org"

    def __init__(self) -> None:
        super().__init__()
        self.events: dict[str, str] = {}
        """The ids of the stored events, by their transaction."""

    def take(self, seen: Seen) -> Reply:
        # https://spec.matrix.org/latest/client-server-api/#client-authentication
        if "Authorization" not in seen.headers:
            raise RefusedError(self._error(401, "M_MISSING_TOKEN"))
        if seen.headers["Authorization"] != f"Bearer {self.secret}":
            raise RefusedError(self._error(401, "M_UNKNOWN_TOKEN"))
        path = r"/_matrix/client/v3/rooms/(?P<room>[^/]+)/send/m\.room\.message/(?P<transaction>[^/]+)"
        found = re.fullmatch(path, seen.target)
        if seen.method != "PUT" or found is None:
            raise RefusedError(self._error(404, "M_UNRECOGNIZED"))
        if unquote(found["room"]) != self.room:
            raise RefusedError(self._error(403, "M_FORBIDDEN"))
        content = json_object(seen)
        if content is None:
            raise RefusedError(self._error(400, "M_NOT_JSON"))
        # https://spec.matrix.org/latest/client-server-api/#mroommessage
        if not isinstance(content.get("msgtype"), str) or not isinstance(content.get("body"), str):
            raise RefusedError(self._error(400, "M_BAD_JSON"))
        # https://spec.matrix.org/latest/client-server-api/#size-limits, less what the server adds
        if len(seen.body) > 65536 - 1000:
            raise RefusedError(self._error(413, "M_TOO_LARGE"))
        # https://spec.matrix.org/latest/client-server-api/#transaction-identifiers
        transaction = unquote(found["transaction"])
        if transaction not in self.events:
            self.events[transaction] = f"$event{len(self.events)}"
            self.taken.append(content)
        return Reply(json={"event_id": self.events[transaction]})

    def too_many(self) -> Reply:
        # https://spec.matrix.org/latest/client-server-api/#rate-limiting
        reply = self._error(429, "M_LIMIT_EXCEEDED")
        return Reply(429, json={**reply.json, "retry_after_ms": 2000}, headers={"Retry-After": "2"})

    @staticmethod
    def _error(status: int, code: str) -> Reply:
        # https://spec.matrix.org/latest/client-server-api/#standard-error-response
        return Reply(status, json={"errcode": code, "error": "refused"})


class WhatsApp(Service):
    """The Cloud API: https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages

    It knows one template, `order_update` in English, with two parameters in its body.
    """

    host = "https://graph.facebook.com"
    secret = "EAAG-access-token"
    number = "100000000000000"
    template = "Hello {0}, {1}"
    too_many_status = 429

    def take(self, seen: Seen) -> Reply:
        # https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes, like all codes here
        if seen.headers.get("Authorization") != f"Bearer {self.secret}":
            raise RefusedError(self._error(401, 190, "Access token has expired"))
        if seen.method != "POST" or not re.fullmatch(rf"/v[0-9]+\.[0-9]+/{self.number}/messages", seen.target):
            raise RefusedError(self._error(400, 33, "Parameter value is not valid"))
        message = json_object(seen)
        if message is None or message.get("messaging_product") != "whatsapp":
            raise RefusedError(self._error(400, 100, "The parameter messaging_product is required"))
        if not is_text(message.get("to")) or message.get("type") != "template":
            raise RefusedError(self._error(400, 131008, "Required parameter is missing"))
        if not re.fullmatch(r"\+?[1-9][0-9]{6,14}", message["to"]):
            raise RefusedError(self._error(400, 131009, "Parameter value is not valid"))
        # https://developers.facebook.com/docs/whatsapp/cloud-api/guides/send-message-templates
        if not is_text(message.get("biz_opaque_callback_data", "-"), 512):
            raise RefusedError(self._error(400, 100, "biz_opaque_callback_data is too long"))
        self._check_template(message.get("template", {}))
        self.taken.append(message)
        contact = {"input": message["to"], "wa_id": message["to"].removeprefix("+")}
        answer = {
            "messaging_product": "whatsapp",
            "contacts": [contact],
            "messages": [{"id": f"wamid.{len(self.taken)}"}],
        }
        return Reply(json=answer)

    def _check_template(self, template: dict[str, Any]) -> None:
        if (template.get("name"), template.get("language")) != ("order_update", {"code": "en"}):
            raise RefusedError(self._error(404, 132001, "Template does not exist"))
        bodies = [each for each in template.get("components", []) if each.get("type") == "body"]
        parameters = [each for body in bodies for each in body["parameters"]]
        if len(parameters) != 2:
            raise RefusedError(self._error(400, 132000, "Template Param Count Mismatch"))
        if any(each.get("type") != "text" or not is_text(each.get("text")) for each in parameters):
            raise RefusedError(self._error(400, 132012, "Template Parameter Format Mismatch"))
        texts = [each["text"] for each in parameters]
        if any(re.search(r"[\n\t]| {5}", text) for text in texts):
            raise RefusedError(
                self._error(400, 100, "Param text cannot have new-line/tab characters or more than 4 spaces")
            )
        if len(self.template.format(*texts)) > 1024:
            raise RefusedError(self._error(400, 132005, "Template Hydrated Text Too Long"))

    def too_many(self) -> Reply:
        # The documentation advises to go by the code: its tables have had 400 and 429 for it.
        return self._error(self.too_many_status, 130429, "Rate limit hit")

    @staticmethod
    def _error(status: int, code: int, message: str) -> Reply:
        found = {"message": f"(#{code}) {message}", "type": "OAuthException", "code": code, "fbtrace_id": "A1"}
        return Reply(status, json={"error": found})
