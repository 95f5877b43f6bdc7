"""A session as the authentication of the HTTP libraries people use. The optional ones are imported when they
are asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    import requests
    from ibm_cloud_sdk_core.authenticators import Authenticator

    from taskcred.client.session import TaskSession


def httpx_auth(session: TaskSession) -> httpx.Auth:
    """Sets the bearer token on each request, blocking or in an event loop."""

    class SessionAuth(httpx.Auth):
        def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
            request.headers["Authorization"] = f"Bearer {session.token()}"
            yield request

        async def async_auth_flow(
            self, request: httpx.Request
        ) -> AsyncGenerator[httpx.Request, httpx.Response]:
            request.headers["Authorization"] = f"Bearer {await session.token_async()}"
            yield request

    return SessionAuth()


def requests_auth(session: TaskSession) -> requests.auth.AuthBase:
    """Sets the bearer token on each request."""
    from requests import PreparedRequest
    from requests.auth import AuthBase

    class SessionAuth(AuthBase):
        def __call__(self, request: PreparedRequest) -> PreparedRequest:
            request.headers["Authorization"] = f"Bearer {session.token()}"
            return request

    return SessionAuth()


def ibm_authenticator(session: TaskSession) -> Authenticator:
    """Sets the bearer token on each request of a service of IBM's SDKs."""
    from ibm_cloud_sdk_core.authenticators import Authenticator

    class SessionAuthenticator(Authenticator):  # type: ignore[misc]  # IBM's SDK ships no types
        def authenticate(self, req: dict[str, Any]) -> None:
            req.setdefault("headers", {})["Authorization"] = f"Bearer {session.token()}"

        def validate(self) -> None:
            """Nothing can be wrong with it that the constructor would not have said."""

        def authentication_type(self) -> str:
            return str(Authenticator.AUTHTYPE_BEARERTOKEN)

    return SessionAuthenticator()
