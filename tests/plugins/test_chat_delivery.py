"""The chat sink: what each service is sent, whom it reaches, and what happens between two addresses."""

import asyncio
import hashlib

import pytest

from router.errors import PartialError, PermanentError, SinkError, TransientError
from tests.support.chat import HOOK, TOKEN, bot, chat, posted, webhook
from tests.support.http import Reply, closed_port, stand_in
from tests.support.sinks import make_event, validate
from tests.support.waiting import until

ORDER = {"user_id": 42, "message": "Your order is on its way!"}


def paths(server):
    """The requests, as method and path."""
    return [f"{seen.method} {seen.path}" for seen in server.requests]


# --- webhooks ---------------------------------------------------------------------------------------------------------

CARD = {
    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
    "type": "AdaptiveCard",
    "version": "1.4",
    "body": [{"type": "TextBlock", "text": ORDER["message"], "wrap": True, "spacing": "None"}],
    "msteams": {"width": "Full"},
}


@pytest.mark.parametrize(
    ("service", "query", "reply", "body"),
    [
        ("slack", "", Reply(body=b"ok"), {"text": ORDER["message"], "mrkdwn": False}),
        ("discord", "wait=true", Reply(204), {"content": ORDER["message"], "allowed_mentions": {"parse": []}}),
        (
            "teams",
            "",
            Reply(202),
            {
                "type": "message",
                "attachments": [
                    {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": CARD}
                ],
            },
        ),
        ("mattermost", "", Reply(body=b"ok"), {"text": ORDER["message"]}),
        ("google-chat", "", Reply(json={"name": "spaces/A/messages/B"}), {"text": ORDER["message"]}),
    ],
)
async def test_a_webhook_gets_one_post(service, query, reply, body):
    async with posted(service, webhook, reply) as (server, sink):
        await sink.deliver(make_event(ORDER))
    (seen,) = server.requests
    assert (seen.method, seen.path, seen.query) == ("POST", HOOK, query)
    assert seen.headers["Content-Type"] == "application/json"
    assert "Authorization" not in seen.headers
    assert seen.json == body


@pytest.mark.parametrize(
    ("service", "way", "reply", "answer"),
    [
        ("google-chat", webhook, Reply(json={"name": "spaces/A/messages/B"}), "spaces/A/messages/B"),
        ("discord", webhook, Reply(json={"id": "123", "type": 0}), "123"),
        ("slack", webhook, Reply(body=b"ok"), "HTTP 200"),
        ("discord", webhook, Reply(204), "HTTP 204"),
        ("teams", webhook, Reply(202), "HTTP 202"),
        ("mattermost", webhook, Reply(body=b"ok"), "HTTP 200"),
        ("slack", bot, Reply(json={"ok": True, "channel": "D1", "ts": "1503435956.000247"}), "1503435956.000247"),
        ("telegram", bot, Reply(json={"ok": True, "result": {"message_id": 77}}), "77"),
        ("telegram", bot, Reply(json={"ok": True, "result": {"message_id": [7]}}), "HTTP 200"),
        ("discord", bot, Reply(json={"id": "123"}), "123"),
        ("mattermost", bot, Reply(201, json={"id": "p1"}), "p1"),
    ],
)
async def test_the_id_of_the_message_or_the_status_is_the_answer(service, way, reply, answer):
    more = {"to": "channel:9"} if way is bot and service in {"discord", "mattermost"} else {}
    async with posted(service, way, reply, **more) as (_server, sink):
        assert await sink.deliver(make_event(ORDER)) == answer


@pytest.mark.parametrize(
    ("service", "query", "sent"),
    [
        ("google-chat", "?key=K&token=T%3D", "key=K&token=T%3D"),
        ("discord", "?thread_id=7", "thread_id=7&wait=true"),
        ("discord", "?wait=false", "wait=false"),
    ],
)
async def test_the_query_of_a_webhook_is_kept(service, query, sent):
    async with stand_in() as server, chat(webhook(server, service, url=server.url + "/hook" + query)) as sink:
        await sink.deliver(make_event(ORDER))
    assert server.last.query == sent


# --- bots: one request ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "chat_id"), [(42, 42), ("42", 42), (-100123, -100123), ("@news", "@news"), ("4_2", "4_2"), ("٤", "٤")]
)
async def test_telegram_reaches_a_chat(user, chat_id):
    async with posted("telegram", bot) as (server, sink):
        await sink.deliver(make_event({"user_id": user, "message": "hi"}))
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("POST", f"/bot{TOKEN}/sendMessage")
    assert "Authorization" not in seen.headers
    assert seen.json == {"chat_id": chat_id, "text": "hi"}


