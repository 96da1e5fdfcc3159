"""What a list source has in hand of each list, and the receipts that say when an item is over; floor 4."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.broker.lists.list_store import Names, Taken
from router.contracts import Removal
from router.core.accounts.acks import Ledger


class Item:
    """An item in hand."""

    __slots__ = ("handed", "marking", "most", "payload", "proven", "since")

    def __init__(self, payload: bytes, most: int | None, since: float, *, handed: bool) -> None:
        self.payload = payload
        self.most = most
        """How many items may be in hand together with it, None where that does not matter."""
        self.since = since
        self.proven = False
        """Whether it is known that it did not end the process, though it may yet be in hand for long."""
        self.handed = handed
        """Whether it stands in the list of those whose deliveries to Redis queues stand there already."""
        self.marking = False
        """Whether it is on its way into that list."""


class List:
    """One of the lists of a source, and what is in hand of it.

    `removable` says whether it is in the router's own Redis, where a script may take the items that it hands over. `over`
    is called when something has to be told to Redis, `freed` when an item has left the hand.
    """

    def __init__(self, names: Names, *, removable: bool, over: Callable[[], None], freed: Callable[[], None]) -> None:
        self.channel = names.source.encode()
        self.names = names
        self.removable = removable
        self.recovered = False
        """Whether what the last run left in hand was put back."""
        self.items: dict[int, Item] = {}
        """What is in hand, by a number of ours."""
        self.listed = 0
        """How many items should stand in our lists, and those together that were handed over from there."""
        self.strange = False
        """Whether it was not so, and they have to be looked through."""
        self.settled: list[int] = []
        self.removing: list[int] = []
        """The batch of settled items that is being removed."""
        self.batch = 0
        self.innocent: list[int] = []
        """Items that were in hand when a process died, and did not end this one."""
        self.fault: str | None = None
        """What is wrong with the list itself."""
        self.again_at = 0.0
        self.suspects: dict[str, float] = {}
        """Peers without a lease, and since when."""
        self._over = over
        self._freed = freed

    def compare(self, taken: Taken, held: int) -> int:
        """Notice that our lists are not as they should be: an answer was lost, or somebody else has changed them.

        `held` were in hand when Redis was asked. Returns how many of them are gone from there.
        """
        if taken.listed == self.listed and taken.length <= held:
            return 0
        self.strange = True
        return max(0, min(self.listed - taken.listed, held - taken.length))

    def standing(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """The payloads in hand: those that stand among the handed over, those on their way there, the others."""
        sorts: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
        for item in self.items.values():
            sorts[0 if item.handed else 1 if item.marking else 2].append(item.payload)
        return sorts

    def settle(self, number: int) -> None:
        """An item is over, and to be removed."""
        self.settled.append(number)
        self._over()

    def came_back(self, number: int) -> None:
        """An item did not end the process."""
        self.items[number].proven = True
        self.innocent.append(number)
        self._over()

    def handed_over(self, number: int) -> None:
        """An item is over, and removed."""
        del self.items[number]
        self._freed()


class Receipt:
    """Implements `contracts.Receipt` for items that were taken together; `numbers` are theirs in the list's hand."""

    __slots__ = ("_ledger", "_list", "_numbers", "_untried")

    def __init__(self, each: List, numbers: Sequence[int]) -> None:
        self._ledger = Ledger(len(numbers))
        self._list = each
        self._numbers = numbers
        # Deliveries of which no attempt has come back; only of items under suspicion that is of interest.
        self._untried = [0] * len(numbers) if any(each.items[one].most is not None for one in numbers) else None

    def expect(self, position: int, deliveries: int) -> None:
        """Implements `contracts.Receipt`."""
        if self._untried is not None and self._item(position).most is not None:
            self._untried[position] = deliveries
        if self._ledger.expect(position, deliveries):
            self._list.settle(self._numbers[position])

    def add(self, position: int, deliveries: int) -> None:
        """Implements `contracts.Receipt`."""
        self._ledger.add(position, deliveries)

    def settle(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        if self._ledger.settle(position):
            self._list.settle(self._numbers[position])
        else:
            self.returned(position)

    def returned(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        if self._untried is None or not self._untried[position]:
            return
        self._untried[position] -= 1
        if not self._untried[position]:
            self._list.came_back(self._numbers[position])

    def open(self, position: int) -> int:
        """Implements `contracts.Receipt`."""
        return self._ledger.open(position)

    def removal(self, position: int, *, whole: bool) -> Removal | None:
        """Implements `contracts.Receipt`."""
        if not self._list.removable:
            return None
        item, names = self._item(position), self._list.names
        if item.handed:
            return Removal("none", "", "", "")
        item.marking = not whole
        if whole:
            return Removal("lrem", names.processing, names.settled, item.payload, names.counts)
        return Removal("half", names.processing, names.handed, item.payload, names.settled)

    def handed_over(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        if self._ledger.settle(position):
            self._list.handed_over(self._numbers[position])

    def marked(self, position: int) -> None:
        """Implements `contracts.Receipt`."""
        item = self._item(position)
        item.marking, item.handed = False, True

    def gone(self, position: int) -> None:
        """Implements `contracts.Receipt`: no script says that of an item."""

    def taken_over(self, position: int) -> None:
        """Implements `contracts.Receipt`: an item that another router has put back is not in our lists any more."""

    def _item(self, position: int) -> Item:
        return self._list.items[self._numbers[position]]
