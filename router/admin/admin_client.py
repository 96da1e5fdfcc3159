"""Asks the admin side of a running router; floor 6. The standard library's client: it is imported in no time."""

from __future__ import annotations

import http.client
from typing import Any

import msgspec

from router.admin.sockets import connect
from router.config.scalars import Address
from router.errors import RouterError, UnavailableError

STATUS = "/api/status"
"""Where a router says how it does."""

RELOAD = "/api/reload"
"""Where a router is asked to load its configuration again."""

PATIENCE = 5.0
"""Seconds that a router may take for each part of its answer."""


class Client:
    """Asks one router. `token` is shown to it where it asks for one."""

    def __init__(self, address: Address, token: str | None = None) -> None:
        self.address = address
        self._token = token

    def answers(self) -> bool:
        """Return whether anybody listens there."""
        try:
            connect(self.address, PATIENCE).close()
        except OSError:
            return False
        return True

    def get(self, path: str) -> Any:
        """Return what the router says there, decoded.

        Raises `UnavailableError` when none answers, `RouterError` for an answer that is no success.
        """
        return self._decoded(*self._ask("GET", path, PATIENCE))

    def post(self, path: str, patience: float, *, refusal: int | None = None) -> Any:
        """Return what the router says when it is asked to do this; it may take `patience` seconds.

        `refusal` is the status of an answer that is no success and yet worth reading. Raises as `get` does.
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
            told = msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise RouterError(f"what answers at {self.address} is no event-router (status {status})") from None
        if status == http.client.UNAUTHORIZED:
            raise RouterError(
                f"the router at {self.address} refuses the token of `admin.token`; "
                "are the variables of the configuration set here too (--env-file)?"
            )
        if status != http.client.OK:
            why = told.get("error") if isinstance(told, dict) else None
            raise RouterError(f"the router at {self.address} answers {status}: {why}")
        return told


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket of ours."""

    def __init__(self, address: Address, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._address = address

    def connect(self) -> None:
        """Connect to the router."""
        self.sock = connect(self._address, PATIENCE)
        self.sock.settimeout(self.timeout)