async def test_a_token_can_not_lead_elsewhere():
    async with posted("telegram", bot, token="../x?y#z") as (server, sink):
        await sink.deliver(make_event(ORDER))
    assert server.last.target == "/bot..%2Fx%3Fy%23z/sendMessage"


@pytest.mark.parametrize("to", ["C123", "U123", "#ops"])
async def test_slack_posts_a_message(to):
    async with posted("slack", bot) as (server, sink):
        await sink.deliver(make_event({"user_id": to, "message": "hi"}))
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("POST", "/chat.postMessage")
    assert seen.headers["Authorization"] == f"Bearer {TOKEN}"
    assert seen.json == {"channel": to, "text": "hi", "mrkdwn": False}


async def test_a_base_url_may_end_in_a_slash():
    async with stand_in() as server, chat(bot(server, "slack", api=server.url + "/api/")) as sink:
        await sink.deliver(make_event(ORDER))
    assert server.last.path == "/api/chat.postMessage"


# --- Discord ----------------------------------------------------------------------------------------------------------

UNKNOWN_CHANNEL = Reply(404, json={"message": "Unknown Channel", "code": 10003})
INVALID_RECIPIENT = Reply(400, json={"message": "Invalid Recipient(s)", "code": 50033})


def discord(users=(), channels=()):
    """Discord, with these users and channels."""

    def answer(seen):
        if seen.path == "/users/@me/channels":
            user = seen.json["recipient_id"]
            return Reply(json={"id": f"9{user}", "type": 1}) if user in users else INVALID_RECIPIENT
        channel = seen.path.split("/")[2]
        return Reply(json={"id": "1"}) if channel in channels or channel[1:] in users else UNKNOWN_CHANNEL

    return answer


async def test_discord_reaches_a_user_in_a_direct_message():
    async with posted("discord", bot) as (server, sink):
        server.rule = discord(users=["42"])
        await sink.deliver(make_event(ORDER))
        assert paths(server) == ["POST /users/@me/channels", "POST /channels/942/messages"]
        assert all(seen.headers["Authorization"] == f"Bot {TOKEN}" for seen in server.requests)
        nonce = hashlib.blake2b(b"e-1:notify:sink-under-test:42", digest_size=12).hexdigest()
        assert server.last.json == {
            "content": ORDER["message"],
            "allowed_mentions": {"parse": []},
            "nonce": nonce,
            "enforce_nonce": True,
        }
        await sink.deliver(make_event(ORDER))
        assert paths(server)[2:] == ["POST /channels/942/messages"]  # the channel is remembered


async def test_the_nonce_is_the_same_when_the_delivery_is_split():
    async with posted("discord", bot) as (server, sink):
        server.rule = discord(users=["42"])
        await sink.deliver(make_event(ORDER))
        await sink.deliver(make_event(ORDER, address="42", attempt=2))
        await sink.deliver(make_event(ORDER, id="e-2"))
        first, second, other = [seen.json["nonce"] for seen in server.requests if "nonce" in seen.json]
    assert first == second != other
    assert len(first) <= 25


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("channel:7", ["POST /channels/7/messages"]),
        ("#7", ["POST /channels/7/messages"]),
        ("user:42", ["POST /users/@me/channels", "POST /channels/942/messages"]),
        ("@42", ["POST /users/@me/channels", "POST /channels/942/messages"]),
        ("7", ["POST /users/@me/channels", "POST /channels/7/messages"]),
    ],
)
async def test_discord_addresses(to, expected):
    async with posted("discord", bot) as (server, sink):
        server.rule = discord(users=["42"], channels=["7"])
        await sink.deliver(make_event({"user_id": to, "message": "hi"}))
        assert paths(server) == expected
        await sink.deliver(make_event({"user_id": to, "message": "hi"}))
        assert paths(server)[len(expected) :] == expected[-1:]


