"""Where a request that somebody else named may lead."""

from __future__ import annotations

import pytest

from taskcred.services import outbound


@pytest.mark.parametrize(
    ("address", "explicit", "permitted"),
    [
        ("93.184.216.34", False, True),
        ("2606:2800:220:1::1", False, True),
        ("10.0.0.1", False, False),
        ("10.0.0.1", True, True),
        ("127.0.0.1", False, False),
        ("127.0.0.1", True, True),
        ("::1", True, True),
        ("fd00::1", False, False),
        ("fd00::1", True, True),
        ("::ffff:10.0.0.1", False, False),
        ("::ffff:169.254.169.254", True, False),
        ("169.254.169.254", False, False),
        ("169.254.169.254", True, False),
        ("fe80::1%eth0", True, False),
        ("fec0::1", False, False),
        ("0.0.0.0", True, False),  # noqa: S104 - refused, not bound
        ("::", True, False),
        ("224.0.0.1", True, False),
        ("255.255.255.255", True, False),
        ("240.0.0.1", True, False),
        ("100.64.0.1", False, False),
        ("64:ff9b::a9fe:a9fe", True, False),
        ("64:ff9b::5db8:d822", False, True),
        ("2002:a00:1::", False, False),
        ("168.63.129.16", True, False),
        ("192.0.0.192", True, False),
        ("::ffff:168.63.129.16", True, False),
        ("fd00:ec2::254", True, False),
    ],
)
def test_which_addresses_may_be_called(address: str, explicit: bool, permitted: bool) -> None:
    assert outbound.is_permitted(address, explicit=explicit) is permitted


@pytest.mark.parametrize(
    ("url", "host", "port", "address", "pinned"),
    [
        ("https://a.test/x?y=1", "a.test", 443, "93.184.216.34", "https://93.184.216.34:443/x?y=1"),
        ("http://a.test:8080/", "a.test", 8080, "fd00::1", "http://[fd00::1]:8080/"),
    ],
)
def test_what_is_called_is_the_address_under_the_hosts_name(
    url: str, host: str, port: int, address: str, pinned: str
) -> None:
    made = outbound.pinned(url, host, port, address)
    assert made.url == pinned
    assert made.headers["Host"].partition(":")[0] == made.extensions["sni_hostname"] == host
