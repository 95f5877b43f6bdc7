"""Services' webhooks against real HTTP servers on the loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from taskcred.domain.secret import Secret
from taskcred.notify.service_webhook import ServiceWebhook
from taskcred.services.service_secrets import draw_webhook_secret
from tests.unit.notify.conftest import Receiver

BODY = b'{"type":"run.ended"}'


def hook(receiver: Receiver) -> str:
    return f"{receiver.url}?a=b"


def sender(receiver: Receiver) -> ServiceWebhook:
    """One that an operator lets call there."""
    return ServiceWebhook((f"127.0.0.1:{receiver.port}",))


def test_each_secret_signs_and_the_receiver_is_called_by_its_name(receiver: Receiver) -> None:
    secrets = [draw_webhook_secret(), draw_webhook_secret()]
    assert sender(receiver).send(hook(receiver), secrets, "evt_1", BODY) is None
    ((path, headers, body),) = receiver.got
    assert (path, body, headers["webhook-id"]) == ("/hook?a=b", BODY, "evt_1")
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    content = f"evt_1.{headers['webhook-timestamp']}.".encode() + BODY
    expected = []
    for secret in secrets:
        key = base64.b64decode(secret.reveal().removeprefix("whsec_"))
        expected.append("v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode())
    assert headers["webhook-signature"].split() == expected


def test_an_address_inside_is_called_only_where_an_operator_listed_it(receiver: Receiver) -> None:
    for allow in ((), ("127.0.0.1:1",), ("127.0.0.1",)):
        result = ServiceWebhook(allow).send(hook(receiver), [draw_webhook_secret()], "evt_1", BODY)
        assert result is not None
        assert "services.webhook_allow" in result.reason
    assert receiver.got == []


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://2130706433/",  # 127.0.0.1 as one number
        "http://10.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
    ],
)
def test_addresses_inside_are_not_called_however_they_are_written(url: str) -> None:
    result = ServiceWebhook().send(url, [draw_webhook_secret()], "evt_1", BODY)
    assert result is not None
    assert "inside" in result.reason


def test_cloud_metadata_is_not_called_even_where_somebody_listed_it() -> None:
    sender = ServiceWebhook(("169.254.169.254:80",))
    result = sender.send("http://169.254.169.254/", [draw_webhook_secret()], "evt_1", BODY)
    assert result is not None
    assert "inside" in result.reason


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 307, {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}
    result = sender(receiver).send(hook(receiver), [draw_webhook_secret()], "evt_1", BODY)
    assert result is not None
    assert "307" in result.reason
    assert len(receiver.got) == 1


def test_no_proxy_of_the_environment_is_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert sender(receiver).send(hook(receiver), [draw_webhook_secret()], "evt_1", BODY) is None


@pytest.mark.parametrize(("status", "for_good"), [(500, False), (429, False), (404, False), (410, True)])
def test_a_refusal_is_told_by_its_status(receiver: Receiver, status: int, for_good: bool) -> None:
    receiver.status = status
    result = sender(receiver).send(hook(receiver), [draw_webhook_secret()], "evt_1", BODY)
    assert result is not None
    assert (str(status) in result.reason, result.for_good) == (True, for_good)


def test_nothing_is_sent_unsigned(receiver: Receiver) -> None:
    for secrets in ([], [Secret("nonsense")]):
        assert sender(receiver).send(hook(receiver), secrets, "evt_1", BODY) is not None
    assert receiver.got == []


@pytest.mark.parametrize("url", ["ftp://a.test/", "https://a.test:99999/", "nonsense"])
def test_what_is_no_url_is_not_tried_again(url: str) -> None:
    result = ServiceWebhook().send(url, [draw_webhook_secret()], "evt_1", BODY)
    assert result is not None
    assert result.for_good


def test_a_receiver_that_is_away_is_tried_again() -> None:
    result = ServiceWebhook(("127.0.0.1:1",)).send(
        "http://127.0.0.1:1/", [draw_webhook_secret()], "evt_1", BODY
    )
    assert result is not None
    assert not result.for_good
