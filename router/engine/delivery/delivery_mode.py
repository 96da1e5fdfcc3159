"""`deliver: print` and `deliver: {only: …}`: what is printed instead of sent; floor 5."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from router.config.models import DeliverOnly
from router.core.mailboxes import matcher
from router.core.matching import any_of
from router.core.rendering import Rendered
from router.errors import Reason
from router.events import DeadLetter, Event

Show = Callable[[str], Awaitable[None]]
"""Prints one line for the operator; may wait for a slow terminal."""


def in_short(deliver: str | DeliverOnly) -> str | None:
    """Return what the ready line and the service manager are told of `deliver`; None where everything is sent."""
    if isinstance(deliver, DeliverOnly):
        return f"only {', '.join(deliver.only)}, others are printed"
    return None if deliver == "send" else deliver


def warnings(deliver: str | DeliverOnly) -> tuple[str, ...]:
    """Return what `/readyz` and `status` say of `deliver`: a router that sends nothing looks like one that does."""
    if isinstance(deliver, DeliverOnly):
        to = ", ".join(deliver.only)
        return (f"deliver: only {to} is sent to; what goes to other addresses is printed on stdout",)
    if deliver == "send":
        return ()
    shown = "deliver: print: deliveries are printed on stdout and not sent, dead letters are shown and not kept"
    return (f"{shown}; to send, take `deliver` out of the configuration, or `--deliver print` off the command line",)


class DeliveryMode:
    """Holds deliveries of one sink back and shows who would have got what.

    `only` lists globs of addresses that are sent to all the same; empty for `deliver: print`. The mailbox of a mail
    address is what they match, any other address is matched as it is written.
    """

    def __init__(self, sink: str, kind: str, only: Sequence[str], show: Show) -> None:
        self._sink = sink
        self._kind = kind
        self._allows = any_of(only)
        self._allows_mail = matcher(only)
        self._show = show

    async def part(self, event: Event, rendered: Rendered, *, mail: bool) -> tuple[list[str], list[str]] | None:
        """Return the addresses that may be sent to and the others, which are shown; None when nothing is held back.

        `mail` says that the addresses are those of mail.
        """
        allowed: list[str] = []
        refused: list[str] = []
        for address in rendered.addresses:
            allows = self._allows_mail(address) if mail else self._allows(address.encode())
            (allowed if allows else refused).append(address)
        if allowed and not refused:
            return None
        to = f" to {', '.join(refused)}" if refused else ""
        text = " ".join(rendered.text.split())
        told = f": {text}" if text else ""
        await self._show(f"{event.channel} → {event.route} → {self._sink} ({self._kind}){to}{told}")
        return allowed, refused

    async def nobody(self, event: Event, reason: Reason) -> None:
        """Show that nobody would get this delivery."""
        await self._show(f"{event.channel} → {event.route} → {self._sink} ({self._kind}) → suppressed ({reason})")


class ShownLetters:
    """Dead letters under `deliver: print`: shown, for nothing is written to Redis then."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Show these letters."""
        for letter in letters:
            way = " → ".join(part for part in (letter.channel, letter.route, letter.sink) if part)
            self._show(f"{way} → dead letter ({letter.reason}), not kept: {letter.detail}")
            if letter.written is not None:
                letter.written()
