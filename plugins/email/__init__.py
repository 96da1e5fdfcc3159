"""Built-in sink `email`: sends each event as mail, over SMTP (RFC 5321) with STARTTLS, TLS or neither.

`mail_options` is what the configuration says, `mailbox` one address, `headers` and `mail` write the mail. `connections` are
those to the server, `smtp_sender` sends a mail on one of them, and `email_sink` says who has not got theirs.
"""

from router.api import RegisterSink, hookimpl

from .email_sink import EmailSink
from .mail_options import EmailOptions


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `email`."""
    register("email", EmailSink, options=EmailOptions)
