"""A mapping of bounded size; floor 2, pure."""

from __future__ import annotations

from typing import Any


class Recent(dict[str, Any]):
    """A mapping of at most `most` keys.

    Beyond this number, the oldest key is removed. A key that is set again becomes the newest.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: str, value: Any) -> None:
        self.pop(key, None)
        super().__setitem__(key, value)
        if len(self) > self.most:
            del self[next(iter(self))]
