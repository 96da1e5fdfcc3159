"""The scalars of a configuration: durations, sizes, rates, addresses, names; floor 1.

Durations are seconds (float), sizes are bytes (int).
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import durationpy
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from router.config import redis_url
from router.options import Secret

NAME = r"[A-Za-z0-9_.-]{1,64}"
_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+")
_LONGEST = 100 * 365 * 86400.0
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
SMALLEST_READ_AHEAD, LARGEST_READ_AHEAD = 1024**2, 16 * 1024**3
OFF = "off"
"""The value of `admin`, or of `admin.listen`, that turns the HTTP interface off."""
_sizes = TypeAdapter(ByteSize)


def seconds_of(value: object) -> float:
    """Return the seconds of a duration such as `1m30s`. Raises `ValueError` for any other value."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a duration; write a number with its unit, such as 500ms, 30s, 5m, 24h or 7d"
        )
    try:
        seconds = durationpy.from_str(value).total_seconds()
    except (durationpy.DurationError, OverflowError):
        seconds = _LONGEST + 1
    if seconds > _LONGEST:
        raise ValueError(f"{value!r} is longer than 100 years; write a shorter duration")
    return seconds


def duration_text(seconds: float) -> str:
    """Return a duration as it is written in a configuration: 24h, 90s, 500ms."""
    if seconds != int(seconds):
        return f"{seconds * 1000:g}ms"
    unit, size = next(  # written as 24h and not as 1d, as 60s and not as 1m
        (unit, size) for unit, size in _UNITS if seconds % size == 0 and (seconds > size or size == 1)
    )
    return f"{int(seconds) // size}{unit}"


def _size(value: object) -> int:
    wrong = ValueError(f"{value!r} is not a size; write a number of bytes with its unit, such as 512KiB, 1MiB or 64MiB")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise wrong
    try:
        size = int(_sizes.validate_python(value))
    except (ValidationError, OverflowError, ValueError):
        raise wrong from None
    if not 0 < size < 2**63:
        raise ValueError(f"{value!r} is not a valid size; it must be above zero and below 8EiB")
    return size


def _size_text(size: int) -> str:
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _read_ahead(size: int) -> int:
    """Return a size in bytes if it is allowed for a read-ahead. Raises `ValueError` otherwise."""
    if not SMALLEST_READ_AHEAD <= size <= LARGEST_READ_AHEAD:
        bounds = f"from {_size_text(SMALLEST_READ_AHEAD)} to {_size_text(LARGEST_READ_AHEAD)}"
        raise ValueError(f"{_size_text(size)} is outside the allowed range; write a size {bounds}")
    return size


def _zone(value: str) -> str:
    if value == "UTC":  # needs no time zone database
        return value
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if not available_timezones():
            message = f"{value!r} can't be used, because this system has no time zone data; install the package tzdata, or write UTC"
            raise ValueError(message) from None
        raise ValueError(f"{value!r} is not a time zone; write a name such as UTC or Europe/Berlin") from None
    return value


def _server_url(value: str) -> str:
    """Return the URL of a Redis server if it is valid. No error quotes the URL, because it may hold a password."""
    if value == "embedded":
        raise ValueError("`embedded` is allowed only in `redis.url`; to use the embedded server here, remove `url`")
    return _redis_url(value)


def _redis_url(value: str) -> str:
    wrong = None if value == "embedded" else redis_url.fault(value)
    if wrong:
        raise ValueError(wrong)
    return value


def dotted(value: str) -> str:
    """Return a dotted path into a payload, such as `order.id`, if it is valid. Raises `ValueError` otherwise."""
    if not re.fullmatch(r"[^.\s]+(\.[^.\s]+)*", value):
        raise ValueError(f"{value!r} is not a path in a payload; write names with dots between them, such as order.id")
    return value


def proxy_url(value: str) -> str:
    """Return the URL of an HTTP proxy if it is valid or empty. Raises `ValueError` otherwise."""
    try:
        url = urlsplit(value)
        good = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:
        good = False
    if value and not (good and re.fullmatch(r"[!-~]+", value)):
        raise ValueError(redis_url.misread(value) or "a proxy must be a URL, such as http://HOST:3128")
    return value


