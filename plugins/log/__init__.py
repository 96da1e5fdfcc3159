"""Built-in sink `log`: writes each event to a file, a stream, the systemd journal or syslog on this machine.

`log_options` has the options and their checks. `line_writer` writes lines to files and streams; it uses `lines`,
`log_files` and `stream_job`. `datagram_writer` sends to the sockets of journald and syslog. `journal_entry` and
`syslog_message` make the datagrams. `log_sink` chooses the writer.
"""

from router.api import RegisterSink, hookimpl

from .log_options import LogOptions
from .log_sink import LogSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register the type `log`."""
    register("log", LogSink, options=LogOptions, queue="memory", concurrency=1)
