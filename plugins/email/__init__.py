"""Built-in sink `email`: sends each event as mail, over SMTP (RFC 5321) with STARTTLS, TLS or neither.

`mail_options` has the options, `host_names` checks a host name, and `mailbox` parses an address. `headers` and `mail`
write the mail. `connections` is the pool of connections to the server. `mail_connection` exchanges commands and replies
on one connection, and `smtp_sender` sends one mail. `mail_threads` remembers the first mail of each thread.
`email_sink` sends the mails of a delivery and reports the recipients that failed.
"""

from router.api import RegisterSink, hookimpl

from .email_sink import EmailSink
from .mail_options import EmailOptions


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register `email`."""
    register("email", EmailSink, options=EmailOptions)
