"""One webhook, signed as Standard Webhooks says (github.com/standard-webhooks, specification 1.0.0)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import ssl
import time
from pathlib import Path
from typing import Final

import httpx

from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError
from taskcred.notify.files import read_lines
from taskcred.services.notices import Message, NotDelivered

TIMEOUT: Final = 15.0  # seconds; the specification recommends 15 to 30
_PREFIX: Final = "whsec_"
_SETTING: Final = "notices.webhook_secret_file"
_GONE: Final = 410  # the specification: the receiver wants no more of it


class WebhookSender:
    """Posts messages to the one URL an operator configured. Redirects are not followed."""

    def __init__(self, url: str, secret_file: Path | None) -> None:
        """`secret_file` holds one secret "whsec_<base64>" a line: while a secret is being replaced, each
        message carries a signature by every one of them. Raises ConfigurationError."""
        if secret_file is None:
            raise ConfigurationError(
                "notices.webhook_url is set and notices.webhook_secret_file is not.",
                hint='Write "whsec_" and 24 to 64 random bytes in base64 into a file and name it.',
            )
        if httpx.URL(url).scheme not in {"http", "https"}:
            raise ConfigurationError(
                "notices.webhook_url is not a URL of http or https.", hint="For example https://host/hook."
            )
        self._url: Final = url
        self._secret_file: Final = secret_file
        _read_keys(secret_file)
        self._client: Final = httpx.Client(
            timeout=TIMEOUT,
            follow_redirects=False,  # a redirect would carry signed words to a place nobody configured
            trust_env=False,  # nor is a proxy of the environment such a place
            verify=ssl.create_default_context(),
        )

    def send(self, message: Message) -> NotDelivered | None:
        """Post the message; any 2xx is an arrival. 410 is for good, all else is tried again."""
        body = json.dumps(
            {
                "type": message.kind,
                "timestamp": message.at.isoformat(),
                "data": {
                    **message.data,
                    "account_id": message.account_id,
                    "iam_id": message.iam_id,
                    "title": message.title,
                    "text": message.text,
                    "action_url": message.action_url,
                },
            },
            separators=(",", ":"),
        ).encode()
        try:
            # The receiver compares this with its own clock: it is the time of sending, by the wall clock.
            headers = sign(_read_keys(self._secret_file), message.id, int(time.time()), body)
            # Streamed and closed unread: the answer's body is of no interest, whatever its size.
            with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                status = answer.status_code
        except (httpx.HTTPError, ConfigurationError) as error:
            return NotDelivered(f"The webhook could not be reached ({type(error).__name__}).")
        return judge(status)


def sign(keys: list[Secret], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a signed message; `keys` are base64, `timestamp` is in seconds since 1970."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = [
        # The key's bytes are needed to sign.
        base64.b64encode(hmac.digest(base64.b64decode(key.reveal()), content, hashlib.sha256)).decode()
        for key in keys
    ]
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def judge(status: int) -> NotDelivered | None:
    """What the receiver's status says: any 2xx is an arrival, 410 is for good, all else is tried again."""
    if 200 <= status < 300:
        return None
    return NotDelivered(f"The webhook answered with status {status}.", for_good=status == _GONE)


def key_of(line: Secret) -> Secret | None:
    """The key, in base64, of a secret "whsec_<base64>"; None where `line` is no such secret."""
    text = line.reveal()  # to take off the prefix and see whether it is base64
    try:
        raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raw = b""
    if not text.startswith(_PREFIX) or not 24 <= len(raw) <= 64:
        return None
    return Secret(text.removeprefix(_PREFIX))


def _read_keys(path: Path) -> list[Secret]:
    keys = []
    for line in read_lines(path, _SETTING):
        key = key_of(line)
        if key is None:
            raise ConfigurationError(
                f'{_SETTING}: a line of {path} is not "whsec_" and 24 to 64 bytes in base64.',
                hint="Make one with: python -c \"import base64,os;print('whsec_'+"
                'base64.b64encode(os.urandom(32)).decode())"',
            )
        keys.append(key)
    return keys
