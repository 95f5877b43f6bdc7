"""/v1/services: what services are, and looking after them.

Registering a service, what it may, whom it trusts and who looks after it are the operator's, on the server's
machine (`taskcred admin service`): there is no route for these.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import BaseModel, Field

from taskcred.domain.permissions import Permission
from taskcred.domain.runs import Executor
from taskcred.domain.services import (
    LONGEST_OVERLAP,
    MOST_CALLBACK_URLS,
    OVERLAP,
    ServiceState,
    ServiceView,
)
from taskcred.http.answers import if_match, send
from taskcred.http.authentication import caller, context
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import (
    ABSENT,
    Asked,
    Description,
    IfMatchHeader,
    IfNoneMatchHeader,
    Told,
    left_out,
)
from taskcred.services import federation, registry, service_secrets

api = nouns("services", "Services that start work on owners' behalf.")

Title = Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Url = Annotated[
    str,
    Field(
        max_length=2048,
        pattern=r"^[!-~]+$",
        description="Absolute, of https; of http only for this very machine. No fragment, no user information.",
        examples=["https://platform.example.org/back"],
    ),
]


class ServiceSecret(Told):
    """A valid client secret."""

    id: UUID
    last_four: str
    created_at: datetime
    last_used_at: datetime | None
    ends_at: datetime | None = Field(description="When it ends, once it was replaced.")


class ServiceTrust(Told):
    """Workloads that are the service by a token of their own (OpenID Connect)."""

    id: UUID
    issuer: str
    subject: str
    audience: str
    jwks_url: str = Field(description="Where the issuer's keys are; empty: found by discovery.")
    created_at: datetime
    last_used_at: datetime | None


class ServiceAdministrator(Told):
    """Someone who looks after the service."""

    iam_id: str
    email: str
    given_at: datetime


class PublicService(Told):
    """A service as owners see it, who are asked for a grant."""

    id: UUID = Field(description="Its client id.")
    name: str
    title: str
    description: str


class Service(PublicService):
    """A service; what follows `description` is null for who does not look after it."""

    state: ServiceState | None = None
    tasks: list[str] | None = Field(None, description="The tasks it may start.")
    executors: list[Executor] | None = Field(None, description="Who may carry out what it starts.")
    starts_per_minute: int | None = Field(None, ge=1)
    callback_urls: list[str] | None = Field(None, description="Where browsers may be led back to.")
    webhook_url: str | None = Field(None, description="Where it is told of events; empty: it polls.")
    created_at: datetime | None = None
    revision: int | None = Field(None, ge=1)
    secrets: list[ServiceSecret] | None = None
    trusts: list[ServiceTrust] | None = None
    administrators: list[ServiceAdministrator] | None = None


class ServiceList(BaseModel):
    """The services that the caller looks after, by name."""

    items: list[Service]
    next: str | None = None


class UpdateServiceBody(Asked):
    """What its administrators may change."""

    title: Title = Field(default=ABSENT, json_schema_extra=left_out)
    description: Description = Field(default=ABSENT, json_schema_extra=left_out)
    callback_urls: list[Url] = Field(
        default=ABSENT, max_length=MOST_CALLBACK_URLS, json_schema_extra=left_out
    )
    webhook_url: str = Field(
        default=ABSENT,
        max_length=2048,
        pattern=r"^[!-~]*$",
        description="As a callback URL; empty: no webhooks.",
        json_schema_extra=left_out,
    )


class RotateSecretBody(Asked):
    """How to replace a secret."""

    overlap_seconds: int = Field(
        int(OVERLAP.total_seconds()),
        ge=0,
        le=int(LONGEST_OVERLAP.total_seconds()),
        description="How long earlier secrets go on; 0 ends them at once.",
    )


class ServiceWithSecret(Service):
    """A service and its new secret, shown this once."""

    secret: str


class Delivery(Told):
    """An event that could not be delivered by webhook; polling finds it."""

    id: int
    type: str
    created_at: datetime
    state: Literal["open", "given_up"] = Field(description="Open: it is tried again.")
    attempts: int = Field(ge=1)
    error: str | None


class DeliveryList(BaseModel):
    """The latest deliveries that failed, newest first."""

    items: list[Delivery]
    next: str | None = None


class ServicePath(BaseModel):
    """/…/{service_id}"""

    service_id: UUID


class SecretPath(ServicePath):
    """/…/{service_id}/secrets/{secret_id}"""

    secret_id: UUID


class TrustPath(ServicePath):
    """/…/{service_id}/trusts/{trust_id}"""

    trust_id: UUID


@operation(api, "get", "/v1/services", Permission.SERVICE_READ, answers={200: ServiceList})
def list_services() -> Response:
    """The services that the caller looks after."""
    own = registry.list_own(context(), caller())
    return send(ServiceList(items=[Service.model_validate(view) for view in own]))


@operation(api, "get", "/v1/services/self", Permission.SERVICE_READ_SELF, answers={200: Service, 304: None})
def get_own_service(header: IfNoneMatchHeader) -> Response:
    """The service that is calling: whether its secret works, what it may."""
    return _one(registry.itself(context(), caller()), header)


@operation(
    api,
    "get",
    "/v1/services/<uuid:service_id>",
    Permission.SERVICE_READ,
    answers={200: Service, 304: None},
)
def get_service(path: ServicePath, header: IfNoneMatchHeader) -> Response:
    """One service: all of it for its administrators, name, title and description for everybody else."""
    view, is_administrator = registry.get(context(), caller(), str(path.service_id))
    if is_administrator:
        return _one(view, header)
    return send(
        Service(**PublicService.model_validate(view).model_dump()), revision=view.revision, header=header
    )


@operation(
    api,
    "get",
    "/v1/services/<uuid:service_id>/deliveries",
    Permission.SERVICE_READ,
    answers={200: DeliveryList},
)
def list_deliveries(path: ServicePath) -> Response:
    """Webhooks that did not arrive, for the service's administrators."""
    failed = registry.deliveries(context(), caller(), str(path.service_id))
    return send(DeliveryList(items=[Delivery.model_validate(event) for event in failed]))


