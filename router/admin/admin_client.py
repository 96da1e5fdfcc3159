"""The client of a running router's admin side; floor 6.

The client uses `http.client`, because commands must start fast and the import of aiohttp takes half a second.
"""

from __future__ import annotations

import http.client
from typing import Any

import msgspec

from router.admin.sockets import connect
from router.config.scalars import Address
from router.errors import RouterError, UnavailableError

PATIENCE = 5.0
"""Seconds allowed for connecting and for each read of a response."""


class Client:
    """The client of one router. `token` is sent as a bearer token if it is given."""

    def __init__(self, address: Address, token: str | None = None) -> None:
        self.address = address
        self._token = token

    def answers(self) -> bool:
        """Return whether a process listens at the address."""
        try:
            connect(self.address, PATIENCE).close()
        except OSError:
            return False
        return True

    def get(self, path: str) -> Any:
        """Return the decoded JSON document at this path.

        Raises `UnavailableError` if no router responds, and `RouterError` for a status other than 200.
        """
        return self._decoded(*self._ask("GET", path, PATIENCE))

    def post(self, path: str, patience: float, *, refusal: int | None = None) -> Any:
        """Send a POST and return the decoded response. `patience` is the time limit in seconds.

        A response with the status `refusal` is returned too. Raises the same errors as `get`.
        """
        status, body = self._ask("POST", path, patience)
        return self._decoded(http.client.OK if status == refusal else status, body)

    def _ask(self, method: str, path: str, patience: float) -> tuple[int, bytes]:
        connection = _Connection(self.address, patience)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        except TimeoutError as error:
            raise UnavailableError(f"the router at {self.address} does not answer within {patience:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnavailableError(f"no router answers at {self.address}: {why.lower()}") from error
        finally:
            connection.close()
        return answer.status, body

    def _decoded(self, status: int, body: bytes) -> Any:
        try:
            document = msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise RouterError(f"the server at {self.address} is not event-router (status {status})") from None
        if status == http.client.UNAUTHORIZED:
            raise RouterError(
                f"the router at {self.address} refuses the token of `admin.token`; "
                "are the variables of the configuration set here too (--env-file)?"
            )
        if status != http.client.OK:
            why = document.get("error") if isinstance(document, dict) else None
            raise RouterError(f"the router at {self.address} answers {status}: {why}")
        return document


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over TCP or a unix socket."""

    def __init__(self, address: Address, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._address = address

    def connect(self) -> None:
        """Connect to the router."""
        self.sock = connect(self._address, PATIENCE)
        self.sock.settimeout(self.timeout)
