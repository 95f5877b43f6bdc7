"""Services' webhooks, signed as Standard Webhooks says (github.com/standard-webhooks, specification 1.0.0).

The URL is the one on the service's registration, and still somebody else's word: it leads to public
addresses, and to private ones only where `services.webhook_allow` lists host and port. Redirects are not
followed, and no proxy of the environment is asked.
"""

from __future__ import annotations

import ssl
import time
from typing import Final
from urllib.parse import urlsplit

import httpx

from taskcred.domain.secret import Secret
from taskcred.notify.webhook import TIMEOUT, judge, key_of, sign
from taskcred.services import outbound
from taskcred.services.notices import NotDelivered

_CONNECT: Final = 5.0  # seconds


class ServiceWebhook:
    """Posts events to services; for any number of threads. `allow` has entries "host:port"."""

    def __init__(self, allow: tuple[str, ...] = ()) -> None:
        self._allow: Final = frozenset(entry.lower() for entry in allow)
        self._tls: Final = ssl.create_default_context()

    def send(self, url: str, secrets: list[Secret], message_id: str, body: bytes) -> NotDelivered | None:
        """Post `body`, JSON, signed with every one of `secrets` ("whsec_…"). None where it arrived."""
        keys = [key for key in map(key_of, secrets) if key is not None]
        if not keys:
            return NotDelivered("The service's signing secret cannot be used; rotate it.")
        try:
            parts = urlsplit(url)
            host, port = (
                (parts.hostname or "").rstrip("."),
                parts.port or outbound.DEFAULT_PORTS[parts.scheme],
            )
        except (ValueError, KeyError):
            return NotDelivered("The webhook's URL is not one of http or https.", for_good=True)
        shown = outbound.authority(host, port)
        try:
            addresses = outbound.addresses(host, port, explicit=shown in self._allow)
        except (OSError, UnicodeError):
            return NotDelivered("The name in the webhook's URL does not resolve.")
        if not addresses:
            return NotDelivered(
                f"The webhook's URL leads to an address inside; services.webhook_allow does not list {shown}."
            )
        pinned = outbound.pinned(url, host, port, addresses[0])
        # The receiver compares this with its own clock: it is the time of sending, by the wall clock.
        signed = sign(keys, message_id, int(time.time()), body)
        try:
            with (
                # One client for each message: a kept connection would be shared by address, not by name.
                httpx.Client(
                    timeout=httpx.Timeout(TIMEOUT, connect=_CONNECT),
                    follow_redirects=False,  # a redirect would carry signed words to a place nobody registered
                    trust_env=False,  # a proxy would connect to an address nobody judged
                    verify=self._tls,
                ) as client,
                # Streamed and closed unread: the answer's body is of no interest, whatever its size.
                client.stream(
                    "POST",
                    pinned.url,
                    content=body,
                    headers={**signed, **pinned.headers},
                    extensions=pinned.extensions,
                ) as answer,
            ):
                status = answer.status_code
        except httpx.HTTPError as error:
            return NotDelivered(f"The webhook could not be reached ({type(error).__name__}).")
        return judge(status)
