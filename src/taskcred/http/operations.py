"""How a route is declared: its permission, its answers and its errors in one place.

What is declared here is what the door enforces (`PERMISSIONS`) and what /openapi.json says, so the two
cannot differ. Errors that follow from a route's shape (a body can be malformed, an id unknown) are added
by the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, Literal, TypeVar, get_type_hints

from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel

from taskcred.domain.permissions import ALLOWED, Authentication, Permission
from taskcred.http.problems import is_ibm_shaped

Method = Literal["get", "post", "patch", "delete"]
View = TypeVar("View", bound=Callable[..., Any])

# endpoint -> what its caller must be permitted; filled by `operation`, read by the door.
PERMISSIONS: Final[dict[str, Permission]] = {}

SECURITY_SCHEMES: Final[dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token of the identity provider. Beside one of a person who signed in, the header "
        "`Taskcred-Act-For` with the iam_id of a service id carries the request out for that service id, where "
        "the person may act for it.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "taskcred",
        "description": "A page session; requests that change something also carry X-CSRF-Token.",
    },
    "worker": {"type": "http", "scheme": "basic", "description": "The worker credential."},
    "service": {
        "type": "http",
        "scheme": "basic",
        "description": "A service's client id and secret. Its workloads may send a token of an issuer that "
        "the service trusts instead, as `Authorization: Bearer`.",
    },
}
_SCHEMES: Final = {
    Authentication.SESSION: "session",
    Authentication.INTERACTIVE: "bearer",
    Authentication.PROGRAMMATIC: "bearer",
    Authentication.WORKER: "worker",
    Authentication.SERVICE: "service",
}
_ALWAYS: Final = (400, 401, 403, 503)
_WITH_BODY: Final = (413, 415)


def nouns(name: str, description: str) -> APIBlueprint:
    """The routes of one noun."""
    return APIBlueprint(name, __name__, abp_tags=[Tag(name=name, description=description)])


def operation(
    blueprint: APIBlueprint,
    method: Method,
    rule: str,
    permission: Permission,
    *,
    answers: Mapping[int, type[BaseModel] | None],
    errors: Iterable[int] = (),
) -> Callable[[View], View]:
    """Declare a route. `answers` gives each success's model (None: no body); `errors` the statuses that do
    not follow from its shape."""

    def declare(view: View) -> View:
        PERMISSIONS[f"{blueprint.name}.{view.__name__}"] = permission
        statuses = {*_ALWAYS, *errors}
        if "<" in rule:
            statuses.add(404)
        if "body" in get_type_hints(view):
            statuses.update(_WITH_BODY)
        kinds = sorted({_SCHEMES[how] for how in ALLOWED[permission]})
        register = getattr(blueprint, method)
        register(
            rule,
            responses={**answers, **{status: _error(rule, status) for status in sorted(statuses)}},
            security=[{kind: []} for kind in kinds],
            operation_id=view.__name__,
            openapi_extensions={"x-permission": permission.value},
            provide_automatic_options=False,
        )(view)
        return view

    return declare


def _error(rule: str, status: int) -> dict[str, Any]:
    media, model = (
        ("application/json", "IbmErrors") if is_ibm_shaped(rule) else ("application/problem+json", "Problem")
    )
    return {
        "description": HTTPStatus(status).phrase,
        "content": {media: {"schema": {"$ref": f"#/components/schemas/{model}"}}},
    }