@pytest.mark.parametrize(
    ("to", "says"), [("9", "Unknown Channel"), ("user:7", "Invalid Recipient"), ("channel:42", "Unknown")]
)
async def test_discord_knows_no_such_address(to, says):
    async with posted("discord", bot) as (server, sink):
        server.rule = discord(users=["42"], channels=["7"])
        with pytest.raises(PermanentError, match=f"^{to} is neither a user nor a channel .*{says}"):
            await sink.deliver(make_event({"user_id": to, "message": "hi"}))


@pytest.mark.parametrize("to", ["jane", "7/../../users", "user:", "x:7", "٤٢", "1" * 26])
async def test_what_is_no_id_of_discord_is_not_asked_for(to):
    async with posted("discord", bot) as (server, sink):
        with pytest.raises(PermanentError, match="not an id of Discord"):
            await sink.deliver(make_event({"user_id": to, "message": "hi"}))
    assert server.requests == []


async def test_a_remembered_channel_that_is_gone_is_asked_for_again():
    async with posted("discord", bot) as (server, sink):
        server.rule = discord(users=["42"])
        await sink.deliver(make_event(ORDER))
        server.script(UNKNOWN_CHANNEL)
        await sink.deliver(make_event(ORDER))
    assert paths(server)[2:] == [
        "POST /channels/942/messages",
        "POST /users/@me/channels",
        "POST /channels/942/messages",
    ]


async def test_remembered_channels_are_bounded(monkeypatch):
    made = validate("chat", {"service": "discord", "token": "x", "to": "1"}).rules.bot.__init__
    monkeypatch.setitem(made.__globals__, "REMEMBERED_CHANNELS", 2)
    async with posted("discord", bot) as (server, sink):
        server.rule = discord(users=["1", "2", "3"])
        for user in (1, 2, 3, 2, 1):
            await sink.deliver(make_event({"user_id": user, "message": "hi"}))
    assert [seen.json["recipient_id"] for seen in server.requests if "recipient_id" in seen.json] == [
        "1",
        "2",
        "3",
        "1",
    ]


# --- Mattermost -------------------------------------------------------------------------------------------------------

NOT_FOUND = {"id": "app.user.missing_account.const", "message": "Unable to find the user.", "status_code": 404}
FORBIDDEN = {
    "id": "api.context.permissions.app_error",
    "message": "You do not have the permission.",
    "status_code": 403,
}


def mattermost(seen):
    """A Mattermost server with the user u-jane (jane, jane@example.org) and the channel c-ops."""
    match seen.path.removeprefix("/api/v4"):
        case "/users/me":
            return Reply(json={"id": "u-bot"})
        case "/users/username/jane" | "/users/email/jane%40example.org" | "/users/email/jane@example.org":
            return Reply(json={"id": "u-jane"})
        case "/channels/direct" if seen.json == ["u-bot", "u-jane"]:
            return Reply(201, json={"id": "c-direct"})
        case "/posts" if seen.json["channel_id"] in {"c-ops", "c-direct"}:
            return Reply(201, json={"id": "p"})
        case "/posts":
            return Reply(403, json=FORBIDDEN)
    return Reply(404, json=NOT_FOUND)


