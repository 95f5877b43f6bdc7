"""Services: registered consumers that start work on owners' behalf; what they may, and how they are shown."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlencode, urlsplit

from taskcred.domain.runs import Executor

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
EXECUTORS: Final = (Executor.SERVICE, Executor.WORKER)  # who may carry out what a service starts
STARTS_PER_MINUTE: Final = 600
MOST_STARTS_PER_MINUTE: Final = 100_000
OVERLAP: Final = timedelta(hours=24)  # how long a replaced secret goes on, unless told otherwise
LONGEST_OVERLAP: Final = timedelta(days=30)
MOST_CALLBACK_URLS: Final = 20

_PRINCIPAL: Final = "service:"
_LONGEST_URL: Final = 2048
_VISIBLE: Final = re.compile(r"[!-~]+")


class ServiceState(StrEnum):
    """A service's states. Creating: its webhook secret is on its way to the vault; nobody can use it yet."""

    CREATING = "creating"
    ACTIVE = "active"
    DISABLED = "disabled"  # reversibly: it is refused, and its grants wait
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class SecretView:
    """A client secret that is valid, by its last four characters; `ends_at` once it was replaced."""

    id: str
    last_four: str
    created_at: datetime
    last_used_at: datetime | None
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class TrustView:
    """Workloads with tokens of `issuer` for exactly this subject and audience are the service. The issuer's
    keys are at `jwks_url`, or found by discovery where that is empty; `ca_file` vouches for its host, the
    system's authorities where it is empty."""

    id: str
    issuer: str
    subject: str
    audience: str
    jwks_url: str
    ca_file: str
    created_at: datetime
    created_by: str
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class AdministratorView:
    """Someone who looks after the service; `email` as it was when they were given that."""

    iam_id: str
    email: str
    given_at: datetime
    given_by: str


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service as its administrators see it. The id is its client id."""

    id: str
    name: str
    title: str
    description: str
    state: ServiceState
    tasks: tuple[str, ...]
    executors: tuple[Executor, ...]
    starts_per_minute: int
    callback_urls: tuple[str, ...]
    webhook_url: str
    created_at: datetime
    created_by: str
    ended_at: datetime | None
    revision: int
    secrets: tuple[SecretView, ...] = ()
    trusts: tuple[TrustView, ...] = ()
    administrators: tuple[AdministratorView, ...] = ()


def principal_id(service_id: str) -> str:
    """The service as principals, attempts and audit events name it."""
    return _PRINCIPAL + service_id


def id_of(iam_id: str) -> str:
    """The id of the service that `principal_id` named."""
    return iam_id.removeprefix(_PRINCIPAL)


def refuse_url(url: str) -> str | None:
    """Why `url` cannot be a service's: None where it is absolute, of https, or of http on this very machine,
    and without user information and fragment."""
    if len(url) > _LONGEST_URL or not _VISIBLE.fullmatch(url):
        return f"is not a URL of at most {_LONGEST_URL} visible ASCII characters"
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if not host:
        return "is not absolute"
    if "#" in url:
        return "has a fragment"
    if "@" in parts.netloc:
        return "has user information"
    if "\\" in url:
        return "has a backslash"
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return None
    return "is neither of https nor of http on this machine"


def leads_back(callback_urls: Collection[str], url: str) -> bool:
    """Whether a browser may be led back to `url`. Character by character: what is merely alike may be somebody
    else's (RFC 9700, 4.1.3)."""
    return url in callback_urls


def answer_url(url: str, **said: str) -> str:
    """The callback `url` with an answer in its query."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(said)}"


def _is_loopback(host: str) -> bool:
    """Whether `host` is this very machine, by its name or number."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
