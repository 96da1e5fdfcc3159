"""Mails that answer the first one with the same key, by the option `thread`."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from router.api import SinkContext, message_memory

from .mail import Mail


class Threads:
    """The first mail of each thread, by key and address: its Message-ID."""

    def __init__(self, context: SinkContext) -> None:
        self._context = context

    async def find(self, key: str, mail: Mail) -> dict[str, str]:
        """Return the first mail by the address of each recipient that got one. Raises the delivery error."""
        addresses = [box.address for box in mail.recipients]
        found = await message_memory(self._context, "thread").find([(key, address) for address in addresses])
        return {address: first for address, first in zip(addresses, found, strict=True) if first}

    async def keep(self, key: str, mail: Mail, reached: AbstractSet[str], *, separate: bool) -> None:
        """Keep the first mail for the recipients that a mail `reached`, given as the options write them.

        Without `separate`, a recipient who is new to the thread joins the thread of the others.
        """
        boxes = [box for box in mail.recipients if box.text in reached]
        firsts = {
            box: mail.first([box] if separate or box.address in mail.answers else mail.recipients) for box in boxes
        }
        await message_memory(self._context, "thread").keep({(key, box.address): first for box, first in firsts.items()})
