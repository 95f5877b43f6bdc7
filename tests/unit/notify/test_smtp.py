"""The mail sender against a small SMTP server on the loopback."""

from __future__ import annotations

import base64
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import pytest

from taskcred.errors import ConfigurationError
from taskcred.notify.smtp import SmtpSender
from taskcred.services.notices import Message
from taskcred.testing import START

MESSAGE = Message(
    id="msg-1",
    kind="prompt.opened",
    account_id="acc",
    iam_id="IBMid-1",
    to="ann@example.test",
    title="A task credential is needed",
    text="Your work waits \u2014 create one.",
    action_url="https://taskcred.test/prompts/p",
    at=START,
    data={},
)


@dataclass
class MailServer:
    """What arrived, and the codes answered to some commands instead of 250."""

    port: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    mails: list[EmailMessage] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[MailServer]:
    """As much of RFC 5321 as one mail needs."""
    told = MailServer()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 ready\r\n")
            while line := self.rfile.readline():
                verb = line.split()[0].decode().upper()
                answer = told.answers.get(verb, "250 ok")
                if verb == "EHLO":
                    answer = "250-here\r\n250 AUTH PLAIN"
                elif verb == "AUTH":
                    told.logins.append(base64.b64decode(line.split()[2]).decode())
                    answer = told.answers.get(verb, "235 welcome")
                elif verb == "DATA" and verb not in told.answers:
                    self._read_mail()
                elif verb == "QUIT":
                    answer = "221 bye"
                self.wfile.write(f"{answer}\r\n".encode())

        def _read_mail(self) -> None:
            self.wfile.write(b"354 go on\r\n")
            raw = b""
            while (line := self.rfile.readline()) != b".\r\n":
                raw += line
            told.mails.append(cast("EmailMessage", message_from_bytes(raw, policy=policy.default)))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as tcp:
        told.port = tcp.server_address[1]
        thread = threading.Thread(target=tcp.serve_forever, args=(0.02,))
        thread.start()
        yield told
        tcp.shutdown()
        thread.join()


def _sender(server: MailServer, user: str = "", password_file: Path | None = None) -> SmtpSender:
    return SmtpSender(
        "127.0.0.1",
        server.port,
        mail_from="taskcred@example.test",
        user=user,
        password_file=password_file,
    )


def test_a_mail_says_what_happened_and_where_to_act(server: MailServer) -> None:
    assert _sender(server).send(MESSAGE) is None
    (mail,) = server.mails
    assert mail["to"] == "ann@example.test"
    assert mail["from"] == "taskcred@example.test"
    assert mail["subject"] == "taskcred: A task credential is needed"
    assert mail["message-id"] == "<msg-1@example.test>"
    assert mail["auto-submitted"] == "auto-generated"
    text = mail.get_content()
    assert MESSAGE.text in text
    assert MESSAGE.action_url in text


def test_the_password_is_read_from_its_file_when_it_is_needed(server: MailServer, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("first\n")
    sender = _sender(server, "mailer", path)
    path.write_text("second\n")
    assert sender.send(MESSAGE) is None
    assert server.logins == ["\0mailer\0second"]


@pytest.mark.parametrize(
    ("verb", "answer", "for_good"),
    [
        ("RCPT", "550 nobody here", True),
        ("RCPT", "450 mailbox busy", False),
        ("MAIL", "553 not you", True),
        ("DATA", "554 no", True),
        ("DATA", "451 later", False),
        ("AUTH", "535 wrong", False),  # the operator mends the password file
    ],
)
def test_a_refusal_is_told_by_its_code_only(
    server: MailServer, tmp_path: Path, verb: str, answer: str, for_good: bool
) -> None:
    server.answers[verb] = answer
    path = tmp_path / "password"
    path.write_text("pass word\n")
    result = _sender(server, "mailer", path).send(MESSAGE)
    assert result is not None
    assert result.for_good is for_good
    assert answer[:3] in result.reason
    assert answer[4:] not in result.reason


def test_a_server_that_is_away_is_tried_again() -> None:
    sender = SmtpSender("127.0.0.1", 1, mail_from="a@example.test")
    result = sender.send(MESSAGE)
    assert result is not None
    assert not result.for_good


@pytest.mark.parametrize("to", ["", "ann@example.test\r\nBcc: all@example.test"])
def test_an_address_that_is_none_is_not_tried_again(server: MailServer, to: str) -> None:
    result = _sender(server).send(replace(MESSAGE, to=to))
    assert result is not None
    assert result.for_good
    assert server.mails == []


def test_a_user_without_a_password_is_refused_at_the_start(tmp_path: Path) -> None:
    for password_file in (None, tmp_path / "nowhere"):
        with pytest.raises(ConfigurationError):
            SmtpSender("h", 25, mail_from="a@b.test", user="u", password_file=password_file)
