"""What the operator does from the command line: before the first start, and while serving."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from taskcred.domain.keytext import has_form
from taskcred.domain.secret import Secret
from taskcred.errors import ConflictError, InvalidRequestError, NotFoundError
from taskcred.iam.operator import Made, Operator, invite_first_administrator
from taskcred.testing import FrozenClock
from tests.functional.iam.conftest import GRANT_API_KEY, PASSWORD, Room, Served, query_of


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "iam.db"


def test_everything_works_before_the_first_start(database: Path) -> None:
    with Operator(database, FrozenClock()) as operator:
        user = operator.create_user(
            account="Acme", email="Ada@Example.com", password=Secret(PASSWORD), with_api_key=True
        )
        assert user.iam_id.startswith("IBMid-")
        assert len(user.account_id) == 32
        assert user.api_key is not None
        assert has_form(user.api_key.reveal(), "tcu_")
        again = operator.create_user(account=user.account_id, email="max@example.com")
        assert (again.account_id, again.api_key) == (user.account_id, None)
        service = operator.create_service_id(account="Acme", name="nightly", with_api_key=True)
        assert service.iam_id.startswith("iam-ServiceId-")
        other = operator.create_account("Other")
        assert operator.add_member(account="Other", user=user.iam_id) == Made(user.iam_id, other.id, None)
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


def test_the_first_member_of_a_new_account_administers_it(room: Room) -> None:
    with room.as_(room.administrator) as first, room.as_(room.member) as second:
        assert first.get("/v1/serviceids").status_code == 200
        assert second.get("/v1/serviceids").status_code == 403
        with room.operator() as operator:
            operator.add_member(account="Acme", user="max@example.com", administrator=True)
        assert second.get("/v1/serviceids").status_code == 200


def test_mistakes_are_named(database: Path) -> None:
    with Operator(database, FrozenClock()) as operator:
        made = operator.create_user(account="Acme", email="ada@example.com")
        with pytest.raises(ConflictError) as taken:
            operator.create_user(account="Other", email="ADA@example.com")
        assert taken.value.details["existing_id"] == made.iam_id
        with pytest.raises(NotFoundError):
            operator.add_member(account="Other", user="ada@example.com")  # and no account was made by it
        with pytest.raises(NotFoundError):
            operator.add_member(account="Acme", user="nobody@example.com")
        with pytest.raises(ConflictError):
            operator.create_account("Acme")
        with pytest.raises(InvalidRequestError, match="12 to 256"):
            operator.create_user(account="Acme", email="b@example.com", password=Secret("short"))
        with pytest.raises(NotFoundError):
            operator.create_service_id(account="Nowhere", name="x")
        with pytest.raises(NotFoundError):
            operator.add_member(account="\udcff", user="\udcff")
        with pytest.raises(InvalidRequestError):
            operator.create_service_id(account="Acme", name="x", description="\udcff")


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "a b@example.com",
        "ü@example.com",
        "a@b\x00",
        "\ud800@b",
        "a@b.",
        "a" * 250 + "@b.example",
    ],
)
def test_what_is_no_address_is_refused(database: Path, email: str) -> None:
    with Operator(database, FrozenClock()) as operator, pytest.raises(InvalidRequestError):
        operator.create_user(account="Acme", email=email)


def test_the_first_administrator_is_invited_once(database: Path) -> None:
    link = invite_first_administrator(database, "http://taskcred.test")
    assert link is not None
    assert link.reveal().startswith("http://taskcred.test/identity/first-sign-in?link=")
    assert invite_first_administrator(database, "http://taskcred.test") is None


def test_operating_while_serving(serve: Callable[..., Served]) -> None:
    served = serve()
    statuses: list[int] = []
    stop = threading.Event()

    def exchange() -> None:
        with httpx.Client(base_url=served.url) as http:
            while not stop.is_set():
                form = {"grant_type": GRANT_API_KEY, "apikey": served.member.api_key.reveal()}
                statuses.append(http.post("/identity/token", data=form).status_code)

    thread = threading.Thread(target=exchange)
    thread.start()
    made = []
    for number in range(10):
        with Operator(served.iam.config.database, served.iam.clock) as operator:
            made.append(
                operator.create_user(account="Acme", email=f"u{number}@example.com", with_api_key=True)
            )
    stop.set()
    thread.join()
    assert statuses
    assert set(statuses) == {200}
    with httpx.Client(base_url=served.url) as http:
        for user in made:
            form = {"grant_type": GRANT_API_KEY, "apikey": user.api_key.reveal()}
            assert http.post("/identity/token", data=form).status_code == 200


def test_two_first_starts_at_once_migrate_once(database: Path) -> None:
    errors: list[BaseException] = []

    def open_it(number: int) -> None:
        try:
            with Operator(database, FrozenClock()) as operator:
                operator.create_account(f"Account {number}")
        except BaseException as error:  # noqa: BLE001 - collected, and asserted on below
            errors.append(error)

    threads = [threading.Thread(target=open_it, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_set_password_works_at_once(room: Room) -> None:
    with room.operator() as operator:
        operator.set_password(user="max@example.com", password=Secret("a quite different password"))
    assert room.browser().sign_in("max@example.com").status_code == 422
    assert "code" in query_of(room.browser().sign_in("max@example.com", "a quite different password"))


def test_an_account_of_another_provider_can_be_mirrored(database: Path) -> None:
    account_id = "0123456789abcdef" * 2
    with Operator(database, FrozenClock()) as operator:
        assert operator.create_user(account=account_id, email="ada@example.com").account_id == account_id
        assert operator.create_user(account=account_id, email="max@example.com").account_id == account_id
