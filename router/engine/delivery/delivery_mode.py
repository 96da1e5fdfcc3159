"""The option `deliver`: with `print` and `{only: …}`, deliveries are printed instead of sent; floor 5."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from router.config.models import DeliverOnly
from router.core.accounts.dead_letter_filter import fault_line, faults
from router.core.delivery.preparation import AllowedAddresses, shown
from router.core.rendering import Rendered
from router.errors import Reason
from router.escaping import escape
from router.events import DeadLetter, Event
from router.options import SinkOptions

Show = Callable[[str], Awaitable[None]]
"""A function that prints one line for the operator. It may wait for a slow terminal."""


def in_short(deliver: str | DeliverOnly) -> str | None:
    """Return a short description of `deliver` for the ready line and systemd; None if everything is sent."""
    if isinstance(deliver, DeliverOnly):
        return f"only {', '.join(deliver.only)}, others are printed"
    return None if deliver == "send" else deliver


def warnings(deliver: str | DeliverOnly) -> tuple[str, ...]:
    """Return the warnings about `deliver` for `/readyz` and `status`.

    Without these warnings, a router that only prints would look healthy.
    """
    if isinstance(deliver, DeliverOnly):
        to = ", ".join(deliver.only)
        return (f"deliver.only: only deliveries to {to} are sent; deliveries to other addresses are printed on stdout",)
    if deliver == "send":
        return ()
    shown = "deliver: print: deliveries are printed on stdout and not sent, dead letters are shown and not kept"
    cure = "to send, remove `deliver` from the configuration, or `--deliver print` from the command line"
    return (f"{shown}; {cure}",)


class DeliveryMode:
    """The printer of one sink's deliveries that are not sent.

    `only` lists globs of the addresses to which deliveries are still sent. It is empty for `deliver: print`. A mail
    address is matched by its mailbox, any other address as it is written. `redact` removes secrets from the printed
    text.
    """

    def __init__(
        self, sink: str, kind: str, only: Sequence[str], show: Show, redact: Callable[[str], str] = str
    ) -> None:
        self._sink = sink
        self._kind = kind
        self._allowed = AllowedAddresses(only)
        self._show = show
        self._redact = redact

    async def part(self, event: Event, rendered: Rendered, *, mail: bool) -> tuple[list[str], list[str]] | None:
        """Print a delivery, and return its allowed and its refused addresses.

        If all addresses are allowed, print nothing and return None. `mail` is True if the addresses are mail addresses.
        """
        parted = self._allowed.split(rendered, mail=mail)
        if parted is None:
            return None
        allowed, refused = parted
        shown_to = refused or _written_to(rendered.options)
        to = f" to {', '.join(shown_to)}" if shown_to else ""
        keys = "".join(f" ({name}: {key})" for name, key in rendered.keys.items())
        text = " ".join(self._redact(shown(rendered, event)).split())
        told = f": {text}" if text else ""
        await self._show(f"{event.channel} → {event.route} → {self._sink} ({self._kind}){to}{self._redact(keys)}{told}")
        return allowed, refused

    async def nobody(self, event: Event, reason: Reason) -> None:
        """Print that a delivery is suppressed."""
        await self._show(f"{event.channel} → {event.route} → {self._sink} ({self._kind}) → suppressed ({reason})")


def _written_to(options: SinkOptions) -> list[str]:
    """Return the Redis channels and keys to which the sink would write a delivery, escaped for a terminal."""
    try:
        return [escape(target.name) for target in options.redis_targets]
    except Exception:  # noqa: BLE001  # code of a plugin; `check` reports its fault
        return []


class ShownLetters:
    """The receiver of dead letters with `deliver: print`.

    It prints the letters, because nothing is written to Redis. The log does not repeat the printed letters.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Print these letters."""
        for letter in letters:
            path = " → ".join(name for name in (letter.channel, letter.route, letter.sink) if name)
            found = faults(letter)
            detail = letter.detail if found is None else "; ".join(map(fault_line, found))
            self._show(f"{path} → dead letter ({letter.reason}), not kept: {detail}")
            if letter.written is not None:
                letter.written()
