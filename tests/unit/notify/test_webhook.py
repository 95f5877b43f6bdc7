"""The webhook's sender against a real HTTP server on the loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from pathlib import Path

import pytest

from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError
from taskcred.notify.webhook import WebhookSender, sign
from taskcred.services.notices import Message, NotDelivered
from taskcred.testing import START
from tests.unit.notify.conftest import Receiver

MESSAGE = Message(
    id="msg-1",
    kind="prompt.opened",
    account_id="acc",
    iam_id="IBMid-1",
    to="",
    title="A task credential is needed",
    text="Your work waits.",
    action_url="https://taskcred.test/prompts/p",
    at=START,
    data={"prompt_id": "p"},
)


def _secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """A file with one signing secret."""
    path = tmp_path / "secret"
    path.write_text(_secret() + "\n")
    return path


def _expected(secret: str, headers: dict[str, str], body: bytes) -> str:
    """The signature as a receiver reckons it (Standard Webhooks, "Verifying webhook authenticity")."""
    content = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def test_a_message_arrives_signed(receiver: Receiver, secret_file: Path) -> None:
    assert WebhookSender(receiver.url, secret_file).send(MESSAGE) is None

    ((path, headers, body),) = receiver.got
    assert path == "/hook"
    assert headers["webhook-id"] == "msg-1"
    assert headers["webhook-signature"] == _expected(secret_file.read_text().strip(), headers, body)
    said = json.loads(body)
    assert said["type"] == "prompt.opened"
    assert said["timestamp"] == "2026-03-02T09:00:00+00:00"
    assert said["data"]["prompt_id"] == "p"
    assert said["data"]["action_url"] == MESSAGE.action_url


def test_the_signature_is_that_of_the_specifications_example() -> None:
    # Standard Webhooks 1.0.0 publishes this example with its reference libraries' tests.
    headers = sign(
        [Secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_replaced_without_a_restart_and_both_sign_meanwhile(
    receiver: Receiver, secret_file: Path
) -> None:
    sender = WebhookSender(receiver.url, secret_file)
    old, new = secret_file.read_text().strip(), _secret()
    secret_file.write_text(f"{new}\n{old}\n")
    sender.send(MESSAGE)
    ((_, headers, body),) = receiver.got
    assert headers["webhook-signature"].split() == [
        _expected(new, headers, body),
        _expected(old, headers, body),
    ]


@pytest.mark.parametrize(
    ("status", "for_good"), [(301, False), (400, False), (410, True), (429, False), (500, False)]
)
def test_only_410_is_for_good(receiver: Receiver, secret_file: Path, status: int, for_good: bool) -> None:
    receiver.status = status
    result = WebhookSender(receiver.url, secret_file).send(MESSAGE)
    assert result == NotDelivered(f"The webhook answered with status {status}.", for_good=for_good)


def test_a_redirect_is_not_followed(receiver: Receiver, secret_file: Path) -> None:
    receiver.status = 307
    receiver.headers = {"location": receiver.url + "/elsewhere"}
    assert WebhookSender(receiver.url, secret_file).send(MESSAGE) is not None
    assert [path for path, _, _ in receiver.got] == ["/hook"]


def test_a_receiver_that_is_away_is_tried_again(receiver: Receiver, secret_file: Path) -> None:
    away = receiver.url.replace(receiver.url.split(":")[2].split("/")[0], "1")
    result = WebhookSender(away, secret_file).send(MESSAGE)
    assert result is not None
    assert not result.for_good


@pytest.mark.parametrize("text", ["", "no prefix", "whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_secret_that_is_none_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        WebhookSender("https://example.test/hook", path)
    assert "webhook_secret_file" in caught.value.message


@pytest.mark.parametrize("name", [None, "nowhere"])
def test_a_missing_secret_is_refused_at_the_start(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(ConfigurationError):
        WebhookSender("https://example.test/hook", tmp_path / name if name else None)