@operation(
    api,
    "patch",
    "/v1/services/<uuid:service_id>",
    Permission.SERVICE_MANAGE,
    answers={200: Service},
    errors=(412,),
)
def update_service(path: ServicePath, header: IfMatchHeader, body: UpdateServiceBody) -> Response:
    """Change what is given."""
    callback_urls = None if body.callback_urls is None else tuple(body.callback_urls)
    change = registry.Change(
        title=body.title,
        description=body.description,
        callback_urls=callback_urls,
        webhook_url=body.webhook_url,
    )
    return _one(registry.update(context(), caller(), str(path.service_id), change, if_match=if_match(header)))


@operation(
    api,
    "post",
    "/v1/services/<uuid:service_id>/disable",
    Permission.SERVICE_MANAGE,
    answers={200: Service},
    errors=(412,),
)
def disable_service(path: ServicePath, header: IfMatchHeader) -> Response:
    """Refuse the service from now on; what its own engine carries out ends."""
    return _one(registry.disable(context(), caller(), str(path.service_id), if_match=if_match(header)))


@operation(
    api,
    "post",
    "/v1/services/<uuid:service_id>/enable",
    Permission.SERVICE_MANAGE,
    answers={200: Service},
    errors=(412,),
)
def enable_service(path: ServicePath, header: IfMatchHeader) -> Response:
    """Let the service in again."""
    return _one(registry.enable(context(), caller(), str(path.service_id), if_match=if_match(header)))


@operation(
    api,
    "post",
    "/v1/services/<uuid:service_id>/secrets",
    Permission.SERVICE_MANAGE,
    answers={201: ServiceWithSecret},
)
def rotate_service_secret(path: ServicePath, body: RotateSecretBody) -> Response:
    """A new client secret; it is in this answer, and nowhere else."""
    overlap = timedelta(seconds=body.overlap_seconds)
    return _with_secret(service_secrets.rotate(context(), caller(), str(path.service_id), overlap=overlap))


@operation(
    api,
    "delete",
    "/v1/services/<uuid:service_id>/secrets/<uuid:secret_id>",
    Permission.SERVICE_MANAGE,
    answers={200: Service},
    errors=(409,),
)
def end_service_secret(path: SecretPath) -> Response:
    """End a replaced secret before its overlap is over."""
    return _one(service_secrets.end_one(context(), caller(), str(path.service_id), str(path.secret_id)))


@operation(
    api,
    "post",
    "/v1/services/<uuid:service_id>/webhook_secret",
    Permission.SERVICE_MANAGE,
    answers={201: ServiceWithSecret},
)
def rotate_webhook_secret(path: ServicePath, body: RotateSecretBody) -> Response:
    """A new secret to sign webhooks with; it is in this answer, and nowhere else. Until the overlap is over
    they carry a signature by the one before too."""
    overlap = timedelta(seconds=body.overlap_seconds)
    return _with_secret(
        service_secrets.rotate_webhook(context(), caller(), str(path.service_id), overlap=overlap)
    )


@operation(
    api,
    "delete",
    "/v1/services/<uuid:service_id>/trusts/<uuid:trust_id>",
    Permission.SERVICE_MANAGE,
    answers={200: Service},
)
def end_service_trust(path: TrustPath) -> Response:
    """Trust these workloads no more."""
    return _one(federation.end_trust(context(), caller(), str(path.service_id), str(path.trust_id)))


def _one(view: ServiceView, header: IfNoneMatchHeader | None = None) -> Response:
    return send(Service.model_validate(view), revision=view.revision, header=header)


def _with_secret(new: service_secrets.NewSecret) -> Response:
    shown = Service.model_validate(new.service).model_dump()
    # The service needs the text: it is shown this once.
    answer = ServiceWithSecret(**shown, secret=new.secret.reveal())
    return send(answer, 201, revision=new.service.revision)
