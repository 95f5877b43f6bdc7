"""Networks that a stand-in key may be bound to."""

from __future__ import annotations

import pytest

from taskcred.domain import networks


@pytest.mark.parametrize(
    ("bound", "address", "admitted"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "192.0.2.9", False),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("::ffff:10.1.2.3", "10.1.2.4", False),
        ("::ffff:10.0.0.0/104", "::ffff:10.9.9.9", True),
        ("::ffff:10.0.0.0/104", "11.0.0.1", False),
        ("::/0", "10.1.2.3", False),
        ("2001:db8::/32", "2001:db8::7", True),
        ("10.0.0.0/8", "not an address", False),
    ],
)
def test_which_addresses_lie_in_it(bound: str, address: str, admitted: bool) -> None:
    assert networks.admit(networks.read([bound]), address) is admitted
