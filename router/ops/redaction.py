"""Redaction of secrets in texts that the router writes; floor 4."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Annotated, Any
from urllib.parse import quote, quote_plus

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from router.core.rendering.addresses import address_of
from router.core.rendering.walk import kind_of
from router.errors import Reason, text_of
from router.options import Addresses, Text

HIDDEN = "***"

SHORT = 8
"""The length in characters below which a secret is hidden only as a whole word. A short secret may also be a part of
ordinary words."""

_USERINFO = r"(?<=://)[^/\s@?#\"'<>]*(?=@)"
_ESCAPE = re.compile("%[0-9A-F]{2}")
_UNTOUCHED = frozenset({"level", "timestamp", "logger", "event_id", "source", "channel", "pattern", "route", "sink"})
_REASONS = frozenset(map(str, Reason))


class Redactor:
    """Replaces secrets with `***`: the secrets passed to `hide`, in every encoding, and the user and password in any
    URL.

    A secret of at least `SHORT` characters is found anywhere: plain, escaped as in JSON and Python strings,
    percent-encoded, and inside base64. (`Authorization: Basic …` encodes user and password together.) A shorter secret
    is hidden only as a whole word, and never in the keys of a mapping.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._pattern = self._in_keys = re.compile(_USERINFO)
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Hide exactly these secrets from now on. Empty strings are ignored."""
        forms = {form for secret in secrets if secret for form in forms_of(secret)}
        self._pattern = re.compile("|".join([*expressions(forms), _USERINFO]))
        long = (form for form in forms if len(form) >= SHORT)
        self._in_keys = re.compile("|".join([*expressions(long), _USERINFO]))

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        return self._pattern.sub(HIDDEN, text)

    def value(self, value: Any) -> Any:
        """Return the value with all its strings redacted.

        An object of an unknown type is replaced by its redacted `repr`.
        """
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(str(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self.text(bytes(value).decode("utf-8", "backslashreplace"))
        if isinstance(value, Mapping):
            return {self._in_keys.sub(HIDDEN, str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        return self.text(_text(value))

    def __call__(self, _logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Redact the fields of a log line (structlog processor).

        Fields such as `level`, `source` and `sink`, and the reasons of `errors.Reason`, are not redacted.
        """
        for key, value in fields.items():
            if key not in _UNTOUCHED and not (key == "reason" and value in _REASONS):
                fields[key] = self.value(value)
        return fields


def _text(value: Any) -> str:
    if isinstance(value, BaseException):
        return text_of(value)
    return str(value) if isinstance(value, os.PathLike) else repr(value)


def expressions(forms: Iterable[str]) -> list[str]:
    """Return regular expressions for these forms of secrets, the longest first.

    A short form matches only a whole word.
    """
    longest_first = sorted(forms, key=len, reverse=True)
    return [re.escape(form) if len(form) >= SHORT else rf"(?<!\w){re.escape(form)}(?!\w)" for form in longest_first]


def forms_of(secret: str) -> set[str]:
    """Return the forms in which a text may contain a secret: unchanged, or escaped as in a string of JSON or Python.

    For a secret of at least `SHORT` characters, its forms in URLs and in base64 are returned too.
    """
    forms = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    if len(secret) >= SHORT:
        encoded = secret.encode("utf-8", "surrogateescape")
        forms |= {quote(encoded), quote(encoded, safe=""), quote_plus(encoded)}
        forms |= {_ESCAPE.sub(lambda escape: escape[0].lower(), form) for form in forms}
        forms |= _in_base64(encoded)
    return forms


def _in_base64(secret: bytes) -> set[str]:
    """Return the base64 characters that depend only on the secret, for each of the three possible alignments.

    Base64 encodes three bytes as four characters. So the characters at the edges also depend on neighbouring bytes.
    """
    forms = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret)
        begin = (0, 2, 3)[before]
        end = (before + len(secret)) * 8 // 6
        inner = encoded[begin:end].decode()
        forms |= {inner, inner.translate({ord("+"): "-", ord("/"): "_"})}
    return forms


def plain_options(value: Any, *, whole: bool = False) -> Any:
    """Return the options that were set, and the texts for people, as plain values. Credentials are replaced by `***`.

    A recipient may be a mapping, or a URL with credentials. Such a recipient is replaced by its address if `whole` is
    False.
    """
    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else ""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            fields[name].alias or name: plain_options(
                getattr(value, name) if whole else _addressed(fields[name], getattr(value, name)), whole=whole
            )
            for name in fields
            if name in value.model_fields_set or _is_message(fields[name], getattr(value, name))
        }
    if isinstance(value, Mapping):
        return {key: plain_options(each, whole=whole) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_options(each, whole=whole) for each in value]
    return value


def _is_message(field: FieldInfo, value: Any) -> bool:
    """Return whether the value of a field is a text for people. Such a text is sent even if it is the default."""
    return isinstance(value, str) and bool(value) and isinstance(_marker(field), Text)


def _marker(field: FieldInfo) -> Any:
    """Return the marker in the annotation of a field, or None."""
    return kind_of(Annotated[field.annotation, None, *field.metadata])[1]


def _addressed(field: FieldInfo, value: Any) -> Any:
    """Return the value of a field. If recipients have more data than an address, only their addresses are returned."""
    marker = _marker(field)
    if not isinstance(marker, Addresses) or marker.known_by is None or not isinstance(value, list):
        return value
    return [address_of(each, marker) for each in value]
