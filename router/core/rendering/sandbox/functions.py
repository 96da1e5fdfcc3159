"""The functions that templates and expressions can call: `on` and `cidr`; floor 2."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from router.core.rendering.sandbox.values import Missing
from router.errors import TemplateError

_SWITCHES = {"yes": True, "true": True, "1": True, "on": True, "no": False, "false": False, "0": False, "off": False}
_ADDRESS = 100  # the maximum number of characters of an address; the longest has 45, without its zone
_NETWORKS = 256  # the size of the cache of parsed networks
_SHOWN = 40


def on(value: Any, default: Any = False) -> bool:
    """Return the state of a switch: true for yes, true, 1 and on; false for no, false, 0 and off.

    The value may be a string, a number or a boolean. If the value is missing, null or empty, the state of `default` is
    returned. Raises `TemplateError` for any other value.
    """
    if value is None or isinstance(value, Missing) or value == "":
        return False if default is None or isinstance(default, Missing) or default == "" else on(default)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in {0, 1}:
        return value == 1
    said = _SWITCHES.get(value.lower()) if isinstance(value, str) and len(value) < _ADDRESS else None
    if said is None:
        told = "on(): the value must be yes, no, true, false, 1, 0, on or off"
        raise TemplateError(f"{told}: {_quoted(value)}", told)
    return said


def cidr(address: Any, network: Any) -> bool:
    """Return whether an IP address (v4 or v6) is in a network: `cidr(payload.ip, "10.0.0.0/8")`.

    A missing, null or empty address is in no network. Raises `TemplateError` if a value is not an address or not a
    network.
    """
    if address is None or isinstance(address, Missing) or address == "":
        return False
    within = _network(network) if isinstance(network, str) and len(network) < _ADDRESS else None
    if within is None:
        told = "cidr(): the second value must be a network such as 10.0.0.0/8"
        raise TemplateError(f"{told}: {_quoted(network)}", told)
    found = _address(address)
    if found is None:
        told = "cidr(): the first value must be an IP address"
        raise TemplateError(f"{told}: {_quoted(address)}", told)
    return found in within


def network_fault(written: str) -> str | None:
    """Return the fault of a network that is written in the configuration, or None."""
    return None if _network(written) else f"{_quoted(written)} is not a network: write 10.0.0.0/8 or 2001:db8::/32"


@lru_cache(_NETWORKS)
def _network(written: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(written, strict=False)
    except ValueError:
        return None


def _address(value: Any) -> IPv4Address | IPv6Address | None:
    if not isinstance(value, str) or len(value) > _ADDRESS:
        return None
    try:
        found = ip_address(value)
    except ValueError:
        return None
    # A server that listens for IPv4 and IPv6 on one socket sees the IPv4 client 10.0.0.1 as ::ffff:10.0.0.1.
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _quoted(value: Any) -> str:
    if isinstance(value, Missing):
        return "it is missing"
    if not isinstance(value, str):
        return f"a value of type {type(value).__name__}"
    return repr(value[:_SHOWN] + "…" if len(value) > _SHOWN else value)


FUNCTIONS: dict[str, Callable[..., Any]] = {"on": on, "cidr": cidr}
"""The functions by name."""
