"""Shapes that several routes share. What we document as refused is refused: unknown members, wrong types."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from taskcred.domain.credentials import DEFAULT_KEY_LIFE, Generated, KeySource, Provided
from taskcred.domain.secret import Secret

T = TypeVar("T")

# A member that may be left out, and may not be null.
ABSENT: Final[Any] = None


def left_out(schema: dict[str, Any]) -> None:
    """For json_schema_extra: leaving the member out is no value that one could send."""
    schema.pop("default", None)


def _instant(value: object) -> object:
    """RFC 3339 with an offset; numbers, which pydantic would take for seconds since 1970, are not."""
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
            # The last day of the year 9999 may lie beyond it in UTC.
            return at if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            raise ValueError("should be a time such as 2026-03-02T09:00:00Z") from None
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_instant)]

# One line: no control characters, and something to see at the start.
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")]
# As a name, and nothing that turns a line around: for what somebody else reads.
Reference = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x20\x7f-\x9f\u2028-\u202e\u2066-\u2069][^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$",
    ),
]
Description = Annotated[str, Field(max_length=1024, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]
TaskName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Asked(BaseModel):
    """A request body of ours."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Told(BaseModel):
    """An answer, made from a view of the domain."""

    model_config = ConfigDict(from_attributes=True)


class CredentialPath(BaseModel):
    """/…/{credential_id}"""

    credential_id: UUID


class IdempotencyHeader(BaseModel):
    """The request header that makes a repetition recognisable."""

    key: str = Field(
        default=ABSENT,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="A repetition with the same key and body gets the first answer.",
        json_schema_extra=left_out,
    )


class IfMatchHeader(BaseModel):
    """The request header that guards against changing what somebody else changed meanwhile."""

    tag: str = Field(
        default=ABSENT,
        alias="If-Match",
        max_length=64,
        description="The ETag of the revision that was read; 412 where there is a newer one.",
        json_schema_extra=left_out,
    )


class IfNoneMatchHeader(BaseModel):
    """The request header for polling."""

    tag: str = Field(
        default=ABSENT,
        alias="If-None-Match",
        max_length=256,
        description="The ETag of the last answer; 304 while it is the same.",
        json_schema_extra=left_out,
    )


class PageQuery(BaseModel):
    """Cursor pagination."""

    model_config = ConfigDict(extra="forbid")

    after: str = Field(
        default=ABSENT,
        min_length=1,
        max_length=256,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="The `next` of the page before.",
        json_schema_extra=left_out,
    )
    limit: int = Field(50, ge=1, le=200, description="Items on a page.")


class SecretIn(BaseModel):
    """A key that its owner provides."""

    # IBM's clients may send more; what we do not know we do not need.
    model_config = ConfigDict(strict=True)

    api_key: SecretStr = Field(
        min_length=8,
        max_length=512,
        description="The API key's text. Kept in the vault, never shown.",
        json_schema_extra={"pattern": r"^[!-~]+$"},
    )


class SourceIn(Asked):
    """Key source: exactly one of `secret` and `generate`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["secret"]}, {"required": ["generate"]}],
            "not": {
                "required": ["expires_at", "never_expires"],
                "properties": {"never_expires": {"const": True}},
            },
        }
    )

    secret: SecretIn = Field(
        default=ABSENT, description="An existing key of yours.", json_schema_extra=left_out
    )
    generate: Literal[True] = Field(
        default=ABSENT,
        description="Make a new key at the identity provider.",
        json_schema_extra=left_out,
    )
    show_once: bool = Field(
        False, description="With `generate`: show the key in this answer, and never again."
    )
    expires_at: Instant = Field(
        default=ABSENT,
        description=f"With `generate`: when the key ends. Left out: in {DEFAULT_KEY_LIFE.days} days. "
        "A provided key ends as the identity provider says.",
        json_schema_extra=left_out,
    )
    never_expires: bool = Field(False, description="With `generate`: the key does not end by itself.")

    @model_validator(mode="after")
    def _exactly_one(self) -> SourceIn:
        if (self.secret is None) == (self.generate is None):
            raise ValueError("exactly one of secret.api_key and generate is needed")
        return self

    def source(self) -> KeySource:
        """The key source in the domain's words."""
        if self.secret is None:
            expires_at = None if self.expires_at is None else self.expires_at.astimezone(UTC)
            return Generated(self.show_once, expires_at, self.never_expires)
        # The text leaves pydantic's own mask for ours.
        return Provided(Secret(self.secret.api_key.get_secret_value()))
