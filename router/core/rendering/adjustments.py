"""The changes to a sink's options for a test message: a mark in its texts, and other recipients; floor 2."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from pydantic import BaseModel

from router.core.rendering.addresses import address_of
from router.core.rendering.plan import escape_of
from router.core.rendering.walk import Leaf, Marker, Part, Path, walk
from router.options import Addresses, Html, SinkOptions, Text, Url, is_template

_BODY = re.compile(r"<body\b[^<>]*>", re.IGNORECASE)


def marked(options: SinkOptions, mark: str) -> SinkOptions:
    """Return rendered options with `mark` and a space put before each text for people. Blank texts stay blank.

    The mark is escaped like a value of the event, so that it is plain text in the markup of every service. In HTML, the
    mark follows the tag `<body>`, if the text has one.
    """

    def leaf(marker: Marker, value: object, _path: Path, model: BaseModel) -> Part:
        if not isinstance(marker, Text) or not isinstance(value, str) or not value.strip():
            return Part(value, None)
        if isinstance(marker, Html):
            body = _BODY.search(value)
            at = body.end() if body else 0
            return Part(f"{value[:at]}{mark} {value[at:]}", None)
        escaped = mark if marker.escape is None else escape_of(marker.escape, model, options)(mark)
        return Part(f"{escaped} {value}", None)

    return _changed(options, leaf)


def destinations_of_event(options: SinkOptions) -> list[str]:
    """Return the names of the options with which an event chooses the destination of a message.

    The value of such an option is a recipient, a URL, a Redis channel or a Redis key, and contains a template.
    """
    found = [target.option for target in options.redis_targets if is_template(target.name)]

    def leaf(marker: Marker, value: object, path: Path, _model: BaseModel) -> Part:
        if isinstance(marker, Url) or (isinstance(marker, Addresses) and marker.recipients):
            texts = value if isinstance(value, list) else [value]
            if any(is_template(str(text)) for text in texts):
                found.append(str(path[0]))
        return Part(value, None)

    walk(options, leaf)
    return list(dict.fromkeys(found))


def readdressed(options: SinkOptions, addresses: Sequence[str]) -> SinkOptions | None:
    """Return options with other recipients; None if the options have none.

    The addresses replace those of the first field of recipients that is not empty. The other fields of recipients
    become empty.
    """
    replaced = False

    def leaf(marker: Marker, value: object, _path: Path, _model: BaseModel) -> Part:
        nonlocal replaced
        if not isinstance(marker, Addresses) or not marker.recipients or not value:
            return Part(value, None)
        first, replaced = not replaced, True
        return Part(list(addresses) if first else [], None)

    changed = _changed(options, leaf)
    return changed if replaced else None


def restricted(options: SinkOptions, allowed: Collection[str]) -> SinkOptions:
    """Return rendered options that keep only the allowed recipients."""

    def leaf(marker: Marker, value: object, _path: Path, _model: BaseModel) -> Part:
        if not isinstance(marker, Addresses) or not marker.recipients or not isinstance(value, list):
            return Part(value, None)
        return Part([each for each in value if address_of(each, marker) in allowed], None)

    return _changed(options, leaf)


def _changed(options: SinkOptions, leaf: Leaf) -> SinkOptions:
    changed: SinkOptions = walk(options, leaf).value
    return changed
