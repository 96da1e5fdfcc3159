"""The chat sink: how each service says no, and that no error shows a secret."""

import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.core.delivery.responses import DEFAULT_RETRY_AFTER
from router.errors import DeliveryError, PermanentError, SinkError, TransientError
from tests.support.chat import HOOK, TOKEN, bot, chat, posted, webhook
from tests.support.http import Reply, stand_in
from tests.support.sinks import make_event

EVENT = make_event({"user_id": "channel:42", "message": "hi"})
PERMANENT, TRANSIENT, SINK = PermanentError, TransientError, SinkError


async def outcome(service, way, reply):
    """What a delivery ends with when the service answers so: None or the error."""
    to = "channel:42" if service in {"discord", "mattermost"} else "42"
    more = {} if way is webhook else {"to": to}
    async with posted(service, way, reply, **more) as (_server, sink):
        try:
            await sink.deliver(EVENT)
        except DeliveryError as error:
            return error
    return None


def check(error, kind, says="", wait=None):
    """The error is of this kind, says this and asks for this delay."""
    if kind is None:
        assert error is None
        return
    assert isinstance(error, kind), repr(error)
    assert not (kind is TRANSIENT and isinstance(error, SinkError))
    assert says in str(error)
    assert getattr(error, "retry_after", None) == wait


WEBHOOKS = ["slack", "discord", "teams", "mattermost", "google-chat"]


@pytest.mark.parametrize("service", WEBHOOKS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, None), (202, None), (204, None), (302, PERMANENT), (400, PERMANENT), (401, SINK), (403, SINK), (404, SINK),
        (408, TRANSIENT), (410, SINK), (413, PERMANENT), (429, TRANSIENT), (500, TRANSIENT), (503, TRANSIENT),
    ],
)  # fmt: skip
async def test_statuses_of_webhooks(service, status, kind):
    check(await outcome(service, webhook, Reply(status)), kind, wait=DEFAULT_RETRY_AFTER if status == 429 else None)


@pytest.mark.parametrize("service", WEBHOOKS)
async def test_retry_after_of_webhooks(service):
    check(await outcome(service, webhook, Reply(429, headers={"Retry-After": "30"})), TRANSIENT, "HTTP 429", 30)
    check(await outcome(service, webhook, Reply(503, headers={"Retry-After": "5"})), TRANSIENT, "HTTP 503", 5)


@pytest.mark.parametrize(
    ("service", "reply", "kind", "says", "wait"),
    [
        ("slack", Reply(400, body=b"invalid_payload"), PERMANENT, "invalid_payload", None),
        ("slack", Reply(400, body=b"user_not_found"), PERMANENT, "user_not_found", None),
        ("slack", Reply(403, body=b"invalid_token"), SINK, "invalid_token", None),
        ("slack", Reply(403, body=b"action_prohibited"), SINK, "action_prohibited", None),
        ("slack", Reply(404, body=b"channel_not_found"), SINK, "channel_not_found", None),
        ("slack", Reply(404, body=b"no_service"), SINK, "no_service", None),
        ("slack", Reply(400, body=b"no_team"), SINK, "no_team", None),
        ("slack", Reply(410, body=b"channel_is_archived"), SINK, "channel_is_archived", None),
        ("slack", Reply(500, body=b"rollup_error"), TRANSIENT, "rollup_error", None),
        ("slack", Reply(200, json={"ok": False, "error": "no_text"}), PERMANENT, "no_text", None),
        ("discord", Reply(404, json={"code": 10015, "message": "Unknown Webhook"}), SINK, "Unknown Webhook", None),
        ("discord", Reply(429, json={"retry_after": 0.65}), TRANSIENT, "429", 0.65),
        ("discord", Reply(429, json={"retry_after": 64_000}), TRANSIENT, "429", 3600),
        ("discord", Reply(429, json={"retry_after": 900}, headers={"Retry-After": "1"}), TRANSIENT, "429", 1),
        ("discord", Reply(429, json={"retry_after": -1}), TRANSIENT, "429", 0),
        ("discord", Reply(429, json={"retry_after": "soon"}), TRANSIENT, "429", DEFAULT_RETRY_AFTER),
        ("discord", Reply(400, json={"code": 50035, "message": "Invalid Form Body"}), PERMANENT, "Invalid Form Body", None),
        ("teams", Reply(200, body=b"1"), None, "", None),
        ("teams", Reply(200, body=b"Webhook message delivery failed with error: HTTP error 429"), TRANSIENT, "429", DEFAULT_RETRY_AFTER),
        ("teams", Reply(200, body=b"failed ... returned HTTP error 413 with ContextId"), PERMANENT, "413", None),
        ("teams", Reply(200, body=b"failed ... returned HTTP error 404"), SINK, "404", None),
        ("mattermost", Reply(400, json={"id": "web.incoming_webhook.invalid.app_error"}), SINK, "invalid", None),
        ("mattermost", Reply(501, json={"id": "web.incoming_webhook.disabled.app_error"}), SINK, "disabled", None),
        ("mattermost", Reply(400, json={"id": "web.incoming_webhook.parse.app_error"}), PERMANENT, "parse", None),
        ("google-chat", Reply(400, body=b"API key not valid. Please pass a valid API key."), SINK, "API key", None),
        ("google-chat", Reply(400, body=b"Message is too long"), PERMANENT, "too long", None),
    ],
)  # fmt: skip
async def test_what_webhooks_say(service, reply, kind, says, wait):
    check(await outcome(service, webhook, reply), kind, says, wait)