class Address(NamedTuple):
    """The address of the HTTP interface: the path of a unix socket, or a host and a port."""

    path: str | None
    host: str = ""
    port: int = 0

    @property
    def local(self) -> bool:
        """True if only this machine can reach the address."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:  # a name may resolve to another address later
            return False

    def __str__(self) -> str:
        """Return the address as it is written in the configuration."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(listen: str) -> Address:
    """Parse `HOST:PORT` or `unix:/path`. Raises `ValueError` for any other string."""
    if listen.startswith("unix:"):
        path = listen.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/") or path == "/":
            raise ValueError("write the full path of the socket, such as unix:/run/event-router/admin.sock")
        if not redis_url.nameable(path):
            raise ValueError(redis_url.NO_SUCH_NAME)
        return Address(path)
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
        plain = parts.netloc == listen and "@" not in listen
    except ValueError:
        host, port, plain = None, None, False
    if not plain or not host or not port:
        raise ValueError("write HOST:PORT (127.0.0.1:9464, or 0.0.0.0:9464 for every address), unix:/path, or `off`")
    return Address(None, host, port)


def listen_address(value: str) -> str:
    """Return an address to listen on, or `off`, if it is valid. Raises `ValueError` otherwise."""
    if value != OFF:
        address(value)
    return value


def admin_token(value: Secret) -> Secret:
    """Return a bearer token if it is printable ASCII without spaces. Raises `ValueError` otherwise."""
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError(
            "a token is sent in an HTTP header, so it must be printable ASCII without spaces, and not empty"
        )
    return value


def distinct(names: list[str]) -> list[str]:
    """Return a list of names if all names are different. Raises `ValueError` otherwise."""
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"{name!r} appears twice in this list; remove one of the two")
    return names


class Rate(NamedTuple):
    """A rate limit: at most `number` deliveries in a period of `seconds`."""

    number: int
    seconds: float


_RATE = re.compile(r"([1-9][0-9]{0,5})/(s|min|h)")
_PERIODS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def _rate(value: object) -> object:
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f"{value!r} is not a rate; write a number of deliveries per second, minute or hour, such as 10/s, 30/min or 100/h (at most 999999)"
        )
    return Rate(int(found[1]), _PERIODS[found[2]])


def _rate_text(rate: Rate) -> str:
    return f"{rate.number}/{next(unit for unit, seconds in _PERIODS.items() if seconds == rate.seconds)}"


def _expires(value: object) -> object:
    """Return a duration in seconds, or a template, which is any text with `{{`."""
    if isinstance(value, str) and "{{" in value:
        return value
    try:
        seconds = seconds_of(value)
    except ValueError as error:
        raise ValueError(f'{error}; or write a template that gives a time: "{{{{ payload.expires_at }}}}"') from None
    if not seconds:
        raise ValueError(f"{value!r} leaves no time for a delivery; write a longer duration, such as 15m")
    return seconds


def _expires_text(value: float | str) -> str:
    return value if isinstance(value, str) else duration_text(value)


Duration = Annotated[
    float,
    BeforeValidator(seconds_of),
    PlainSerializer(duration_text, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": rf"^{_DURATION.pattern}$", "examples": ["30s"]}),
]
"""A duration in seconds, written as a number with its unit: `500ms`, `30s`, `1m30s`, `24h`, `7d`."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(_size_text, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}], "examples": ["1MiB"]}),
]
"""A size in bytes, written as a number, or as a number with its unit: `64MiB`."""

ReadAhead = Annotated[Size, AfterValidator(_read_ahead)]
"""A size in bytes that is allowed for a read-ahead."""

RateLimit = Annotated[
    Rate,
    BeforeValidator(_rate),
    PlainSerializer(_rate_text, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^{_RATE.pattern}$", "examples": ["30/min"]}),
]
"""A rate limit, written as a number per period: `10/s`, `30/min`, `100/h`."""

Expires = Annotated[
    float | str,
    BeforeValidator(_expires),
    PlainSerializer(_expires_text, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": rf"^{_DURATION.pattern}$|\{{\{{", "examples": ["15m", "{{ payload.expires_at }}"]}
    ),
]
"""The expiry of deliveries: a duration in seconds, or a template that renders to a time."""

Name = Annotated[str, StringConstraints(pattern=rf"^{NAME}$")]
Glob = Annotated[str, StringConstraints(min_length=1)]
Key = Annotated[str, StringConstraints(min_length=1)]
Zone = Annotated[str, AfterValidator(_zone)]
_REDIS_URL, _SERVER_URL = AfterValidator(_redis_url), AfterValidator(_server_url)
RedisUrl = Annotated[str, _REDIS_URL]
"""The URL of the router's own Redis, or `embedded`."""

ServerUrl = Annotated[str, _SERVER_URL]
"""The URL of a Redis server."""

REDIS_URLS: tuple[object, ...] = (_REDIS_URL, _SERVER_URL)
"""The validators of `RedisUrl` and `ServerUrl`. A type whose metadata has one of them is a URL of Redis."""
