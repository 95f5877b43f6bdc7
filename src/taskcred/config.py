"""The configuration's shape. Secrets are named by file, never written here.

`load` reads it; config_sources.py says from where and explains what is wrong. docs/configuration.md
describes every setting; a test compares the two.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[^:/?#@\[\]\s]+)(:[0-9]{1,5})?/?")
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/\[\]\s]+):[0-9]{1,5}")


def _seconds(value: Any) -> Any:
    """Durations are written as a number of seconds or with a unit: "90s", "15m", "12h", "30d"."""
    if isinstance(value, str) and value[:-1].replace(".", "", 1).isdigit() and value[-1:] in "smhd":
        return timedelta(seconds=float(value[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[value[-1]])
    return value


def _not_negative(value: timedelta) -> timedelta:
    if value < timedelta(0):
        raise ValueError("a duration cannot be negative")
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds), AfterValidator(_not_negative)]


class Section(BaseModel):
    """A table of the file; a name it does not know is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Section):
    """Where web listens."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8300, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str = Field(
        "", description="The URL under which users reach the server; default: host and port."
    )
    tls_cert: Path | None = Field(None, description="PEM file of the certificate chain; with tls_key: https.")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key.")
    processes: int = Field(1, ge=1, le=64, description="Web processes.")
    threads: int = Field(64, ge=4, le=512, description="Threads of each web process.")
    pin: bool = Field(True, description="Pin each web process to a core, where there are as many cores.")
    drain: Duration = Field(
        timedelta(seconds=10), description="How long a replaced web process finishes connections."
    )

    @model_validator(mode="after")
    def _both_or_none(self) -> Server:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both, or none")
        return self


class DatabaseSettings(Section):
    """Where the records and the engine's queue lie."""

    url: str = Field(
        "", description="postgresql://user@host/name; empty: SQLite, records.db in the data directory."
    )
    password_file: Path | None = Field(None, description="File with the database user's password.")
    connections: int = Field(
        16, ge=4, le=512, description="PostgreSQL: connections of one process; the others wait for one."
    )

    @field_validator("url")
    @classmethod
    def _is_of_postgresql(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and parts.scheme != "postgresql":
            raise ValueError("write postgresql://user@host/name, or nothing for SQLite")
        if parts.password:
            raise ValueError("passwords are not written here: name a file with it in password_file")
        return url


class OpenBaoSettings(Section):
    """OpenBao or HashiCorp Vault, where `vault.kind` is openbao."""

    address: str = Field("", description="URL of the vault: https://vault.example.org:8200.")
    namespace: str = Field("", description="Namespace of login and mount; empty: the root namespace.")
    mount: str = Field(
        "taskcred", min_length=1, description="KV mount of version 2, for this installation alone."
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities that vouch for the vault; default: the public ones."
    )
    timeout: Duration = Field(
        timedelta(seconds=5), gt=timedelta(0), description="Time-out of one call to the vault."
    )
    bulkhead: int = Field(16, ge=1, le=256, description="Calls to the vault under way at once in a process.")
    login: Literal["approle", "kubernetes", "token"] = Field(
        "approle", description="approle; kubernetes: the pod's service account; token: one in a file."
    )
    login_mount: str = Field("", description="Mount of the login; empty: approle or kubernetes.")
    role_id: str = Field("", description="approle: the role's id, which is no secret.")
    secret_id_file: Path | None = Field(None, description="approle: file with the secret id.")
    role: str = Field("", description="kubernetes: the role to log in as.")
    jwt_file: Path = Field(
        Path("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        description="kubernetes: file with the pod's service-account token.",
    )
    token_file: Path | None = Field(None, description="token: file with a token that somebody else gets.")

    def missing(self) -> list[str]:
        """The settings that a vault of this kind cannot do without."""
        needed: dict[str, object] = {"address": self.address}
        match self.login:
            case "approle":
                needed |= {"role_id": self.role_id, "secret_id_file": self.secret_id_file}
            case "kubernetes":
                needed |= {"role": self.role}
            case "token":
                needed |= {"token_file": self.token_file}
        return [name for name, value in needed.items() if not value]

    @model_validator(mode="after")
    def _address_is_a_url(self) -> OpenBaoSettings:
        if self.address and not _ORIGIN.fullmatch(self.address):
            raise ValueError('address: write a URL without a path, such as "https://vault.example.org:8200"')
        return self


class VaultSettings(Section):
    """Where key material lives."""

    kind: Literal["embedded", "openbao"] = Field(
        "embedded", description="embedded, or openbao: OpenBao or HashiCorp Vault."
    )
    master_key_file: Path | None = Field(
        None, description="The embedded vault's master key; default: master.key in the data directory."
    )
    openbao: OpenBaoSettings = OpenBaoSettings()

    @model_validator(mode="after")
    def _openbao_is_named(self) -> VaultSettings:
        if self.kind == "openbao":
            missing = self.openbao.missing()
            if missing:
                raise ValueError(f'kind = "openbao" needs {" and ".join(missing)} in [vault.openbao]')
        return self


class IdentitySettings(Section):
    """The identity provider's client."""

    timeout: Duration = Field(
        timedelta(seconds=10), gt=timedelta(0), description="Time-out of one call to the identity provider."
    )
    bulkhead: int = Field(
        16, ge=1, le=256, description="Calls to the provider under way at once in a process."
    )


class IamSettings(Section):
    """The local IAM."""

    token_ttl: Duration = Field(timedelta(hours=1), gt=timedelta(0), description="Life of an access token.")
    sign_in_ttl: Duration = Field(
        timedelta(hours=12), description="How long the browser's sign-in is remembered."
    )
    signing_key_life: Duration = Field(
        timedelta(days=30), description="A signing key is replaced at this age."
    )


class TokenSettings(Section):
    """Access tokens and stand-in keys."""

    outage_grace: Duration = Field(
        timedelta(seconds=60),
        description="How long cached tokens of live runs are given out without the database.",
    )
    standin_rate: int = Field(50, ge=1, description="Token requests per second for one stand-in key.")
    standin_burst: int = Field(200, ge=1, description="Token requests one stand-in key may make at once.")


class JobSettings(Section):
    """How jobs run."""

    isolation: Literal["auto", "bubblewrap", "user", "none"] = Field(
        "auto", description="auto: bubblewrap where it works, else another OS user, else refuse to run jobs."
    )
    user: str | None = Field(None, description="OS user that jobs run as, where isolation is user.")
    concurrency: int = Field(50, ge=1, le=1000, description="Jobs that run at once.")
    per_owner: int = Field(2, ge=1, le=1000, description="Jobs of one owner that run at once.")
    readable: tuple[Path, ...] = Field(
        (), description="Paths that jobs may read besides the system's programs."
    )
    http_allow: tuple[str, ...] = Field((), description="Hosts (host or host:port) that http tasks may call.")
    kill_grace: Duration = Field(
        timedelta(seconds=5), description="Between asking a job to end and ending it."
    )

    @model_validator(mode="after")
    def _user_is_named(self) -> JobSettings:
        if self.isolation == "user" and not self.user:
            raise ValueError('isolation = "user" needs jobs.user, the OS user that jobs run as')
        return self


class NoticeSettings(Section):
    """How owners are told, besides the pages."""

    smtp_host: str = Field("", description="SMTP server; empty: no mail.")
    smtp_port: int = Field(25, ge=1, le=65535, description="Port of the SMTP server.")
    smtp_starttls: bool = Field(False, description="Whether to use STARTTLS.")
    smtp_user: str = Field("", description="User name at the SMTP server; empty: none.")
    smtp_password_file: Path | None = Field(None, description="File with the SMTP password.")
    mail_from: str = Field("taskcred@localhost", description="Sender of mails.")
    webhook_url: str = Field("", description="URL that gets signed notices; empty: none.")
    webhook_secret_file: Path | None = Field(
        None, description="File with the webhook's signing secret (whsec_...)."
    )
    repeat_prompt: Duration = Field(
        timedelta(days=1),
        description="An open prompt is repeated after this; of those that open within it, an owner is told of "
        "three.",
    )


class ServiceSettings(Section):
    """Services: registered consumers that start work on owners' behalf."""

    webhook_allow: tuple[str, ...] = Field(
        (),
        description="host:port entries that services' webhooks may call at private or loopback addresses; "
        "public ones they may call in any case.",
    )

    @model_validator(mode="after")
    def _ports_are_named(self) -> ServiceSettings:
        for entry in self.webhook_allow:
            if not _HOST_AND_PORT.fullmatch(entry):
                raise ValueError(f'webhook_allow: {entry!r} is not "host:port"')
        return self


class RetentionSettings(Section):
    """How long things are kept."""

    runs: Duration = Field(
        timedelta(days=30),
        description="Ended runs with their output; closed prompts and notices, finished changes, ended grants.",
    )


class LogSettings(Section):
    """Structured logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is written."
    )
    format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal, else JSON lines."
    )


class RetrySettings(Section):
    """A task's retries."""

    max_attempts: int = Field(1, ge=1, le=100, description="Tries, the first one counted.")
    delay: Duration = Field(
        timedelta(seconds=10), description="Wait before the second try; doubles each time."
    )
    max_delay: Duration = Field(timedelta(minutes=10), description="Longest wait between tries.")
    on_lost: bool = Field(
        True,
        description="Try again when a worker died with the job, or another executor fell silent; false: mark it failed.",
    )


class TaskSettings(Section):
    """A task in the catalogue: `[tasks.NAME]`."""

    kind: Literal["command", "python", "http", "external"] = Field(description="How the job is carried out.")
    title: str = Field("", description="Name shown to users; default: the task's name.")
    description: str = Field("", description="What it does, for users.")
    parameters: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object", "additionalProperties": False},
        description="JSON schema of the parameters, an object.",
    )
    argv: tuple[str, ...] = Field(
        (), description="command: the argument vector; {name} stands for a parameter."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="command, python: extra environment."
    )
    working_directory: str | None = Field(
        None, description="command: where it starts; default: a fresh directory."
    )
    sdk_services: tuple[str, ...] = Field(
        (), description="IBM SDK services that get their settings by environment."
    )
    entry_point: str = Field("", description='python: "package.module:function".')
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field("POST", description="http: the method.")
    url: str = Field("", description="http: the URL; its host must be in jobs.http_allow.")
    timeout: Duration = Field(
        timedelta(hours=24), gt=timedelta(0), description="An attempt is ended after this."
    )
    retry: RetrySettings = Field(
        default_factory=RetrySettings, description="When a failed attempt is repeated."
    )
    output_limit: int = Field(
        1_048_576, ge=0, le=67_108_864, description="Bytes of output kept for each attempt."
    )


class Settings(BaseSettings):
    """All settings; frozen."""

    model_config = SettingsConfigDict(
        env_prefix="TASKCRED_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    data_dir: Path = Field(Path("taskcred-data"), description="Directory of everything the server keeps.")
    revocations_dir: Path | None = Field(
        None,
        description="Directory of the revocation log, outside every backup; default: revocations beside data_dir.",
    )
    server: Server = Server()
    database: DatabaseSettings = DatabaseSettings()
    vault: VaultSettings = VaultSettings()
    identity: IdentitySettings = IdentitySettings()
    iam: IamSettings = IamSettings()
    tokens: TokenSettings = TokenSettings()
    jobs: JobSettings = JobSettings()
    notices: NoticeSettings = NoticeSettings()
    services: ServiceSettings = ServiceSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    tasks: dict[str, TaskSettings] = Field(default_factory=dict, description="The catalogue of tasks.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing but what the caller gives: `load` has merged the sources and knows which said what."""
        return (init_settings,)


def load(config_file: Path | None = None, data_dir: Path | None = None, **overrides: Any) -> Settings:
    """The settings of this machine. `overrides` are what the command line said: `server={"port": 0}`.

    Precedence, first wins: command line; environment (`TASKCRED_SERVER__PORT`, and
    `TASKCRED_MASTER_KEY_FILE` for `vault.master_key_file`); the file; defaults. The file is `config_file`,
    else the one `TASKCRED_CONFIG` names, else `taskcred.toml` in the data directory if there is one. The
    data directory is `data_dir`, else `TASKCRED_DATA_DIR`, else `data_dir` in a file that was named,
    else `taskcred-data` in the working directory. Paths in the file are relative to the file.
    Raises ConfigurationError, which says what is wrong, in which file or variable, and what to write.
    """
    from taskcred.config_sources import read  # that module imports this one

    return read(config_file, data_dir, overrides).settings