def slack(word, **more):
    """Slack's way to say no."""
    return Reply(200, json={"ok": False, "error": word, **more})


def telegram(code, description, **parameters):
    """Telegram's way to say no."""
    body = {"ok": False, "error_code": code, "description": description}
    return Reply(code, json=body | ({"parameters": parameters} if parameters else {}))


def coded(status, code, **more):
    """Discord's and Mattermost's way to say no."""
    key = "code" if isinstance(code, int) else "id"
    return Reply(status, json={key: code, "message": "told so", **more})


@pytest.mark.parametrize(
    ("service", "reply", "kind", "says", "wait"),
    [
        ("slack", Reply(json={"ok": True, "ts": "1.2"}), None, "", None),
        *[
            ("slack", slack(word), SINK, word, None)
            for word in ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired",
                         "no_permission", "not_allowed_token_type", "org_login_required", "ekm_access_denied")
        ],
        ("slack", slack("missing_scope", needed="chat:write"), SINK, "missing_scope: chat:write", None),
        *[
            ("slack", slack(word), PERMANENT, word, None)
            for word in ("channel_not_found", "user_not_found", "not_in_channel", "is_archived", "msg_too_long", "no_text",
                         "cannot_dm_bot", "restricted_action", "something_new")
        ],
        *[
            ("slack", slack(word), TRANSIENT, word, None)
            for word in ("internal_error", "fatal_error", "service_unavailable", "request_timeout")
        ],
        ("slack", Reply(429, json={"ok": False, "error": "ratelimited"}, headers={"Retry-After": "9"}), TRANSIENT, "ratelimited", 9),
        ("slack", Reply(429, headers={"Retry-After": "9"}), TRANSIENT, "HTTP 429", 9),
        ("slack", Reply(429, json={"ok": False}, headers={"Retry-After": "9"}), TRANSIENT, "HTTP 429", 9),
        ("slack", Reply(503, json={"ok": False, "error": "some_new_word"}), TRANSIENT, "HTTP 503", None),
        ("slack", Reply(401, json={"ok": False, "error": "some_new_word"}), SINK, "HTTP 401", None),
        ("slack", Reply(200, json={"ok": False}), PERMANENT, "Slack reports ok is false", None),
        ("slack", Reply(503, body=b"upstream"), TRANSIENT, "HTTP 503", None),
        ("slack", Reply(404, body=b"nothing here"), SINK, "HTTP 404", None),
        ("slack", Reply(200, body=b"<html>Log in</html>"), TRANSIENT, "the response is not from Slack", None),
        ("slack", Reply(200, body=b"[" * 5000), TRANSIENT, "the response is not from Slack", None),
        ("telegram", Reply(json={"ok": True, "result": {"message_id": 1}}), None, "", None),
        ("telegram", telegram(400, "Bad Request: chat not found"), PERMANENT, "chat not found", None),
        ("telegram", telegram(400, "group upgraded", migrate_to_chat_id=-1001), PERMANENT, "has the chat id -1001", None),
        ("telegram", telegram(401, "Unauthorized"), SINK, "Unauthorized", None),
        ("telegram", telegram(403, "Forbidden: bot was blocked by the user"), PERMANENT, "blocked", None),
        ("telegram", telegram(404, "Not Found"), SINK, "Not Found", None),
        ("telegram", telegram(429, "Too Many Requests", retry_after=35), TRANSIENT, "Too Many", 35),
        ("telegram", telegram(500, "Internal Server Error"), TRANSIENT, "Internal", None),
        ("telegram", Reply(200, json={"ok": False, "error_code": 403, "description": "no"}), PERMANENT, "403: no", None),
        ("telegram", Reply(200, json={"ok": False}), PERMANENT, "", None),
        ("telegram", Reply(502, body=b"<html>"), TRANSIENT, "HTTP 502", None),
        ("telegram", Reply(200, body=b"<html>Log in</html>"), TRANSIENT, "the response is not from Telegram", None),
        ("telegram", Reply(400, json={"ok": False, "error_code": "x", "parameters": 7}), PERMANENT, "HTTP 400", None),
        ("discord", Reply(json={"id": "1"}), None, "", None),
        ("discord", coded(401, 0), SINK, "told so", None),
        ("discord", coded(403, 40001), SINK, "told so", None),
        ("discord", coded(403, 50001), PERMANENT, "told so", None),
        ("discord", coded(403, 50007), PERMANENT, "told so", None),
        ("discord", coded(404, 10003), PERMANENT, "told so", None),
        ("discord", coded(400, 50035), PERMANENT, "told so", None),
        ("discord", coded(400, 40003, retry_after=600), TRANSIENT, "told so", 600),
        ("discord", coded(429, 0, retry_after=1.5), TRANSIENT, "told so", 1.5),
        ("discord", Reply(500), TRANSIENT, "HTTP 500", None),
        ("mattermost", Reply(201, json={"id": "p"}), None, "", None),
        ("mattermost", coded(401, "api.context.session_expired.app_error"), SINK, "told so", None),
        ("mattermost", coded(403, "api.context.permissions.app_error"), PERMANENT, "told so", None),
        ("mattermost", coded(404, "app.channel.get.existing.app_error"), PERMANENT, "told so", None),
        ("mattermost", coded(404, "api.context.404.app_error"), SINK, "told so", None),
        ("mattermost", coded(413, "api.post.create_post.too_long"), PERMANENT, "told so", None),
        ("mattermost", Reply(429, headers={"Retry-After": "2"}), TRANSIENT, "HTTP 429", 2),
        ("mattermost", Reply(500, json={"id": "x"}), TRANSIENT, "HTTP 500", None),
    ],
)  # fmt: skip
async def test_what_bots_are_told(service, reply, kind, says, wait):
    check(await outcome(service, bot, reply), kind, says, wait)


