"""Settings: who wins, and what is said about what is wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from taskcred import config, config_sources
from taskcred.errors import ConfigurationError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TASKCRED_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(**arguments: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        config.load(**arguments)  # type: ignore[arg-type]  # tests pass what a caller would
    return caught.value.message


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "t.toml", '[server]\nhost = "10.0.0.1"\nport = 1\nthreads = 8\n')
    monkeypatch.setenv("TASKCRED_SERVER__PORT", "2")
    monkeypatch.setenv("TASKCRED_SERVER__HOST", "10.0.0.2")
    read = config_sources.read(file, None, {"server": {"host": "10.0.0.3"}})
    assert (read.settings.server.host, read.settings.server.port, read.settings.server.threads) == (
        "10.0.0.3",
        2,
        8,
    )
    assert [read.origin(("server", key)) for key in ("host", "port", "threads", "processes")] == [
        "command line",
        "TASKCRED_SERVER__PORT",
        str(file),
        "default",
    ]


def test_the_file_is_the_one_named_else_the_variables_else_the_data_directorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data" / "taskcred.toml", "[server]\nport = 1\n")
    assert config.load(None, tmp_path / "data").server.port == 1
    monkeypatch.setenv("TASKCRED_CONFIG", str(write(tmp_path / "b.toml", "[server]\nport = 2\n")))
    assert config.load(None, tmp_path / "data").server.port == 2
    assert config.load(write(tmp_path / "c.toml", "[server]\nport = 3\n"), tmp_path / "data").server.port == 3


def test_the_data_directory_comes_from_the_flag_the_variable_or_a_named_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.load().data_dir == tmp_path / "taskcred-data"
    file = write(tmp_path / "etc" / "t.toml", 'data_dir = "../var"\n')
    assert config.load(file).data_dir.resolve() == tmp_path / "var"
    monkeypatch.setenv("TASKCRED_DATA_DIR", "elsewhere")
    assert config.load(file).data_dir == tmp_path / "elsewhere"
    assert config.load(file, Path("given")).data_dir == tmp_path / "given"


def test_a_file_found_in_the_data_directory_cannot_move_it(tmp_path: Path) -> None:
    file = write(tmp_path / "data" / "taskcred.toml", 'data_dir = "/elsewhere"\n')
    assert refusal(data_dir=tmp_path / "data").startswith(f"{file}: data_dir")


def test_paths_in_the_file_are_relative_to_the_file(tmp_path: Path) -> None:
    file = write(
        tmp_path / "etc" / "t.toml",
        '[vault]\nmaster_key_file = "keys/master"\n[jobs]\nreadable = ["shared", "/srv"]\n',
    )
    settings = config.load(file)
    assert settings.vault.master_key_file == tmp_path / "etc" / "keys" / "master"
    assert settings.jobs.readable == (tmp_path / "etc" / "shared", Path("/srv"))


def test_the_master_key_file_has_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCRED_MASTER_KEY_FILE", "/run/credentials/taskcred/master.key")
    read = config_sources.read(None, None, {})
    assert read.settings.vault.master_key_file == Path("/run/credentials/taskcred/master.key")
    assert read.origin(("vault", "master_key_file")) == "TASKCRED_MASTER_KEY_FILE"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [('"90s"', 90), ('"15m"', 900), ('"12h"', 43_200), ('"1.5d"', 129_600), ("45", 45)],
)
def test_durations_are_seconds_or_have_a_unit(tmp_path: Path, written: str, seconds: int) -> None:
    file = write(tmp_path / "t.toml", f"[tokens]\noutage_grace = {written}\n")
    assert config.load(file).tokens.outage_grace == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1\n", "server.prot: there is no such setting. Did you mean port?"),
        ("[sever]\nport = 1\n", "sever: there is no such setting. Did you mean server?"),
        ('[server]\nport = "x"\n', "server.port: input should be a valid integer"),
        ("[server]\nport = 70000\n", "server.port: the value must be less than or equal to 65535."),
        (
            '[jobs]\nisolation = "jail"\n',
            "jobs.isolation: 'jail' is not one of 'auto', 'bubblewrap', 'user' or 'none'.",
        ),
        (
            '[jobs]\nkill_grace = "soon"\n',
            'jobs.kill_grace: this is not a duration. Write seconds, or a text such as "90s"',
        ),
        ('[jobs]\nkill_grace = "-5s"\n', "jobs.kill_grace: this is not a duration."),
        ("[jobs]\nkill_grace = -5\n", "jobs.kill_grace: a duration cannot be negative."),
        ("[iam]\ntoken_ttl = 0\n", "iam.token_ttl: the value must be greater than 0"),
        ("[tasks.a]\ntitle = 'A'\n", "tasks.a.kind: this is required and missing."),
        (
            "[tasks.a]\nkind = 'command'\nargs = []\n",
            "tasks.a.args: there is no such setting. Did you mean argv?",
        ),
        ('[server]\ntls_cert = "c"\n', "server: tls_cert and tls_key belong together"),
        (
            '[services]\nwebhook_allow = ["example.org"]\n',
            "services: webhook_allow: 'example.org' is not \"host:port\"",
        ),
        ('[jobs]\nisolation = "user"\n', 'jobs: isolation = "user" needs jobs.user'),
        (
            '[vault]\nkind = "openbao"\n',
            'vault: kind = "openbao" needs address and role_id and secret_id_file in [vault.openbao]',
        ),
        (
            '[vault]\nkind = "openbao"\n[vault.openbao]\naddress = "https://v:8200"\nlogin = "token"\n',
            'vault: kind = "openbao" needs token_file in [vault.openbao]',
        ),
        (
            '[vault.openbao]\naddress = "v.example.org:8200/v1"\n',
            "vault.openbao: address: write a URL without a path",
        ),
    ],
)
def test_a_complaint_names_the_file_the_key_and_the_cure(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path / "t.toml", text)
    assert refusal(config_file=file).startswith(f"{file}: {said}")


def test_a_complaint_about_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCRED_SERVER__PORT", "70000")
    assert refusal().startswith(
        "TASKCRED_SERVER__PORT: server.port: the value must be less than or equal to 65535."
    )


def test_a_list_in_the_environment_that_is_not_json_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TASKCRED_JOBS__READABLE", "/srv")
    assert "TASKCRED_JOBS__READABLE" in refusal()
    monkeypatch.setenv("TASKCRED_JOBS__READABLE", '["/srv"]')
    assert config.load().jobs.readable == (Path("/srv"),)


def test_all_complaints_are_told_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", "[server]\nport = -1\nthreads = 1\n")
    message = refusal(config_file=file)
    assert message.startswith("2 settings are wrong:")
    assert "server.port" in message
    assert "server.threads" in message


def test_a_value_of_an_unknown_setting_is_not_repeated(tmp_path: Path) -> None:
    # Somebody who writes a password where none belongs shall not find it in a log.
    file = write(tmp_path / "t.toml", '[notices]\nsmtp_password = "pa55phrase"\n')
    message = refusal(config_file=file)
    assert "smtp_password_file" in message
    assert "pa55phrase" not in message


def test_missing_unreadable_and_malformed_files_are_told_apart(tmp_path: Path) -> None:
    assert "does not exist" in refusal(config_file=tmp_path / "none.toml")
    assert "cannot be read" in refusal(config_file=tmp_path)
    assert "line 2" in refusal(config_file=write(tmp_path / "t.toml", "[server]\nport = \n"))


def test_a_variable_that_means_nothing_is_told_with_what_was_meant() -> None:
    assert config_sources.unknown_variables(
        {"TASKCRED_SERVR__PORT": "1", "TASKCRED_URL": "x", "PATH": ""}
    ) == [
        "The environment variable TASKCRED_SERVR__PORT is not a setting and was ignored; "
        "did you mean TASKCRED_SERVER__PORT?"
    ]


@pytest.mark.parametrize(
    ("url", "why"),
    [("mysql://ann@db/records", "postgresql://"), ("postgresql://ann:secret@db/records", "password_file")],
)
def test_a_database_is_postgresqls_and_named_without_its_password(url: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        config.load(write(tmp_path / "taskcred.toml", f'[database]\nurl = "{url}"\n'))
    assert why in f"{refused.value.message} {refused.value.hint}"
    assert "secret" not in f"{refused.value.message} {refused.value.hint} {refused.value.details}"
