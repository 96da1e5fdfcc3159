"""Reading CloudEvents 1.0 in structured JSON, with the data kept byte for byte; pure.

The envelope is a JSON object with the context attributes `specversion`, `id`, `source` and `type`. The event's content
is in `data` (a JSON value) or in `data_base64`. The specification is the JSON event format of
https://github.com/cloudevents/spec, version 1.0.2.
"""

from __future__ import annotations

import binascii
from typing import Any, NamedTuple

import msgspec

from router.core.ids import portable
from router.errors import Reason, RejectedError
from router.escaping import cut
from router.events import JSON, TEXT, decode

VERSION = "1.0"
REQUIRED = ("specversion", "id", "source", "type")
_CONTENT = frozenset({"data", "data_base64"})
_SHOWN = 80  # the maximum number of bytes of an attribute's name in a message

_open = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Opened(NamedTuple):
    """The contents of an envelope.

    `id` is the event's id, `<source>#<id>`. `headers` are the attributes as text. The header `ce-id` is the attribute
    `id` alone. `data` are the bytes of the content in the `format` (`json` or `text`).
    """

    id: str
    headers: dict[str, str]
    data: bytes
    format: str


def open_envelope(raw: bytes) -> Opened:
    """Open an envelope.

    The data is not parsed here, so invalid JSON in it is found later, when the payload is decoded. Raises
    `RejectedError` (`decode`) for an invalid CloudEvent. Raises `msgspec.DecodeError`, `UnicodeDecodeError` or
    `RecursionError` for invalid JSON.
    """
    try:
        fields = _open(raw)
    except msgspec.ValidationError:
        raise _wrong("a structured CloudEvent must be a JSON object") from None
    attributes = {name: text for name, value in fields.items() if (text := _attribute(name, value)) is not None}
    _check_required(attributes)
    data, format_ = _content(fields, attributes.get("datacontenttype"))
    id_ = attributes["id"]
    return Opened(portable(f"{attributes['source']}#{id_}"), attributes | {"ce-id": id_}, data, format_)


def _wrong(detail: str, told: str | None = None) -> RejectedError:
    return RejectedError(Reason.DECODE, f"not a CloudEvent: {detail}", f"not a CloudEvent: {told or detail}")


def _attribute(name: str, raw: msgspec.Raw) -> str | None:
    """Return an attribute as text.

    Return None for the content (`data`, `data_base64`). Also return None for null, because by the specification null
    means that the attribute is absent.
    """
    if name in _CONTENT:
        return None
    value: Any = decode(bytes(raw), JSON)
    if value is None or isinstance(value, str):
        return value
    if name in REQUIRED:
        raise _wrong(f"`{name}` must be a string")
    if isinstance(value, dict | list):
        must = "must be a string, a number, true or false"
        raise _wrong(f"the attribute {cut(name, _SHOWN)!r} {must}", f"each attribute {must}")
    return bytes(raw).decode()


def _check_required(attributes: dict[str, str]) -> None:
    if missing := [f"`{name}`" for name in REQUIRED if name not in attributes]:
        raise _wrong(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if attributes["specversion"] != VERSION:
        only = f"but only {VERSION!r} is supported"
        raise _wrong(
            f"`specversion` is {attributes['specversion'][:20]!r}, {only}",
            f"`specversion` has another value, {only}",
        )
    if empty := [f"`{name}`" for name in REQUIRED if not attributes[name]]:
        raise _wrong(f"{', '.join(empty)} must not be empty")


def _content(fields: dict[str, msgspec.Raw], kind: str | None) -> tuple[bytes, str]:
    """Return the bytes of the data, and their format. Missing data is null."""
    data = _present(fields.get("data"))
    encoded = _present(fields.get("data_base64"))
    if encoded is not None:
        if data is not None:
            raise _wrong("`data` and `data_base64` can't be used together")
        return _decoded(encoded), JSON if _is_json(kind) else TEXT
    if data is None:
        return b"null", JSON
    if data[:1] == b'"' and not _is_json(kind):
        # `datacontenttype` is not JSON, so the content is the string itself and not its JSON form.
        return decode(data, JSON).encode(), TEXT
    return data, JSON


def _present(raw: msgspec.Raw | None) -> bytes | None:
    """Return the bytes of a member; None if it is absent or null."""
    return None if raw is None or bytes(raw) == b"null" else bytes(raw)


def _decoded(encoded: bytes) -> bytes:
    text = decode(encoded, JSON)
    if not isinstance(text, str):
        raise _wrong("`data_base64` must be a string")
    try:
        return binascii.a2b_base64(text.encode(), strict_mode=True) if text else b""
    except binascii.Error as error:
        raise _wrong(f"`data_base64` is not base64: {str(error).lower()}") from None


def _is_json(kind: str | None) -> bool:
    """Return whether a media type is JSON. An absent media type means JSON by the specification."""
    if kind is None:
        return True
    subtype = kind.partition(";")[0].strip().lower().rpartition("/")[2]
    return subtype == "json" or subtype.endswith("+json")
