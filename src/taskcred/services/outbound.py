"""Requests to places that others named (http tasks, services' webhooks): where they may lead.

A name is resolved once, what it resolves to is judged, and the address that was judged is the address that
is connected to: whoever controls the name's DNS cannot point it elsewhere in between.

- Link-local and other addresses of cloud metadata, multicast, unspecified and reserved ones are never called.
- Private and loopback addresses only where an operator's list names host and port, and so means them.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# Where clouds answer about a machine, besides link-local: Azure, Oracle, Alibaba, AWS, Google.
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("168.63.129.16", "192.0.0.192", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Pinned:
    """What to hand to httpx: the URL with the address in it, the Host header, and the name that TLS asks for
    and verifies. A client that keeps connections must not be shared between names: it tells them apart by
    address."""

    url: str
    headers: dict[str, str]
    extensions: dict[str, Any]


def addresses(host: str, port: int, *, explicit: bool) -> list[str]:
    """What `host` resolves to now, as far as it may be called. Raises OSError where it does not resolve."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found if is_permitted(str(entry[4][0]), explicit=explicit)]


def is_permitted(text: str, *, explicit: bool) -> bool:
    """Whether the address `text` may be called; `explicit`: private and loopback ones are meant."""
    address = _unwrapped(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback:
        return explicit
    if (
        address in _METADATA
        or address.is_link_local
        or getattr(address, "is_site_local", False)  # IPv6's alone
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    ):
        return False
    return address.is_global or (explicit and address.is_private)


def authority(host: str, port: int) -> str:
    """Host and port as URLs and operators' lists write them (RFC 3986, 3.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def pinned(url: str, host: str, port: int, address: str) -> Pinned:
    """`url`, whose host and port these are, at `address`."""
    parts = urlsplit(url)
    return Pinned(
        parts._replace(netloc=authority(address, port)).geturl(),
        {"Host": parts.netloc},
        {"sni_hostname": host},
    )


def _unwrapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 address leads to: mapped, NAT64 (RFC 6052) or 6to4."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