DIRECT = ["GET /api/v4/users/me", "POST /api/v4/channels/direct", "POST /api/v4/posts"]


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("c-ops", ["POST /api/v4/posts"]),
        ("channel:c-ops", ["POST /api/v4/posts"]),
        ("user:u-jane", DIRECT),
        ("u-jane", ["POST /api/v4/posts", *DIRECT]),
        ("@jane", ["GET /api/v4/users/username/jane", *DIRECT]),
        ("jane@example.org", ["GET /api/v4/users/email/jane%40example.org", *DIRECT]),
    ],
)
async def test_mattermost_addresses(to, expected):
    async with posted("mattermost", bot) as (server, sink):
        server.rule = mattermost
        await sink.deliver(make_event({"user_id": to, "message": "hi"}))
        assert [path.replace("@", "%40") for path in paths(server)] == [path.replace("@", "%40") for path in expected]
        assert all(seen.headers["Authorization"] == f"Bearer {TOKEN}" for seen in server.requests)
        channel = "c-ops" if "ops" in to else "c-direct"
        nonce = hashlib.blake2b(f"e-1:notify:sink-under-test:{to}".encode(), digest_size=12).hexdigest()
        assert server.last.json == {"channel_id": channel, "message": "hi", "pending_post_id": nonce}
        await sink.deliver(make_event({"user_id": to, "message": "hi"}))
        assert paths(server)[len(expected) :] == ["POST /api/v4/posts"]


@pytest.mark.parametrize("to", ["nobody", "@nobody", "nobody@example.org", "user:nobody", "channel:nobody"])
async def test_mattermost_knows_no_such_address(to):
    async with posted("mattermost", bot) as (server, sink):
        server.rule = mattermost
        with pytest.raises(PermanentError, match=f"^{to} is neither a user nor a channel"):
            await sink.deliver(make_event({"user_id": to, "message": "hi"}))


async def test_an_address_can_not_lead_to_another_page():
    async with posted("mattermost", bot) as (server, sink):
        server.rule = mattermost
        with pytest.raises(PermanentError):
            await sink.deliver(make_event({"user_id": "@../../posts?x", "message": "hi"}))
    assert server.last.target == "/api/v4/users/username/..%2F..%2Fposts%3Fx"
    async with posted("mattermost", bot) as (server, sink):
        with pytest.raises(PermanentError, match="not an address of Mattermost"):
            await sink.deliver(make_event({"user_id": "http://x", "message": "hi"}))
    assert server.requests == []


async def test_the_base_url_of_mattermost_may_name_the_api():
    async with stand_in() as server, chat(bot(server, "mattermost", api=server.url + "/team/api/v4/")) as sink:
        await sink.deliver(make_event(ORDER))
    assert server.last.path == "/team/api/v4/posts"


@pytest.mark.parametrize("service", ["discord", "mattermost"])
async def test_a_wrong_base_url_is_the_sinks_fault(service):
    async with posted(service, bot) as (server, sink):
        server.default = Reply(404, body=b"<h1>Not Found</h1>")
        with pytest.raises(SinkError, match="check that `api` is the base URL"):
            await sink.deliver(make_event(ORDER))


@pytest.mark.parametrize("service", ["discord", "mattermost"])
async def test_an_answer_without_an_id_is_tried_again(service):
    async with posted(service, bot, to="user:42") as (server, sink):
        server.default = Reply(json={"type": 1})
        with pytest.raises(TransientError, match="the response of the service contains no id"):
            await sink.deliver(make_event(ORDER))


# --- several addresses ------------------------------------------------------------------------------------------------


def chat_ids(server):
    """Whom Telegram was asked to reach, in order."""
    return [seen.json["chat_id"] for seen in server.requests]


async def test_each_address_gets_a_message_of_its_own():
    async with posted("telegram", bot, to="{{ payload.ids }}") as (server, sink):
        await sink.deliver(make_event({"ids": [1, 2, 3, 2], "message": "hi"}))
    assert chat_ids(server) == [1, 2, 3]


BLOCKED = Reply(403, json={"ok": False, "error_code": 403, "description": "Forbidden: bot was blocked by the user"})
BROKEN = Reply(502, json={"ok": False, "error_code": 502, "description": "Bad Gateway"})
LIMITED = Reply(
    429,
    json={"ok": False, "error_code": 429, "description": "Too Many Requests", "parameters": {"retry_after": 13}},
)
OK = Reply(json={"ok": True})


