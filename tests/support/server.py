"""A real `taskcred serve` in a subprocess, as a new user would start it, with hands to hit its roles."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx

T = TypeVar("T")

COMMAND = [sys.executable, "-m", "taskcred"]


def eventually(check: Callable[[], T | None], what: str, within: float = 30.0) -> T:
    """The first truthy answer of `check`; fails the test, naming `what`, where none comes `within` seconds."""
    end = time.monotonic() + within
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {within} s")
        time.sleep(0.05)


@dataclass
class Person:
    """A user of the local IAM, made by the operator's command line."""

    email: str
    password: str
    iam_id: str
    account_id: str
    api_key: str | None = None


@dataclass
class Server:
    """`taskcred serve` on a free port with everything in `directory`."""

    directory: Path
    config: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    url: str = ""  # as of the last start; a fixed --port keeps it

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    @property
    def ca_file(self) -> Path | None:
        """The self-signed certificate, which is its own authority; None over http."""
        certificate = self.data_dir / "tls" / "certificate.pem"
        return certificate if certificate.exists() else None

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """What httpx is told to trust."""
        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True

    def _environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TASKCRED_")}
        return clean | {"XDG_CONFIG_HOME": str(self.directory / "xdg")} | dict(self.environment)

    def command(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Standard output of `taskcred ARGUMENTS`; fails the test where it does not exit 0."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self._environment(),
            timeout=120,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"taskcred {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def create_person(self, email: str, account: str = "Engineering", *, api_key: bool = False) -> Person:
        """A user with a password drawn here, as `taskcred iam create-user` makes one."""
        password = secrets.token_urlsafe(18)
        options = ["--with-api-key"] if api_key else []
        made = json.loads(
            self.command(
                *(
                    "iam",
                    "create-user",
                    "--data-dir",
                    str(self.data_dir),
                    "--account",
                    account,
                    "--email",
                    email,
                ),
                *("--password-stdin", "--json", *options),
                stdin=password,
            )
        )
        return Person(email, password, made["iam_id"], made["account_id"], made.get("api_key"))

    def start(self) -> None:
        """Start and wait until it is ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "taskcred.toml"
        config.write_text(self.config)
        (self.data_dir / "server.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*COMMAND, "serve", "--data-dir", str(self.data_dir), "--config", str(config)),
                    *("--port", "0", *self.arguments),
                ],
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        eventually(self._is_ready, "the server is ready", within=60)

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(
                f"taskcred serve ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
            )
        try:
            self.url = json.loads((self.data_dir / "server.json").read_text())["url"]
            return httpx.get(f"{self.url}/readyz", verify=self.verify).status_code == 200
        except (OSError, ValueError, httpx.HTTPError):
            return False

    def stop(self) -> None:
        """Stop in order; kill what does not."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def role(self, name: str) -> int | None:
        """The process id of the newest role process of that name, if one lives."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in reversed([int(child) for child in children]):
            try:
                title = Path(f"/proc/{pid}/comm").read_text().strip()
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue  # ended between listing and looking
            if title == f"taskcred-{name}" and state != "Z":
                return pid
        return None

    def kill(self, name: str) -> None:
        """kill -9 a role, or the supervisor itself."""
        assert self.process is not None
        if name == "supervisor":
            self.process.kill()
            self.process.wait()
            return
        pid = self.role(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """SIGHUP: replace web and keeper."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    @contextmanager
    def client(self, token: str | None = None) -> Iterator[httpx.Client]:
        """An HTTP client; with `token`, as its bearer."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60, verify=self.verify) as client:
            yield client

    def sign_in(self, person: Person, account_id: str | None = None) -> SignedIn:
        """What `taskcred login` does, without a browser: authorization code with PKCE (RFC 7636)."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        redirect = "http://127.0.0.1:1/callback"
        query = {
            "response_type": "code",
            "client_id": "taskcred-cli",
            "redirect_uri": redirect,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": secrets.token_urlsafe(8),
        }
        if account_id:
            query["account"] = account_id
        with self.client() as browser:
            page = browser.get("/identity/authorize", params=query)
            while page.status_code == 200:
                form = Form.first(page.text)
                form.fields.update({"email": person.email, "password": person.password})
                page = browser.post(str(page.url.join(form.action)), data=form.fields)
                while page.is_redirect and not page.headers["location"].startswith(redirect):
                    page = browser.get(str(page.url.join(page.headers["location"])))
            code = parse_qs(urlsplit(page.headers["location"]).query)["code"][0]
            answer = browser.post(
                "/identity/token",
                data={
                    "grant_type": "authorization_code",
                    "client_id": "taskcred-cli",
                    "code": code,
                    "redirect_uri": redirect,
                    "code_verifier": verifier,
                },
            )
            assert answer.status_code == 200, answer.text
            return SignedIn(self, person, answer.json()["refresh_token"], answer.json())


@dataclass
class SignedIn:
    """A person's interactive sign-in: a token that is renewed before it ends."""

    server: Server
    person: Person
    refresh_token: str
    answer: dict[str, Any]

    @property
    def token(self) -> str:
        if self.answer["expiration"] - time.time() < 4:
            with self.server.client() as client:
                answer = client.post(
                    "/identity/token",
                    data={
                        "grant_type": "refresh_token",
                        "client_id": "taskcred-cli",
                        "refresh_token": self.refresh_token,
                    },
                )
            assert answer.status_code == 200, answer.text
            self.answer = answer.json()
        return str(self.answer["access_token"])

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request to the REST interface as this person."""
        with self.server.client(self.token) as client:
            return client.request(method, path, **options)


class Form(HTMLParser):
    """The first form of a page: where it goes and its fields with their values."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self._forms = 0

    @classmethod
    def first(cls, html: str) -> Form:
        parser = cls()
        parser.feed(html)
        assert parser._forms, re.sub(r"<[^>]+>", " ", html)[:500]
        return parser

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._forms += 1
            if self._forms == 1:
                self.action = values.get("action", "")
        elif tag == "input" and self._forms == 1 and values.get("name"):
            self.fields[values["name"]] = values.get("value", "")
