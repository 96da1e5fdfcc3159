"""The public interface for plugins, which only exports names of other modules; floor 2."""

from router.config.scalars import Duration
from router.config.scalars import ServerUrl as RedisUrl
from router.contracts import Clock
from router.core.delivery.recipient_results import RecipientResults, Recipients
from router.core.delivery.responses import check_response, quote_response, retry_after
from router.core.delivery.shared_deliveries import batch_json_lines, batch_options
from router.core.egress import is_header_name, private_host, url_fault
from router.core.mailboxes import mailboxes
from router.core.recent import Recent
from router.errors import GoneError, PartialError, PermanentError, SinkError, TransientError
from router.escaping import escape
from router.events import Event, json_line, json_lines, timestamp
from router.hookspecs import API_VERSION, RegisterLookup, RegisterSink, hookimpl
from router.options import (
    Addresses,
    Condition,
    Html,
    Json,
    Key,
    OptionWarning,
    RedisTarget,
    Secret,
    SinkOptions,
    Template,
    Text,
    Url,
    is_placeholder,
    is_template,
)
from router.plugin_contracts import (
    Found,
    HttpClient,
    HttpResponse,
    LookupContext,
    LookupOptions,
    MessageMemory,
    RedisClient,
    Result,
    Sink,
    SinkContext,
    message_memory,
)

__all__ = [
    "API_VERSION",
    "Addresses",
    "Clock",
    "Condition",
    "Duration",
    "Event",
    "Found",
    "GoneError",
    "Html",
    "HttpClient",
    "HttpResponse",
    "Json",
    "Key",
    "LookupContext",
    "LookupOptions",
    "MessageMemory",
    "OptionWarning",
    "PartialError",
    "PermanentError",
    "Recent",
    "RecipientResults",
    "Recipients",
    "RedisClient",
    "RedisTarget",
    "RedisUrl",
    "RegisterLookup",
    "RegisterSink",
    "Result",
    "Secret",
    "Sink",
    "SinkContext",
    "SinkError",
    "SinkOptions",
    "Template",
    "Text",
    "TransientError",
    "Url",
    "batch_json_lines",
    "batch_options",
    "check_response",
    "escape",
    "hookimpl",
    "is_header_name",
    "is_placeholder",
    "is_template",
    "json_line",
    "json_lines",
    "mailboxes",
    "message_memory",
    "private_host",
    "quote_response",
    "retry_after",
    "timestamp",
    "url_fault",
]
