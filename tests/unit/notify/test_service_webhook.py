"""Services' webhooks against real HTTP servers on the loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from taskcred.domain.secret import Secret
from taskcred.notify.service_webhook import ServiceWebhook
from taskcred.services.service_secrets import draw_webhook_secret

BODY = b'{"type":"run.ended"}'


@dataclass
class Receiver:
    """What arrived, and what is answered."""

    port: int = 0
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=b"

    def sender(self) -> ServiceWebhook:
        """One that an operator lets call here."""
        return ServiceWebhook((f"127.0.0.1:{self.port}",))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_secret_signs_and_the_receiver_is_called_by_its_name(receiver: Receiver) -> None:
    secrets = [draw_webhook_secret(), draw_webhook_secret()]
    assert receiver.sender().send(receiver.url, secrets, "evt_1", BODY) is None
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
        result = ServiceWebhook(allow).send(receiver.url, [draw_webhook_secret()], "evt_1", BODY)
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
    result = receiver.sender().send(receiver.url, [draw_webhook_secret()], "evt_1", BODY)
    assert result is not None
    assert "307" in result.reason
    assert len(receiver.got) == 1


def test_no_proxy_of_the_environment_is_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert receiver.sender().send(receiver.url, [draw_webhook_secret()], "evt_1", BODY) is None


@pytest.mark.parametrize(("status", "for_good"), [(500, False), (429, False), (404, False), (410, True)])
def test_a_refusal_is_told_by_its_status(receiver: Receiver, status: int, for_good: bool) -> None:
    receiver.status = status
    result = receiver.sender().send(receiver.url, [draw_webhook_secret()], "evt_1", BODY)
    assert result is not None
    assert (str(status) in result.reason, result.for_good) == (True, for_good)


def test_nothing_is_sent_unsigned(receiver: Receiver) -> None:
    for secrets in ([], [Secret("nonsense")]):
        assert receiver.sender().send(receiver.url, secrets, "evt_1", BODY) is not None
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
