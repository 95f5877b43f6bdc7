"""A local IAM of one's own: in this process, and on a loopback port for clients that need one."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ipaddress
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from werkzeug.serving import WSGIRequestHandler, make_server

from taskcred.clock import SystemClock
from taskcred.domain.secret import Secret
from taskcred.iam.app import create_app
from taskcred.iam.operator import Made, Operator
from taskcred.iam.service import IamConfig, LocalIam
from taskcred.ports import Clock
from taskcred.testing import FrozenClock, InMemoryVault, RecordingRevocations

PASSWORD = "correct horse battery staple"
GRANT_API_KEY = "urn:ibm:params:oauth:grant-type:apikey"


@dataclass
class Room:
    """A local IAM, reached in this process, with one account of one administrator and one member."""

    iam: LocalIam
    clock: FrozenClock
    vault: InMemoryVault
    url: str
    http: httpx.Client
    revocations: RecordingRevocations
    administrator: Made
    member: Made

    @property
    def account_id(self) -> str:
        return self.administrator.account_id

    def operator(self) -> Operator:
        return Operator(self.iam.config.database, self.clock)

    def token(self, made: Made, **more: str) -> str:
        assert made.api_key is not None
        return self.exchange(made.api_key.reveal(), **more).json()["access_token"]

    def exchange(self, api_key: str, *, auth: tuple[str, str] | None = None, **more: str) -> httpx.Response:
        return self.http.post(
            "/identity/token", data={"grant_type": GRANT_API_KEY, "apikey": api_key, **more}, auth=auth
        )

    def client_secret(self) -> str:
        return self.vault.records["iam/clients/taskcred"].reveal()

    def as_(self, made: Made) -> httpx.Client:
        """A client that bears a token of this identity."""
        return httpx.Client(
            transport=self.http._transport,
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token(made)}"},
        )

    def browser(self) -> Browser:
        return Browser(self)


@dataclass
class Browser:
    """A person's browser: keeps cookies, fills in forms; and the client's half of the sign-in."""

    room: Room

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            transport=self.room.http._transport,
            base_url=self.room.url,
            headers={"Origin": self.room.url},
        )
        self.verifier = secrets.token_urlsafe(40)
        digest = hashlib.sha256(self.verifier.encode()).digest()
        self.challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self.callback = f"{self.room.url}/auth/callback"

    def authorize(self, **changed: str) -> httpx.Response:
        """Open the sign-in as the pages would; `changed` parameters replace theirs, "" leaves one out."""
        parameters = {
            "response_type": "code",
            "client_id": "taskcred",
            "redirect_uri": self.callback,
            "scope": "ibm openid",
            "state": "a-state",
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            **changed,
        }
        return self.http.get(
            "/identity/authorize", params={name: value for name, value in parameters.items() if value}
        )

    def submit(self, page: httpx.Response, **fields: str) -> httpx.Response:
        """Send the page's form."""
        found = re.search(r'name="form_token" value="([^"]+)"', page.text)
        assert found, page.text
        return self.http.post(str(page.url), data={"form_token": found[1], **fields})

    def sign_in(self, email: str, password: str = PASSWORD, **changed: str) -> httpx.Response:
        return self.submit(self.authorize(**changed), email=email, password=password)

    def redeem(self, answer: httpx.Response, **changed: str) -> httpx.Response:
        """What the server behind the pages does with the redirect."""
        form = {
            "grant_type": "authorization_code",
            "code": query_of(answer)["code"],
            "redirect_uri": self.callback,
            "code_verifier": self.verifier,
            **changed,
        }
        return self.room.http.post("/identity/token", data=form, auth=("taskcred", self.room.client_secret()))


def query_of(answer: httpx.Response) -> dict[str, str]:
    """The parameters of a redirect."""
    assert answer.status_code == 303, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def make_people(database: Path, clock: Clock) -> tuple[Made, Made]:
    with Operator(database, clock) as operator:
        administrator = operator.create_user(
            account="Acme", email="ada@example.com", name="Ada", password=Secret(PASSWORD), with_api_key=True
        )
        member = operator.create_user(
            account="Acme", email="max@example.com", name="Max", password=Secret(PASSWORD), with_api_key=True
        )
    return administrator, member


URL = "http://taskcred.test"


@dataclass
class Prepared:
    """A local IAM made once, to be copied for each test: hashing passwords takes its time on purpose."""

    database: Path
    records: dict[str, Secret]
    administrator: Made
    member: Made


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    database, clock, vault = tmp_path_factory.mktemp("iam") / "iam.db", FrozenClock(), InMemoryVault()
    iam = LocalIam(IamConfig(database, f"{URL}/identity"), vault, clock, RecordingRevocations())
    iam.prepare()
    iam.close()
    return Prepared(database, vault.records, *make_people(database, clock))


@pytest.fixture
def room(tmp_path: Path, prepared: Prepared) -> Iterator[Room]:
    clock, vault, revocations = FrozenClock(), InMemoryVault(), RecordingRevocations()
    vault.records = dict(prepared.records)
    database = tmp_path / "iam.db"
    shutil.copy(prepared.database, database)
    iam = LocalIam(IamConfig(database, f"{URL}/identity"), vault, clock, revocations)
    http = httpx.Client(transport=httpx.WSGITransport(create_app(iam)), base_url=URL)
    yield Room(iam, clock, vault, URL, http, revocations, prepared.administrator, prepared.member)
    iam.close()


@dataclass
class Served:
    """A local IAM on a loopback port, on the host's clock."""

    iam: LocalIam
    url: str
    administrator: Made
    member: Made
    certificate: Path | None


def _not_yet(_environ: object, _start_response: object) -> list[bytes]:
    raise AssertionError("served before it was ready")


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: test output is for tests."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve a local IAM: `serve()` over http, `serve(tls=True)` over https with a certificate of its own."""
    stops: list[Callable[[], None]] = []

    def start(*, tls: bool = False) -> Served:
        place = tmp_path / ("https" if tls else "http")
        place.mkdir()
        context = self_signed(place) if tls else None
        server = make_server(
            "127.0.0.1",
            0,
            _not_yet,  # the issuer holds the port, which is known once the socket is bound
            threaded=True,
            request_handler=_QuietHandler,
            ssl_context=(str(context[0]), str(context[1])) if context else None,
        )
        url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        iam = LocalIam(
            IamConfig(place / "iam.db", f"{url}/identity"),
            InMemoryVault(),
            SystemClock(),
            RecordingRevocations(),
        )
        iam.prepare()
        server.app = create_app(iam)
        people = make_people(place / "iam.db", SystemClock())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()
            iam.close()

        stops.append(stop)
        return Served(iam, url, *people, context[0] if context else None)

    yield start
    for stop in stops:
        stop()


def self_signed(place: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = place / "certificate.pem", place / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return chain, private
