"""Receipts for tests."""

from __future__ import annotations

from router.contracts import Removal


class NeutralReceipt:
    """Implements `contracts.Receipt` with the neutral answer to everything; tests override what they look at."""

    def expect(self, position: int, deliveries: int) -> None: ...

    def add(self, position: int, deliveries: int) -> None: ...

    def settle(self, position: int) -> None: ...

    def returned(self, position: int) -> None: ...

    def open(self, position: int) -> int:
        return 1

    def removal(self, position: int, *, whole: bool) -> Removal | None:
        return None

    def handed_over(self, position: int) -> None: ...

    def marked(self, position: int) -> None: ...

    def gone(self, position: int) -> None: ...

    def taken_over(self, position: int) -> None: ...
