"""`taskcred iam`, before any server has been started on the data directory."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

import pytest

from tests.functional.cli.conftest import Shell


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def create_user(
    cli: Shell, data_dir: Path, email: str = "ada@example.com", *flags: str, stdin: str = ""
) -> dict[str, str]:
    done = cli(
        "iam",
        "create-user",
        "--data-dir",
        data_dir,
        "--account",
        "Engines",
        "--email",
        email,
        *flags,
        "--json",
        stdin=stdin,
    )
    assert done.code == 0, done.err
    made: dict[str, str] = done.json
    return made


def test_a_user_is_created_before_the_first_start(cli: Shell, data_dir: Path) -> None:
    made = create_user(cli, data_dir, "ada@example.com", "--password-stdin", stdin=secrets.token_urlsafe())
    assert set(made) == {"iam_id", "account_id"}
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((data_dir / "iam.db").stat().st_mode) == 0o600


def test_an_account_that_is_made_on_the_way_is_told_once(cli: Shell, data_dir: Path) -> None:
    arguments = ("iam", "create-user", "--data-dir", data_dir, "--account", "Engines", "--email")
    first, second = cli(*arguments, "ada@example.com"), cli(*arguments, "grace@example.com")
    assert "There was no account 'Engines': it was created" in first.err
    assert "There was no account" not in second.err


def test_an_api_key_is_printed_when_asked_for(cli: Shell, data_dir: Path) -> None:
    assert create_user(cli, data_dir, "ada@example.com", "--with-api-key")["api_key"].startswith("tcu_")


def test_a_second_user_of_that_address_is_a_conflict(cli: Shell, data_dir: Path) -> None:
    made = create_user(cli, data_dir)
    done = cli(
        "iam",
        "create-user",
        "--data-dir",
        data_dir,
        "--account",
        "Engines",
        "--email",
        "ada@example.com",
        "--json",
    )
    assert done.code == 5
    assert done.problem["error"]["existing_id"] == made["iam_id"]


def test_a_user_becomes_a_member_of_another_account(cli: Shell, data_dir: Path) -> None:
    made = create_user(cli, data_dir)
    account = cli("iam", "create-account", "--data-dir", data_dir, "--name", "Looms", "--json").json
    done = cli(
        "iam",
        "add-member",
        "--data-dir",
        data_dir,
        "--account",
        "Looms",
        "--email",
        "ada@example.com",
        "--json",
    )
    assert done.json == {"iam_id": made["iam_id"], "account_id": account["account_id"]}


def test_an_unknown_account_or_user_is_not_found(cli: Shell, data_dir: Path) -> None:
    create_user(cli, data_dir)
    for account, email in (("Nowhere", "ada@example.com"), ("Engines", "nobody@example.com")):
        done = cli("iam", "add-member", "--data-dir", data_dir, "--account", account, "--email", email)
        assert done.code == 3


def test_a_service_id_is_created_with_its_key(cli: Shell, data_dir: Path) -> None:
    create_user(cli, data_dir)
    done = cli(
        "iam", "create-service-id", "--data-dir", data_dir, "--account", "Engines", "--name", "nightly",
        "--with-api-key", "--json",
    )  # fmt: skip
    assert done.json["iam_id"].startswith("iam-ServiceId-")
    assert done.json["api_key"].startswith("tcu_")


def test_a_sign_in_link_needs_to_know_where_the_server_is(cli: Shell, data_dir: Path) -> None:
    create_user(cli, data_dir)
    arguments = ("iam", "sign-in-link", "--data-dir", data_dir, "--email", "ada@example.com")
    assert cli(*arguments).code == 7
    done = cli(*arguments, TASKCRED_SERVER__PUBLIC_URL="https://taskcred.example.org")
    assert done.out.startswith("https://taskcred.example.org/identity/")


def test_a_password_comes_from_standard_input_only(cli: Shell, data_dir: Path) -> None:
    create_user(cli, data_dir)
    arguments = ("iam", "set-password", "--data-dir", data_dir, "--email", "ada@example.com")
    assert cli(*arguments).code == 2
    assert cli(*arguments, "--password-stdin", stdin=secrets.token_urlsafe()).code == 0
    assert cli(*arguments, "--password-stdin", stdin="short").code == 2
