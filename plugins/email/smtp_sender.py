"""Sends one mail: MAIL, RCPT for each recipient, and DATA.

The commands are sent in one write if the server allows that. If a reused connection is dead, a new connection is
opened.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiosmtplib import SMTPResponse

from router.api import PermanentError, SinkError, TransientError

from .connections import Connections
from .mail import Failure, Mail
from .mail_connection import CLOSING, ENDING, MailConnection
from .mailbox import Mailbox, quoted

# Reply codes to MAIL that may concern this connection only, after too many mails or too long a pause.
WORN_OUT = frozenset({CLOSING, 452, 454})
IDLE_TOO_LONG = "4.4.2"  # RFC 3463: "bad connection", sent with 421 or 451


class _LostError(Exception):
    """Raised if a connection is unusable and no part of the mail's content was sent. The text is the reason."""


class _WornOutError(_LostError):
    """Raised if the server accepts no more mails on this connection."""


class SmtpSender:
    """The sender of mails on the connections of one sink."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.close = connections.close

    async def send(self, mail: Mail, group: list[Mailbox], *, separate: bool) -> dict[str, Failure]:
        """Send one mail; return the recipients that failed, with their errors.

        Raises an error if there is no connection.

        A reused connection may have died while idle, or the server may accept no more mails on it. If such a connection
        fails before DATA, the mail is sent on a new connection. This does not count as another attempt.
        """
        fresh = False
        worn: MailConnection | None = None
        while True:
            smtp = await self._connections.take(fresh=fresh)
            try:
                failed = await self._transaction(smtp, mail, group, separate=separate)
            except _LostError as lost:
                self._connections.leave(smtp)
                if not smtp.used:
                    return dict.fromkeys((box.text for box in group), TransientError(str(lost)))
                fresh = True
                worn = smtp if isinstance(lost, _WornOutError) else None
            except BaseException:
                smtp.drop()
                raise
            else:
                if worn is not None and smtp.mails:
                    self._connections.worn_out(worn)
                accepted = len(failed) < len(group)  # after an accepted mail the connection needs no RSET
                await self._put_back(smtp, clean=accepted)
                return failed

    async def _put_back(self, smtp: MailConnection, *, clean: bool) -> None:
        """Put a connection back into the pool if it is still usable, else close it."""
        try:
            usable = clean or _all_accepted(await smtp.command("RSET"))
        except BaseException:
            smtp.drop()
            raise
        if usable:
            self._connections.give(smtp)
        else:
            smtp.drop()

    async def _transaction(
        self, smtp: MailConnection, mail: Mail, group: list[Mailbox], *, separate: bool
    ) -> dict[str, Failure]:
        """Run MAIL, RCPT for each recipient, and DATA.

        Raises `_LostError` if the connection ends before DATA is accepted.
        """
        failed = _needing_smtputf8(smtp, [mail.sender, *mail.reply_to], group)
        group = [box for box in group if box.text not in failed]
        if not group:
            return failed
        content = mail.content(group, separate=separate)
        error: Failure | None = _too_large(smtp, content)
        if error is None:
            replies = await _envelope(smtp, _mail_command(smtp, mail, group, len(content)), group)
            try:
                failed |= self._refused(smtp, mail, group, replies)
            except (TransientError, PermanentError, SinkError) as refused:
                error = refused
            else:
                group = [box for box in group if box.text not in failed]
                error = await self._send_content(smtp, mail, content, replies[-1]) if group else None
        return failed | {box.text: error for box in group if error is not None}

    def _refused(
        self, smtp: MailConnection, mail: Mail, group: list[Mailbox], replies: Sequence[SMTPResponse]
    ) -> dict[str, Failure]:
        """Return the recipients that the server refused, with their errors.

        `replies` are the server's replies to MAIL, to each RCPT and to DATA. Raises an error that concerns all
        recipients, or `_LostError` if a necessary reply is missing.
        """
        judge = self._connections.judge
        lost = _LostError(f"{self._connections.server} closed the connection before it received the mail")
        if not replies:
            raise lost
        if not _accepted(answer := replies[0]):
            failure = judge(answer, mail.sender)
            worn_out = answer.code in WORN_OUT or (answer.code == 451 and answer.message.startswith(IDLE_TOO_LONG))
            raise _WornOutError(str(failure)) if worn_out and isinstance(failure, TransientError) else failure
        smtp.mails += 1
        refused: dict[str, Failure] = {}
        for box, answer in zip(group, replies[1:], strict=False):
            if not _accepted(answer):
                refused[box.text] = judge(answer, mail.sender, box)
                if answer.code in ENDING:
                    raise refused[box.text]
        if len(replies) < len(group) + 2 and len(refused) < len(group):
            raise lost
        return refused

    async def _send_content(
        self, smtp: MailConnection, mail: Mail, content: bytes, allowed: SMTPResponse
    ) -> Failure | None:
        """Send the content of the mail if `allowed`, the reply to DATA, allows that.

        Return the error if the mail failed.
        """
        if not _wants_content(allowed):
            return self._connections.judge(allowed)
        answer = await smtp.send(content)
        if answer is None:
            server = self._connections.server
            return TransientError(
                f"{server} closed the connection before it confirmed the mail: the mail may arrive twice"
            )
        if not _accepted(answer):
            return self._connections.judge(answer)
        mail.replies.append(self._connections.quoted(*answer))
        return None


def _accepted(answer: SMTPResponse) -> bool:
    return 200 <= answer.code < 300


def _all_accepted(replies: Sequence[SMTPResponse]) -> bool:
    return bool(replies) and all(map(_accepted, replies))


def _wants_content(answer: SMTPResponse) -> bool:
    """Return whether a reply to DATA asks for the mail."""
    return 300 <= answer.code < 400


def _mail_command(smtp: MailConnection, mail: Mail, group: list[Mailbox], size: int) -> str:
    command = f"MAIL FROM:<{mail.sender.address}>"
    if "size" in smtp.extensions:
        command += f" SIZE={size}"
    if any(box.international for box in (mail.sender, *mail.reply_to, *group)):
        command += " SMTPUTF8 BODY=8BITMIME"
    return command


async def _envelope(smtp: MailConnection, mail: str, group: list[Mailbox]) -> list[SMTPResponse]:
    """Send MAIL, RCPT for each recipient and DATA; return the replies.

    There are fewer replies than commands if the connection ended. Without PIPELINING, a command is not sent if an
    earlier reply made the command useless.
    """
    recipients = [f"RCPT TO:<{box.address}>" for box in group]
    if smtp.pipelining:
        replies = await smtp.command(mail, *recipients, "DATA")
        if len(replies) == len(recipients) + 2 and _wants_content(replies[-1]):
            await _withdraw(smtp, replies)
        return replies
    replies = await smtp.command(mail)
    if not _all_accepted(replies):
        return replies
    for recipient in recipients:
        answer = await smtp.command(recipient)
        replies += answer
        if not answer or answer[0].code in ENDING:
            return replies
    if any(map(_accepted, replies[1:])):
        replies += await smtp.command("DATA")
    return replies


async def _withdraw(smtp: MailConnection, replies: Sequence[SMTPResponse]) -> None:
    """End a mail whose sender or recipients the server refused. The server may still wait for the content of the mail.

    If the server refused every recipient, a single dot ends the mail (RFC 2920 section 3.1). If the server refused the
    sender, the mail could still reach the accepted recipients, so the connection is closed.
    """
    if not _accepted(replies[0]):
        smtp.drop()
    elif not any(map(_accepted, replies[1:-1])):
        await smtp.send(b"")


def _needing_smtputf8(smtp: MailConnection, authors: list[Mailbox], group: list[Mailbox]) -> dict[str, Failure]:
    """Return an error for each recipient to which only a server with SMTPUTF8 can send the mail.

    `authors` are the addresses of From and Reply-To. If one of them is international, every recipient gets an error. If
    the server supports SMTPUTF8, there are no errors.
    """
    if "smtputf8" in smtp.extensions:
        return {}
    culprits = {box.text: next((one for one in (*authors, box) if one.international), None) for box in group}
    return {
        text: PermanentError(f"{quoted(culprit.text)} needs SMTPUTF8, which the mail server does not support")
        for text, culprit in culprits.items()
        if culprit is not None
    }


def _too_large(smtp: MailConnection, content: bytes) -> PermanentError | None:
    """Return an error if the mail is larger than the server's limit. By RFC 1870, the limit 0 means no limit."""
    limit = smtp.extensions.get("size", "").strip()
    if not limit.isdecimal() or not 0 < int(limit) < len(content):
        return None
    return PermanentError(f"the mail has {len(content)} bytes, but the server accepts at most {limit}")
