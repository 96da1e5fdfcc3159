"""The threads of the option `thread`: later mails with a key are replies to the first mail with that key."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from router.api import SinkContext, message_memory

from .mail import Mail


class Threads:
    """The Message-ID of the first mail of each thread, by key and address."""

    def __init__(self, context: SinkContext) -> None:
        self._context = context

    async def find(self, key: str, mail: Mail) -> dict[str, str]:
        """Return the Message-ID of the thread's first mail for each recipient that has received it, by address.

        Raises the delivery error if Redis can't be reached.
        """
        addresses = [box.address for box in mail.recipients]
        found = await message_memory(self._context, "thread").find([(key, address) for address in addresses])
        return {address: first for address, first in zip(addresses, found, strict=True) if first}

    async def keep(self, key: str, mail: Mail, reached: AbstractSet[str], *, separate: bool) -> None:
        """Store the first mail of the thread for each recipient that this mail `reached`.

        `reached` has the recipients as written in the options. Without `separate`, a recipient who is new to the thread
        joins the thread of the other recipients.
        """
        boxes = [box for box in mail.recipients if box.text in reached]
        firsts = {
            box: mail.first([box] if separate or box.address in mail.answers else mail.recipients) for box in boxes
        }
        await message_memory(self._context, "thread").keep({(key, box.address): first for box, first in firsts.items()})
