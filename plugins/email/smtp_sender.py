"""Sending one mail on one connection: MAIL, RCPT for each recipient, DATA; on a new connection if a reused one is dead."""

from __future__ import annotations

import aiosmtplib

from router.api import PermanentError, SinkError, TransientError

from .connections import CLOSING, Client, Connections, drop
from .mail import Failure, Mail
from .mailbox import Mailbox, quoted

# Answers to MAIL that may concern this connection only: too many mails on it, or too long a pause.
WORN_OUT = frozenset({CLOSING, 452, 454})
IDLE_TOO_LONG = "4.4.2"  # RFC 3463: "bad connection", said with 421 or 451


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
        """Send one mail; return the recipients that failed with their errors. Raises if there is no connection.

        A reused connection may have died while idle, or the server may accept no more mails on it. If the connection fails
        before DATA, the mail is sent on a new connection, and no attempt is counted.
        """
        fresh = False
        worn: Client | None = None
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
                drop(smtp)
                raise
            else:
                if worn is not None and smtp.mails:
                    self._connections.worn_out(worn)
                taken = len(failed) < len(group)  # after an accepted mail the connection needs no RSET
                await self._put_back(smtp, clean=taken)
                return failed

    async def _put_back(self, smtp: Client, *, clean: bool) -> None:
        """Keep a connection for the next mail, if it is still usable."""
        try:
            if not clean and smtp.is_connected:
                await smtp.say("RSET")
        except (aiosmtplib.SMTPException, OSError):
            drop(smtp)
        except BaseException:
            drop(smtp)
            raise
        else:
            self._connections.give(smtp)

    async def _transaction(
        self, smtp: Client, mail: Mail, group: list[Mailbox], *, separate: bool
    ) -> dict[str, Failure]:
        """Run MAIL, RCPT for each recipient, and DATA. Raises `_LostError` if the connection ends before DATA."""
        failed = _unspeakable(smtp, [mail.sender, *mail.reply_to], group)
        group = [box for box in group if box.text not in failed]
        if not group:
            return failed
        content = mail.content(group, separate=separate)
        error: Failure | None = _too_large(smtp, content)
        if error is None:
            try:
                failed |= await self._envelope(smtp, mail, group, len(content))
            except (TransientError, PermanentError, SinkError) as refused:
                error = refused
            else:
                group = [box for box in group if box.text not in failed]
                error = await self._hand_over(smtp, mail, content) if group else None
        return failed | {box.text: error for box in group if error is not None}

    async def _envelope(self, smtp: Client, mail: Mail, group: list[Mailbox], size: int) -> dict[str, Failure]:
        """Send MAIL and RCPT; return the refused recipients. Raises `_LostError`, or an error common to all recipients."""
        judge = self._connections.judge
        refused: dict[str, Failure] = {}
        parameters = [f"SIZE={size}"] if smtp.supports_extension("size") else []
        if any(box.international for box in (mail.sender, *mail.reply_to, *group)):
            parameters += ["SMTPUTF8", "BODY=8BITMIME"]
        try:
            await smtp.say("MAIL", f"FROM:<{mail.sender.address}>", *parameters)
            smtp.mails += 1
            for box in group:
                try:
                    await smtp.say("RCPT", f"TO:<{box.address}>")
                except aiosmtplib.SMTPResponseException as error:
                    failure = judge(error, mail.sender, box)
                    if error.code == CLOSING:
                        raise failure from None
                    refused[box.text] = failure
        except aiosmtplib.SMTPResponseException as error:
            failure = judge(error, mail.sender)
            worn_out = error.code in WORN_OUT or (error.code == 451 and error.message.startswith(IDLE_TOO_LONG))
            raise _WornOutError(str(failure)) if worn_out and isinstance(failure, TransientError) else failure from None
        except (aiosmtplib.SMTPException, OSError):
            raise _LostError(f"{self._connections.server} closed the connection before it had the mail") from None
        return refused

    async def _hand_over(self, smtp: Client, mail: Mail, content: bytes) -> Failure | None:
        """Send the mail itself; return the error if the server refuses it."""
        try:
            mail.replies.append(self._connections.quoted(*await smtp.hand_over(content)))
        except aiosmtplib.SMTPResponseException as error:
            if error.code == CLOSING:
                drop(smtp)
            return self._connections.judge(error)
        except (aiosmtplib.SMTPException, OSError):
            drop(smtp)
            server = self._connections.server
            return TransientError(f"{server} closed the connection before it confirmed the mail: it may come twice")
        return None


def _unspeakable(smtp: Client, authors: list[Mailbox], group: list[Mailbox]) -> dict[str, Failure]:
    """Return errors for the recipients that need SMTPUTF8, if the server does not support it."""
    if smtp.supports_extension("smtputf8"):
        return {}
    culprits = {box.text: next((one for one in (*authors, box) if one.international), None) for box in group}
    return {
        text: PermanentError(f"{quoted(culprit.text)} needs SMTPUTF8, which the mail server lacks")
        for text, culprit in culprits.items()
        if culprit is not None
    }


def _too_large(smtp: Client, content: bytes) -> PermanentError | None:
    """Return the error of a mail that is larger than the server's limit (RFC 1870; 0 means no limit)."""
    limit = smtp.esmtp_extensions.get("size", "").strip()
    if not limit.isdecimal() or not 0 < int(limit) < len(content):
        return None
    return PermanentError(f"the mail has {len(content)} bytes, the server takes {limit}")
