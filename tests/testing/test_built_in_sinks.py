"""Every built-in sink passes the conformance check."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest

from router.testing import Failure, HttpService, Report, check_sink, make_event
from tests.support import browsers
from tests.support.datagrams import DatagramService
from tests.support.sinks import built_ins
from tests.support.smtp import Postbox, smtp_server

TEXT = "{{ payload.message }}"


class SmtpService:
    """An SMTP server as a stand-in: it can't ask for time, because SMTP can't."""

    def __init__(self, box: Postbox) -> None:
        self.box = box
        self.spoken = asyncio.Event()

    @property
    def received(self) -> int:
        return len(self.box.taken)

    def fail(self, failure: Failure, times: int | None = None) -> None:
        if failure == "busy":
            raise NotImplementedError
        self.spoken.clear()
        answers: dict[str, Any] = {
            "unavailable": "451 4.3.0 out of order",
            "refused": "550 5.7.1 no",
            "silent": self.spoken.wait,
        }
        self.box.data += [answers[failure]] * (times or 100)

    def recover(self) -> None:
        self.box.data.clear()
        self.spoken.set()


class ProgramService:
    """A program of the shell as a stand-in. It does as a file in its folder says, and adds a line to another one."""

    SCRIPT = """cat > /dev/null
        failure=$(cat failure)
        case "$failure" in unavailable) exit 75 ;; refused) exit 1 ;; silent) exec sleep 1000 ;; esac
        echo taken >> taken"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recover()

    @property
    def received(self) -> int:
        taken = self.folder / "taken"
        return taken.read_bytes().count(b"\n") if taken.exists() else 0

    def fail(self, failure: Failure, times: int | None = None) -> None:
        if failure == "busy" or times is not None:
            raise NotImplementedError
        (self.folder / "failure").write_text(failure)

    def recover(self) -> None:
        (self.folder / "failure").write_text("none")


def not_checked(report: Report) -> list[str]:
    report.raise_for_failures()
    return [each.name for each in report.not_checked]


@pytest.mark.parametrize("service", ["slack", "discord", "teams", "mattermost", "google-chat"])
async def test_chat_by_webhook(service):
    with HttpService() as server:
        options = {"service": service, "url": f"{server.url}/services/T0P/B0B/abcSECRETdef", "text": TEXT}
        assert not_checked(await check_sink("chat", options, service=server)) == ["batch"]


@pytest.mark.parametrize("service", ["slack", "telegram", "discord", "mattermost"])
async def test_chat_by_bot(service):
    with HttpService({"ok": True, "id": "c1", "result": {"message_id": 5}}) as server:
        options = {"service": service, "token": "xoxb-T0P-SECRET:token", "api": server.url, "text": TEXT}
        options["to"] = ["{{ payload.user_id }}", "43"]
        assert not_checked(await check_sink("chat", options, service=server)) == ["batch"]


@pytest.mark.parametrize("separate", [True, False])
async def test_email(separate):
    async with smtp_server() as box:
        options = {
            "host": "127.0.0.1",
            "port": box.port,
            "tls": "none",
            "from": "shop@example.org",
            "separate": separate,
        }
        options |= {
            "to": ["{{ payload.mail }}", "ops@example.org"],
            "subject": TEXT,
            "text": TEXT,
            "html": f"<p>{TEXT}",
        }
        event = make_event({"mail": "jane@example.org", "message": "hi"})
        report = await check_sink("email", options, service=SmtpService(box), event=event)
        assert not_checked(report) == ["retry-after", "batch"]


async def test_chat_with_keys(redis_server):
    with HttpService({"ok": True, "id": "c1", "result": {"message_id": 5}}) as server:
        options = {
            "service": "telegram",
            "token": "xoxb-T0P-SECRET:token",
            "api": server.url,
            "text": TEXT,
            "to": ["42"],
        }
        options |= {"thread": "{{ payload.user_id }}", "update": TEXT}
        report = await check_sink("chat", options, service=server, redis_url=redis_server.url)
        assert not_checked(report) == ["batch"]
        assert {request.path.rpartition("/")[2] for request in server.requests} == {"sendMessage", "editMessageText"}


async def test_email_with_a_key(redis_server):
    async with smtp_server() as box:
        options = {"host": "127.0.0.1", "port": box.port, "tls": "none", "from": "shop@example.org", "text": TEXT}
        options |= {"to": ["ops@example.org"], "thread": TEXT}
        report = await check_sink("email", options, service=SmtpService(box), redis_url=redis_server.url)
        assert not_checked(report) == ["retry-after", "batch"]
        assert any(mail.message["References"] for mail in box.taken)


async def test_log(tmp_path):
    report = await check_sink("log", {"path": tmp_path / "audit.jsonl", "template": TEXT})
    assert not_checked(report) == ["failures", "retry-after", "cancellation"]
    assert (tmp_path / "audit.jsonl").read_text().startswith("Hello\n")


@pytest.mark.parametrize("target", ["journald", "syslog"])
async def test_log_by_datagrams(target):
    with tempfile.TemporaryDirectory() as folder, DatagramService(Path(folder, "socket")) as service:
        options = {"target": target, "socket": service.path, "template": TEXT}
        assert not_checked(await check_sink("log", options, service=service)) == ["retry-after"]


@pytest.mark.parametrize("body", [{"json": {"text": TEXT}}, {"form": {"text": TEXT}}, {"batch_as": "array"}, {}])
async def test_webhook(body):
    with HttpService() as server:
        options = {"url": f"{server.url}/hook", "auth": {"bearer": "a-secret-token"}, **body}
        unchecked = not_checked(await check_sink("webhook", options, service=server))
        assert unchecked == ([] if "batch_as" in body else ["batch"])


async def test_webpush(monkeypatch):
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", browsers.trusting())
    with HttpService(tls=browsers.serving()) as server:
        jane = browsers.Browser(server.url).subscription
        event = make_event({"id": 7, "message": "hi", "browsers": [jane]})
        report = await check_sink("webpush", browsers.options(), service=server, event=event)
        assert not_checked(report) == ["batch"]


class PatientService(HttpService):
    """A service that never asks for time, because Apprise does not tell what a service asks for."""

    def fail(self, failure: Failure, times: int | None = None) -> None:
        if failure == "busy":
            raise NotImplementedError
        super().fail(failure, times)


async def test_apprise():
    with PatientService() as server:
        options = {"urls": f"json://{server.url.partition('://')[2]}/s3cret-path", "title": "t", "body": TEXT}
        assert not_checked(await check_sink("apprise", options, service=server)) == ["retry-after", "batch"]


@pytest.mark.parametrize("command", ["xadd", "publish", "rpush"])
async def test_redis(redis_server, command):
    options = {command: "inbox:{{ payload.message }}", "url": redis_server.url}
    report = await check_sink("redis", options)
    assert not_checked(report) == ["failures", "retry-after", "cancellation"]


async def test_command(tmp_path):
    options = {"argv": ["sh", "-c", ProgramService.SCRIPT, "--", TEXT], "cwd": str(tmp_path), "env": {"TOKEN": "a b c"}}
    report = await check_sink("command", options, service=ProgramService(tmp_path))
    assert not_checked(report) == ["retry-after", "batch"]


def test_every_built_in_sink_is_checked_here():
    assert {f"test_{name}" for name in built_ins()} <= {*globals(), "test_chat"}
