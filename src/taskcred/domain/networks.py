"""Networks that a stand-in key may be bound to, and whether an address lies in one."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

_MAPPED: Final = 96  # bits before the IPv4 address in ::ffff:0:0/96
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def read(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks; a single address is a network of one. Raises ValueError that names what is none."""
    return tuple(_unmapped(ipaddress.ip_network(text)) for text in texts)


def admit(networks: Iterable[Network], address: str) -> bool:
    """Whether `address` lies in one of them; what is no address lies in none."""
    try:
        at = ipaddress.ip_address(address)
    except ValueError:
        return False
    # A socket that takes both families shows IPv4 peers as ::ffff:192.0.2.7.
    mapped = at.ipv4_mapped if isinstance(at, ipaddress.IPv6Address) else None
    return any((mapped or at) in network for network in networks)


def _unmapped(network: Network) -> Network:
    """Programs that listen for both families know their own IPv4 address as ::ffff:192.0.2.7."""
    first = network.network_address
    mapped = first.ipv4_mapped if isinstance(first, ipaddress.IPv6Address) else None
    if mapped is None or network.prefixlen < _MAPPED:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - _MAPPED))