async def test_those_that_fail_are_named_and_the_others_have_it():
    async with posted("telegram", bot, OK, BLOCKED, BROKEN, OK, to="{{ payload.ids }}") as (server, sink):
        with pytest.raises(PartialError) as caught:
            await sink.deliver(make_event({"ids": [1, 2, 3, 4], "message": "hi"}))
    assert chat_ids(server) == [1, 2, 3, 4]
    failures = caught.value.failures
    assert set(failures) == {"2", "3"}
    assert isinstance(failures["2"], PermanentError)
    assert isinstance(failures["3"], TransientError)


async def test_after_too_many_requests_the_rest_is_left_for_later():
    async with posted("telegram", bot, OK, LIMITED, to="{{ payload.ids }}") as (server, sink):
        with pytest.raises(PartialError) as caught:
            await sink.deliver(make_event({"ids": [1, 2, 3, 4], "message": "hi"}))
    assert chat_ids(server) == [1, 2]
    assert {address: error.retry_after for address, error in caught.value.failures.items()} == {
        "2": 13,
        "3": 0,
        "4": 0,
    }, "they were not sent to, and come right after"
    assert all(isinstance(error, TransientError) for error in caught.value.failures.values())


GLOBALLY = Reply(429, json={"message": "You are being rate limited.", "retry_after": 13, "global": True})


async def test_what_is_asked_of_the_whole_bot_is_asked_of_the_rest_too():
    """The first of two requests for each address finds its channel."""
    found, sent = Reply(json={"id": "7"}), Reply(json={"id": "8"})
    async with posted("discord", bot, found, sent, found, GLOBALLY, to="{{ payload.ids }}") as (server, sink):
        with pytest.raises(PartialError) as caught:
            await sink.deliver(make_event({"ids": ["user:1", "user:2", "user:3"], "message": "hi"}))
        with pytest.raises(TransientError, match="has asked the router to wait") as refused:
            await sink.deliver(make_event({"ids": ["user:4"], "message": "hi"}))
        assert len(server.requests) == 4, "nothing was sent after the answer"
    assert {address: error.scope for address, error in caught.value.failures.items()} == {
        "user:2": "sink",
        "user:3": "sink",
    }
    assert refused.value.scope == "sink"
    assert 0 < refused.value.retry_after <= 13


async def test_of_a_team_a_limit_is_asked_of_every_address():
    async with posted("telegram", bot, OK, LIMITED, to=["1", "2", "3"]) as (server, sink):
        with pytest.raises(PartialError):
            await sink.deliver(make_event(ORDER))
        with pytest.raises(PartialError, match="has asked the router to wait"):
            await sink.deliver(make_event(ORDER))
    assert chat_ids(server) == [1, 2]


async def test_without_a_connection_the_rest_is_left_for_later():
    async with posted("telegram", bot, OK, Reply(how="reset"), to="{{ payload.ids }}") as (server, sink):
        with pytest.raises(PartialError) as caught:
            await sink.deliver(make_event({"ids": [1, 2, 3, 4], "message": "hi"}))
    assert chat_ids(server) == [1, 2]
    assert set(caught.value.failures) == {"2", "3", "4"}


async def test_one_address_alone_fails_as_itself():
    async with posted("telegram", bot, BLOCKED) as (_server, sink):
        with pytest.raises(PermanentError, match="blocked by the user"):
            await sink.deliver(make_event(ORDER))


UNAUTHORIZED = Reply(401, json={"ok": False, "error_code": 401, "description": "Unauthorized"})


async def test_a_refused_token_fails_the_whole_delivery_while_nobody_has_it():
    async with posted("telegram", bot, UNAUTHORIZED, to="{{ payload.ids }}") as (server, sink):
        with pytest.raises(SinkError, match="Unauthorized"):
            await sink.deliver(make_event({"ids": [1, 2, 3], "message": "hi"}))
    assert chat_ids(server) == [1]


