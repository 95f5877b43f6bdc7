"""Who may do what: one table of permission x authentication, deny by default (empty means no)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from taskcred.domain.secret import Secret


class Authentication(StrEnum):
    """How a caller proved who it is."""

    SESSION = "session"  # a page session, begun by an interactive sign-in
    INTERACTIVE = "interactive"  # an access token whose grant type is on the provider's interactive list
    PROGRAMMATIC = "programmatic"  # an access token made from an API key: a script, an IBM SDK
    RUN_TOKEN = "run_token"  # an access token that was handed to a run  # noqa: S105 - a word, not a secret
    WORKER = "worker"  # the worker credential, HTTP Basic
    SERVICE = "service"  # a service's client id and secret, HTTP Basic, or its workload's own token


class Permission(StrEnum):
    """Shaped scope:action."""

    CREDENTIAL_READ = "credential:read"
    CREDENTIAL_CREATE_PROVIDED = "credential:create_provided"
    CREDENTIAL_CREATE_GENERATED = "credential:create_generated"
    CREDENTIAL_UPDATE = "credential:update"
    CREDENTIAL_ROTATE = "credential:rotate"
    CREDENTIAL_DELETE = "credential:delete"
    TASK_READ = "task:read"
    RUN_READ = "run:read"
    RUN_START = "run:start"
    RUN_CANCEL = "run:cancel"
    RUN_ATTEMPT = "run:attempt"
    RUN_REPORT = "run:report"
    SCHEDULE_READ = "schedule:read"
    SCHEDULE_WRITE = "schedule:write"
    PROMPT_READ = "prompt:read"
    PROMPT_ANSWER = "prompt:answer"
    TOKEN_READ = "token:read"  # noqa: S105 - a word, not a secret
    TOKEN_END = "token:end"  # noqa: S105 - a word, not a secret
    GRANT_READ = "grant:read"
    GRANT_GIVE = "grant:give"
    GRANT_END = "grant:end"
    SERVICE_READ = "service:read"
    SERVICE_READ_SELF = "service:read_self"
    SERVICE_MANAGE = "service:manage"
    EVENT_READ = "event:read"
    AUDIT_READ_OWN = "audit:read_own"
    SERVICEID_ACT = "serviceid:act"


_INTERACTIVE: Final = frozenset({Authentication.SESSION, Authentication.INTERACTIVE})
_OWNER: Final = _INTERACTIVE | {Authentication.PROGRAMMATIC}
_OR_SERVICE: Final = _INTERACTIVE | {Authentication.SERVICE}  # which sees and touches its own only

ALLOWED: Final[dict[Permission, frozenset[Authentication]]] = {
    Permission.CREDENTIAL_READ: _OWNER,
    Permission.CREDENTIAL_CREATE_PROVIDED: _OWNER,
    Permission.CREDENTIAL_CREATE_GENERATED: _INTERACTIVE,
    Permission.CREDENTIAL_UPDATE: _INTERACTIVE,
    Permission.CREDENTIAL_ROTATE: _INTERACTIVE,
    Permission.CREDENTIAL_DELETE: _OWNER,
    Permission.TASK_READ: _OR_SERVICE,
    Permission.RUN_READ: _OR_SERVICE,
    Permission.RUN_START: _OR_SERVICE,
    Permission.RUN_CANCEL: _OR_SERVICE,
    # Whoever executes the run: a worker; the service itself; the owner on their own machine (`taskcred exec`).
    Permission.RUN_ATTEMPT: frozenset(
        {Authentication.WORKER, Authentication.SERVICE, Authentication.INTERACTIVE}
    ),
    Permission.RUN_REPORT: frozenset({Authentication.SERVICE, Authentication.INTERACTIVE}),
    Permission.SCHEDULE_READ: _INTERACTIVE,
    Permission.SCHEDULE_WRITE: _INTERACTIVE,
    Permission.PROMPT_READ: _INTERACTIVE,
    Permission.PROMPT_ANSWER: _INTERACTIVE,
    Permission.TOKEN_READ: _INTERACTIVE,
    Permission.TOKEN_END: _INTERACTIVE,
    Permission.GRANT_READ: _OR_SERVICE,
    Permission.GRANT_GIVE: _INTERACTIVE,
    Permission.GRANT_END: _INTERACTIVE,
    Permission.SERVICE_READ: _INTERACTIVE,
    Permission.SERVICE_READ_SELF: frozenset({Authentication.SERVICE}),
    Permission.SERVICE_MANAGE: _INTERACTIVE,
    Permission.EVENT_READ: frozenset({Authentication.SERVICE}),
    Permission.AUDIT_READ_OWN: _INTERACTIVE,
    # And on this very service id, which the identity provider is asked each time (services/acting).
    Permission.SERVICEID_ACT: _INTERACTIVE,
}

# Acts that need a recent sign-in when the caller came interactively (design section 5).
FRESH: Final = frozenset(
    {
        Permission.CREDENTIAL_CREATE_PROVIDED,
        Permission.CREDENTIAL_CREATE_GENERATED,
        Permission.CREDENTIAL_ROTATE,
        Permission.CREDENTIAL_DELETE,
        Permission.PROMPT_ANSWER,
        Permission.GRANT_GIVE,
        Permission.GRANT_END,
        Permission.SERVICE_MANAGE,
    }
)
FRESH_FOR: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `token` is its own access token where it presented or holds one.

    `auth_time` is when a person last proved who they are; None for programmatic callers, workers and
    services. Where a person acts for a service id, `iam_id` is the service id's, `owner_name` its name and
    `acting_iam_id` the person, whose name, address and token the others are; else both are empty.
    """

    iam_id: str
    account_id: str
    authentication: Authentication
    auth_time: datetime | None = None
    email: str = ""
    name: str = ""
    token: Secret | None = None
    request_id: str = ""
    address: str = ""
    acting_iam_id: str = ""
    owner_name: str = ""

    @property
    def actor_id(self) -> str:
        """Who does it: the person who acts, else the principal itself."""
        return self.acting_iam_id or self.iam_id


@dataclass(frozen=True, slots=True)
class Denied:
    """Why not. `code` is the error code: run_token, programmatic_token, fresh_sign_in_required, forbidden."""

    code: str
    message: str
    hint: str


def decide_permission(permission: Permission, principal: Principal, now: datetime) -> Denied | None:
    """None where `principal` may; else why not. What the table does not list is denied."""
    how = principal.authentication
    if how is Authentication.RUN_TOKEN:
        return Denied(
            "run_token",
            "This access token was handed to a run and cannot manage anything here.",
            "Sign in yourself, or use a token made from your own API key.",
        )
    if how not in ALLOWED.get(permission, frozenset()):
        if how is Authentication.PROGRAMMATIC:
            return Denied(
                "programmatic_token",
                "This needs a person who signed in; the access token presented was made from an API key.",
                "Sign in in the browser or with `taskcred login`. A program that has an API key uses it directly.",
            )
        return Denied("forbidden", "This kind of sign-in may not do this.", "Use the sign-in meant for it.")
    if (
        permission in FRESH
        and how in _INTERACTIVE
        and (principal.auth_time is None or now - principal.auth_time > FRESH_FOR)
    ):
        return Denied(
            "fresh_sign_in_required",
            "Your sign-in is more than 15 minutes old.",
            "Sign in again, then repeat this.",
        )
    return None
