"""The calls of the library Apprise. All of them block. The first call loads all services, which takes seconds."""

from __future__ import annotations

from router.api import PermanentError, TransientError

from .quiet import make_quiet
from .targets import hidden

make_quiet()

import apprise  # noqa: E402  # it logs already while it is imported

LONGEST_TOLD = 500
"""The largest number of characters of Apprise's own text in an error."""

LOG_BYTES = 64 * 1024
"""The largest number of bytes of Apprise's log that are kept for one call."""

_UNKNOWN = "Apprise knows no such service, or its URL lacks a part"


def load() -> None:
    """Load the services, so that the first delivery does not wait for them."""
    fault_of("json://localhost")


def fault_of(url: str) -> str | None:
    """Return why a URL of the configuration can't be used, without quoting it; None if it can. Nothing is sent."""
    try:
        _service(url)
    except PermanentError as error:
        return str(error)
    return None


def send(url: str, title: str, body: str) -> None:
    """Send one message to one URL. Raises `TransientError` if it is not accepted, `PermanentError` if it can't be sent."""
    failure: TransientError | PermanentError
    targets = apprise.Apprise(asset=_asset())
    targets.add(_service(url))
    try:
        result = targets.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT)
        if result:
            return
        told = "; ".join(dict.fromkeys(entry.message for entry in result.logs()))
        failure = TransientError(_told(told, url) or "the message was not accepted")
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        failure = PermanentError(_told(f"{type(error).__name__}: {error}", url))
    except Exception as error:  # noqa: BLE001  # a service of Apprise may raise anything
        failure = TransientError(_told(f"{type(error).__name__}: {error}", url))
    raise failure  # outside the handler: else the error of Apprise, which may hold the URL, would be its context


def _service(url: str) -> apprise.NotifyBase:
    """Return the service of a URL. Raises `PermanentError`, whose text has no part of the URL."""
    try:
        service = apprise.Apprise.instantiate(url, asset=_asset(), suppress_exceptions=False)
        told = _UNKNOWN
    except Exception as error:  # noqa: BLE001  # as above
        service, told = None, _told(str(error), url) or _UNKNOWN
    if service is None:
        raise PermanentError(told)
    return service


def _asset() -> apprise.AppriseAsset:
    """Return the settings of Apprise: everything runs in this thread, nothing is stored on disk, redirects are not followed, and only the URL sets time limits."""
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


def _told(text: str, url: str) -> str:
    told = hidden(text, url)
    return told if len(told) <= LONGEST_TOLD else f"{told[:LONGEST_TOLD]}…"
