"""One mail address: its display name, and its form for the server."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from router.api import mailboxes

ADDRESS = 254  # octets (RFC 5321 section 4.5.3.1.3, without the angle brackets)
ADDRESS_TEXT = 1000  # the maximum number of characters of an address with its name


class Mailbox(NamedTuple):
    """A mail address: `text` as written in the options, the display `name`, and `address` for the server.

    The domain of `address` is in its ASCII form (RFC 5891). So an address is `international`, and needs a server with
    SMTPUTF8 (RFC 6531), only if its local part is not ASCII.
    """

    text: str
    name: str
    address: str

    @property
    def international(self) -> bool:
        """True if only a server with SMTPUTF8 accepts the address."""
        return not self.address.isascii()


@lru_cache(maxsize=256)  # the sender is in every mail
def mailbox(text: str) -> Mailbox:
    """Return the address in `text`. Raises `ValueError` if the text has no address, or more than one address."""
    if len(text) > ADDRESS_TEXT:
        raise ValueError(f"{quoted(text)} is not a mail address: it has more than {ADDRESS_TEXT} characters")
    found = listed(text)
    if len(found) != 1:
        raise ValueError(f"{quoted(text)} is {'more than one address' if found else 'not a mail address'}")
    return found[0]


def listed(text: str) -> list[Mailbox]:
    """Return the addresses of a comma-separated text. Raises `ValueError` if one of them is not a valid address."""
    return [_mailbox(text, box.name, box.local, box.domain.lower()) for box in mailboxes(text)]


def _mailbox(text: str, name: str, local: str, domain: str) -> Mailbox:
    if not domain.isascii():
        import idna  # noqa: PLC0415  # imported only for an international domain, for a quick start

        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError as error:  # IDNAError is a UnicodeError
            raise ValueError(f"{quoted(text)} is not a mail address: {error}") from None
    address = f"{local}@{domain}"
    if len(address.encode()) > ADDRESS:
        raise ValueError(f"{quoted(text)} is not a mail address: it has more than {ADDRESS} octets")
    return Mailbox(text, name, address)


def quoted(text: str) -> str:
    """Return a text in quotes, as errors show it."""
    return repr(text if len(text) <= ADDRESS else text[:ADDRESS] + "…")