async def test_a_token_refused_midway_leaves_the_rest_for_later():
    async with posted("telegram", bot, OK, UNAUTHORIZED, to="{{ payload.ids }}") as (server, sink):
        with pytest.raises(PartialError) as caught:
            await sink.deliver(make_event({"ids": [1, 2, 3], "message": "hi"}))
    assert chat_ids(server) == [1, 2]
    assert set(caught.value.failures) == {"2", "3"}
    assert all(isinstance(error, TransientError) for error in caught.value.failures.values())


async def test_a_delivery_cut_off_in_the_middle_repeats_nobody():
    async with posted("telegram", bot, OK, OK, Reply(how="hang"), to="{{ payload.ids }}") as (server, sink):
        event = make_event({"ids": [1, 2, 3, 4], "message": "hi"})
        task = asyncio.create_task(sink.deliver(event))
        await until(lambda: len(server.requests) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await sink.deliver(event)
        assert chat_ids(server) == [1, 2, 3, 3, 4]
        await sink.deliver(event)  # delivered once more, as after a restart: nothing is held against it
        assert chat_ids(server)[5:] == [1, 2, 3, 4]


async def test_a_delivery_cut_off_in_the_middle_asks_nobody_again_who_was_refused():
    gone = Reply(400, json={"ok": False, "error_code": 400, "description": "Bad Request: chat not found"})
    async with posted("telegram", bot, gone, Reply(how="hang"), to="{{ payload.ids }}") as (server, sink):
        event = make_event({"ids": [1, 2], "message": "hi"})
        task = asyncio.create_task(sink.deliver(event))
        await until(lambda: len(server.requests) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(PartialError) as caught:
            await sink.deliver(event)
        assert chat_ids(server) == [1, 2, 2]
        assert {address: type(error) for address, error in caught.value.failures.items()} == {"1": PermanentError}


# --- the point of it --------------------------------------------------------------------------------------------------


async def test_a_thousand_events_for_a_hundred_users_each_in_order():
    async with posted("telegram", bot) as (server, sink):
        for number in range(1_000):
            await sink.deliver(make_event({"user_id": number % 100, "message": f"{number}"}, id=f"e-{number}"))
        got = {}
        for seen in server.requests:
            got.setdefault(seen.json["chat_id"], []).append(int(seen.json["text"]))
        assert len(server.connections) == 1
    assert got == {user: list(range(user, 1_000, 100)) for user in range(100)}


@pytest.mark.parametrize("message", ["", "  \n "])
async def test_an_empty_text_is_not_sent(message):
    async with posted("telegram", bot) as (server, sink):
        with pytest.raises(PermanentError, match="empty"):
            await sink.deliver(make_event({"user_id": 1, "message": message}))
    assert server.requests == []


@pytest.mark.parametrize("service", ["slack", "telegram"])
async def test_a_private_service_needs_leave(service, monkeypatch):
    """A public name that leads to a private address passes the check of the config, and fails when it is dialled."""
    import socket

    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: real("127.0.0.1" if host == "chat.example" else host, *a, **k)
    )
    async with stand_in() as server:
        api = server.url.replace("127.0.0.1", "chat.example")
        async with chat(bot(server, service, api=api, allow_private=False)) as sink:
            with pytest.raises(PermanentError, match="private address; set `allow_private: true`"):
                await sink.deliver(make_event(ORDER))
        async with chat(bot(server, service, api=api)) as sink:
            await sink.deliver(make_event(ORDER))
    assert len(server.requests) == 1


async def test_a_sink_may_be_opened_again():
    async with posted("slack", webhook) as (server, sink):
        await sink.sink.open(sink.context)
        await sink.deliver(make_event(ORDER))
    assert len(server.requests) == 1


async def test_nobody_listens():
    async with stand_in() as server:
        values = webhook(server, "slack", url=f"{closed_port()}/SECRET")
    async with chat(values) as sink:
        with pytest.raises(TransientError, match=r"^no connection to the server: connection refused$"):
            await sink.deliver(make_event(ORDER))
