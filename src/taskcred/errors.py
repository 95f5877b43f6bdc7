"""The one exception tree.

An error carries what an edge needs to answer well: a stable `code`, a `message` that is safe to show to
anyone who may see the request, a `hint` that names the cure, and whether trying again can help. Nothing
in it may hold key material, tokens or sign-in links.

    TaskcredError
    ├ RequestError          the caller's: InvalidRequest 400, InvalidToken 401, Forbidden 403,
    │                       NotFound 404, Conflict 409, StalePrecondition 412, PolicyViolation 422,
    │                       RateLimited 429
    ├ UnavailableError      ours, passing, 503: VaultSealed, VaultUnreachable, VaultRefused, StoreBusy,
    │                       UpstreamUnavailable, OutOfTouch
    ├ ConfigurationError    ours, the operator's to mend before the start
    └ IntegrityError        ours, stop and call someone, 500

Four edges translate the tree, one table each: HTTP status, CLI exit code, job decision, client class.
A class outside the tree that reaches an edge is a bug and is answered with an id and no text.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Retry = Literal["never", "later"]


class TaskcredError(Exception):
    """Base of everything we raise on purpose.

    `code` is stable and documented in docs/errors.md; `details` holds JSON values that help a program
    (an existing id, the name of a field), never a secret. `status` is the HTTP status where the error is
    another server's answer; `retry_after` says after how many seconds trying again may help.
    """

    code: ClassVar[str] = "internal"
    retry: ClassVar[Retry] = "never"
    status: int | None = None
    retry_after: int | None = None

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        action_url: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.action_url = action_url
        self.details = details
        self._code = code

    @property
    def error_code(self) -> str:
        """The stable code of this occurrence: a specific one where given, else the class's."""
        return self._code or type(self).code


class RequestError(TaskcredError):
    """The caller asked for something that cannot be done as asked."""

    code = "bad_request"


class InvalidRequestError(RequestError):
    """A value is missing, of the wrong type, too large or out of range. `field` names it."""

    code = "invalid_request"


class InvalidTokenError(RequestError):
    """One answer for malformed, unknown, expired and revoked (RFC 6750); the cause goes to the audit."""

    code = "invalid_token"


class ForbiddenError(RequestError):
    """The caller is known and may not do this."""

    code = "forbidden"


class NotFoundError(RequestError):
    """There is no such thing, or it is not the caller's to see."""

    code = "not_found"


class ConflictError(RequestError):
    """The thing's present state does not allow this."""

    code = "conflict"


class StalePreconditionError(RequestError):
    """If-Match names an older revision (RFC 9110, 13.1.1)."""

    code = "stale_revision"


class PolicyViolationError(RequestError):
    """Well-formed, allowed in principle, and refused by a rule an administrator set."""

    code = "policy_violation"


class RateLimitedError(RequestError):
    """Too many requests; `retry_after` is in seconds."""

    code = "rate_limited"
    retry = "later"
    retry_after: int

    def __init__(self, message: str, *, retry_after: int = 1, hint: str = "", **details: Any) -> None:
        super().__init__(message, hint=hint or f"Try again in {retry_after} s.", **details)
        self.retry_after = retry_after


class UnavailableError(TaskcredError):
    """A part we need is away for now; nothing was changed, and trying again is right."""

    code = "unavailable"
    retry = "later"
    retry_after: int | None = 2


class VaultSealedError(UnavailableError):
    """The vault is there and will not open: no master key, or it is sealed."""

    code = "vault_sealed"


class VaultUnreachableError(UnavailableError):
    """The vault does not answer."""

    code = "vault_unreachable"


class VaultRefusedError(UnavailableError):
    """The vault answers, and not as we need it: our login or policy, its mount, or somebody else's write at
    the same moment. Passing, since the operator mends it while we run; nothing was changed."""

    code = "vault_refused"


class StoreBusyError(UnavailableError):
    """The records database is locked or away."""

    code = "store_busy"


class UpstreamUnavailableError(UnavailableError):
    """The identity provider does not answer, answers 5xx, or asks us to slow down."""

    code = "identity_provider_unavailable"


class OutOfTouchError(UnavailableError):
    """This process has lost touch with the records for longer than `outage_grace`: it fails closed."""

    code = "out_of_touch"


class ConfigurationError(TaskcredError):
    """The configuration is wrong; the message says where and the hint what to write."""

    code = "configuration"


class IntegrityError(TaskcredError):
    """Stored bytes are not what we wrote: stop and call someone."""

    code = "integrity"


class WrongMasterKeyError(IntegrityError):
    """The master key at hand does not open this vault. Nothing was changed."""

    code = "wrong_master_key"


class RecordNotFoundError(TaskcredError):
    """The vault holds no record under this path."""

    code = "vault_record_not_found"


class KeyRefusedError(TaskcredError):
    """The identity provider answered, and refused this API key (unknown, disabled, expired)."""

    code = "key_refused"


class ProviderRefusedError(TaskcredError):
    """The identity provider answered, and refused a management call. `status` is its HTTP status."""

    code = "identity_provider_refused"

    def __init__(self, message: str, *, status: int, hint: str = "", **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        self.status = status
