"""The calls of the library Apprise. All of them block. The first call loads all services, which takes seconds."""

from __future__ import annotations

from router.api import PermanentError, TransientError

from .quiet import make_quiet
from .targets import hidden

make_quiet()

import apprise  # noqa: E402  # the library already logs while it is imported

LONGEST_ERROR = 500
"""The largest number of characters of Apprise's own text in an error."""

LOG_BYTES = 64 * 1024
"""The largest number of bytes of Apprise's log that are kept for one call."""

_UNKNOWN = "Apprise does not know this service, or a part of the URL is missing"


def load() -> None:
    """Load the services, so that the first delivery does not wait for them."""
    fault_of("json://localhost")


def fault_of(url: str) -> str | None:
    """Return why a URL of the configuration can't be used, or None if the URL is usable. Nothing is sent.

    The text does not quote the URL.
    """
    try:
        _service(url)
    except PermanentError as error:
        return str(error)
    return None


def send(url: str, title: str, body: str) -> None:
    """Send one message to one URL.

    Raises `TransientError` if the service does not accept the message. Raises `PermanentError` if Apprise can't use the
    URL or the message.
    """
    failure: TransientError | PermanentError
    targets = apprise.Apprise(asset=_asset())
    targets.add(_service(url))
    try:
        result = targets.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT)
        if result:
            return
        logged = "; ".join(dict.fromkeys(entry.message for entry in result.logs()))
        failure = TransientError(_error_text(logged, url) or "the message was not accepted")
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        failure = PermanentError(_error_text(f"{type(error).__name__}: {error}", url))
    except Exception as error:  # noqa: BLE001  # a service of Apprise may raise anything
        failure = TransientError(_error_text(f"{type(error).__name__}: {error}", url))
    # Raised outside the handler. Inside, Python would attach the error of Apprise, which may contain the URL.
    raise failure


def _service(url: str) -> apprise.NotifyBase:
    """Return the service of a URL. Raises `PermanentError`, whose text has no part of the URL."""
    try:
        service = apprise.Apprise.instantiate(url, asset=_asset(), suppress_exceptions=False)
        fault = _UNKNOWN
    except Exception as error:  # noqa: BLE001  # a service of Apprise may raise anything
        service, fault = None, _error_text(str(error), url) or _UNKNOWN
    if service is None:
        raise PermanentError(fault)
    return service


def _asset() -> apprise.AppriseAsset:
    """Return the settings of Apprise.

    All work is done in the calling thread, nothing is stored on disk, and redirects are not followed. Only the URL sets
    time limits.
    """
    return apprise.AppriseAsset(
        async_mode=False,
        service_timeout=0,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        result_log_memory_size=LOG_BYTES,
        result_log_disk_size=0,
        http_redirects=False,
        pgp_autogen=False,
        pem_autogen=False,
    )


def _error_text(text: str, url: str) -> str:
    shown = hidden(text, url)
    return shown if len(shown) <= LONGEST_ERROR else f"{shown[:LONGEST_ERROR]}…"