@pytest.mark.parametrize(
    ("service", "reply", "scope"),
    [
        ("discord", coded(429, 0, retry_after=1.5), None),
        ("discord", coded(429, 0, retry_after=1.5, **{"global": False}), None),
        ("discord", coded(429, 0, retry_after=1.5, **{"global": True}), "sink"),
        ("discord", Reply(429, headers={"X-RateLimit-Global": "true", "Retry-After": "2"}), "sink"),
        ("discord", Reply(429, headers={"X-RateLimit-Scope": "global", "Retry-After": "2"}), "sink"),
        ("discord", Reply(429, headers={"X-RateLimit-Scope": "user", "Retry-After": "2"}), None),
        ("discord", Reply(429, headers={"X-RateLimit-Scope": "shared", "Retry-After": "2"}), None),
        ("telegram", telegram(429, "Too Many Requests", retry_after=35), None),
        ("slack", Reply(429, headers={"Retry-After": "9"}), None),
        ("mattermost", Reply(503, headers={"Retry-After": "9"}), "sink"),
    ],
)
async def test_a_limit_is_that_of_the_address_unless_the_answer_says_otherwise(service, reply, scope):
    error = await outcome(service, bot, reply)
    assert isinstance(error, TransientError)
    assert error.scope == scope


@pytest.mark.parametrize("word", ["ratelimited", "rate_limited"])
async def test_slack_may_say_that_it_is_too_much_with_a_status_that_does_not(word):
    error = await outcome("slack", bot, slack(word))
    check(error, TRANSIENT, word, DEFAULT_RETRY_AFTER)


# --- secrets ----------------------------------------------------------------------------------------------------------

PARTS = (TOKEN, HOOK, HOOK.rsplit("/", 1)[1])


def shown(error):
    """All that a log could show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(getattr(error, "failures", ""))


def echo(status, how, secret):
    """A service that repeats everything it was sent, and the secret in a sentence."""

    def answer(seen):
        said = f"{seen.target} {seen.headers.get('Authorization')} is «{secret}» {seen.headers['Host']}"
        if how == "json":
            return Reply(status, json={"ok": False, "error": said, "description": said, "message": said, "code": 1})
        return Reply(status, body=said.encode())

    return answer


BOTS = ["slack", "telegram", "discord", "mattermost"]
ALL = [(service, webhook) for service in WEBHOOKS] + [(service, bot) for service in BOTS]


@pytest.mark.parametrize(("service", "way"), ALL)
@pytest.mark.parametrize("how", ["json", "text"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=st.sampled_from([200, 302, 400, 401, 403, 404, 410, 429, 500, 503]))
async def test_no_error_shows_a_secret_even_if_the_service_repeats_it(service, way, how, status):
    async with posted(service, way) as (server, sink):
        server.rule = echo(status, how, HOOK if way is webhook else TOKEN)
        try:
            await sink.deliver(make_event({"user_id": 42, "message": "hi"}))
        except DeliveryError as error:
            text = shown(error)
            assert not [part for part in PARTS if part in text]
        assert not [part for part in PARTS if part in str(sink.context.logged)]


@pytest.mark.parametrize(("service", "way"), ALL)
@pytest.mark.parametrize("how", ["reset", "cut", "down"])
async def test_no_broken_connection_shows_a_secret(service, way, how):
    async with stand_in() as server:
        server.default = Reply(how=how, body=b"{")
        values = way(server, service)
        if how != "down":
            async with chat(values) as sink:
                error = await refused(sink)
    if how == "down":
        async with chat(values) as sink:
            error = await refused(sink)
    assert isinstance(error, TransientError)
    assert not [part for part in PARTS if part in shown(error)]


async def refused(sink):
    """The error of a delivery that fails."""
    with pytest.raises(DeliveryError) as caught:
        await sink.deliver(make_event({"user_id": 42, "message": "hi"}))
    return caught.value
