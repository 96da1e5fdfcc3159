"""The mail sink: builds and sends the mail of each delivery, and reports the recipients that failed.

Each recipient fails on its own: all recipients that a `PartialError` does not name have received the mail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from router.api import Event, PartialError, PermanentError, Recent, Sink, SinkContext, SinkError, TransientError

from .mail import Failure, Mail
from .mail_options import EmailOptions
from .mail_threads import Threads

if TYPE_CHECKING:
    from .smtp_sender import SmtpSender

REMEMBERED = 1000  # the maximum number of remembered deliveries that were interrupted between two mails


class EmailSink(Sink):
    """The mail sink: sends each event as one mail, or as one to each address."""

    _sender: SmtpSender
    _threads: Threads

    def __init__(self, options: EmailOptions) -> None:
        self._options = options
        self._reached = Recent(
            REMEMBERED
        )  # the recipients that received their mail before the interruption, by delivery

    async def open(self, context: SinkContext) -> None:
        """Create the sender; nothing is sent."""
        # Imported here, because aiosmtplib is slow to import and a router without mail does not need it.
        from .connections import Connections  # noqa: PLC0415
        from .smtp_sender import SmtpSender  # noqa: PLC0415

        options = self._options
        self._threads = Threads(context)
        self._sender = SmtpSender(await Connections.open(context, options))
        if options.tls == "none" and options.login and options.host not in {"localhost", "127.0.0.1", "::1"}:
            context.log.warning("the mail password crosses the network unencrypted (tls: none)", host=options.host)

    async def deliver(self, event: Event, options: EmailOptions) -> str | None:
        """Send one event; return the server's reply when it accepted the mail.

        Raises the error of the delivery if a recipient did not receive the mail. A `PartialError` names these
        recipients.
        """
        mail = _written(event, options)
        separate = bool(options.separate)
        if not mail.recipients and not mail.faults:
            raise PermanentError("there is no address to send to")
        groups = [[box] for box in mail.recipients] if separate else [mail.recipients]
        if options.thread:
            mail.answers = await self._threads.find(options.thread, mail)
        failures = dict(mail.faults)
        reached: set[str] = self._reached.pop(event.key, set())
        try:
            for group in groups:
                missing = [box for box in group if box.text not in reached]
                failed = await self._sender.send(mail, missing, separate=separate) if missing else {}
                failures.update(failed)
                reached.update(box.text for box in missing if box.text not in failed)
        except (TransientError, SinkError) as error:  # there is no connection, so the other mails would fail too
            settled = reached | failures.keys()
            failures.update({box.text: error for box in mail.recipients if box.text not in settled})
        except BaseException:
            self._remember(event, reached)
            raise
        if options.thread and reached:
            try:
                await self._threads.keep(options.thread, mail, reached, separate=separate)
            except BaseException:
                self._remember(event, reached)
                raise
        _settle(failures, reached)
        return ", ".join(mail.replies) or None

    def _remember(self, event: Event, reached: set[str]) -> None:
        """Remember recipients that the next attempt must skip."""
        if reached:
            self._reached[event.key] = reached

    async def close(self) -> None:
        """End every connection with QUIT."""
        await self._sender.close()


def _written(event: Event, options: EmailOptions) -> Mail:
    """Return the mail of a delivery.

    Raises `PermanentError` for any error, because the next attempt would build the same mail.
    """
    try:
        return Mail(event, options)
    except PermanentError:
        raise
    except Exception as error:  # noqa: BLE001  # a parser may raise any class of error
        raise PermanentError(f"the mail can't be written: {type(error).__name__}: {error}") from None


def _settle(failures: Mapping[str, Failure], reached: set[str]) -> None:
    """Raise the failures of a delivery, if any: one error for all recipients, or a `PartialError`."""
    if not failures:
        return
    errors = list(failures.values())
    if not reached:
        blame = next((error for error in errors if isinstance(error, SinkError)), errors[0])
        if isinstance(blame, SinkError) or all(error is blame for error in errors):
            raise blame
    raise PartialError(
        {
            address: TransientError(str(error), retry_after=error.retry_after)
            if isinstance(error, SinkError)
            else error
            for address, error in failures.items()
        }
    )
