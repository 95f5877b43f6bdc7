"""What a worker asks of web over HTTP: attempts, and an access token for an http task.

Only web can open the vault, so only web can make a run's token; the worker proves itself with its worker
credential (HTTP Basic).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from taskcred.domain.secret import Secret
from taskcred.errors import NotFoundError, UnavailableError

_GRANT: Final = "urn:ibm:params:oauth:grant-type:apikey"
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)  # an exchange with the provider may be behind it

NotBegun = Literal["parked", "cancelled", "finished", "superseded", "running"]
_NOT_BEGUN: Final[dict[str, NotBegun]] = {
    "parked": "parked",
    "cancelled": "cancelled",
    "finished": "finished",
    "superseded": "superseded",
    "running": "running",
}


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that is live, with the one telling of its stand-in key."""

    attempt_id: str
    run_id: str
    number: int
    standin_key: Secret
    task: str
    parameters: dict[str, Any]


class WebClient:
    """`credential` is the worker credential, "worker id:secret". `ca_file` adds to the public
    authorities: an authority's certificate, or the server's own."""

    def __init__(self, url: str, credential: Secret, ca_file: Path | None = None) -> None:
        name, _, secret = credential.reveal().partition(":")  # sent as HTTP Basic, RFC 7617
        verify: ssl.SSLContext | bool = True
        if ca_file is not None:
            verify = ssl.create_default_context()
            verify.load_verify_locations(cafile=str(ca_file))
            verify.verify_flags |= (
                ssl.VERIFY_X509_PARTIAL_CHAIN
            )  # the file may hold the server's own certificate
        # No proxy from the environment: web is ours, and on the same host by default.
        self._client = httpx.Client(
            base_url=url, auth=(name, secret), verify=verify, timeout=_TIMEOUT, trust_env=False
        )

    def begin(self, run_id: str, dispatch_no: int) -> Begun | NotBegun:
        """Begin an attempt of the run. Raises NotFoundError where there is no such run, and
        UnavailableError where trying again is right, which includes a worker credential that is refused:
        the operator mends that, and no run is lost for it."""
        try:
            response = self._client.post(f"/v1/runs/{run_id}/attempts", json={"dispatch_no": dispatch_no})
        except httpx.HTTPError as error:
            raise UnavailableError(f"web does not answer ({type(error).__name__}).") from error
        match response.status_code:
            case 201:
                body = response.json()
                return Begun(
                    body["attempt_id"],
                    run_id,
                    body["number"],
                    Secret(body["stand_in_key"]),
                    body["task"],
                    body["parameters"],
                )
            case 404:
                raise NotFoundError("There is no such run.")
            case 409 if (why := _NOT_BEGUN.get(_code(response))) is not None:
                return why
            case status:
                raise UnavailableError(
                    f"web answered {status} ({_code(response)}) to the begin of an attempt."
                )

    def access_token(self, standin_key: Secret) -> Secret:
        """An access token of the attempt's owner. Raises httpx.HTTPError."""
        response = self._client.post(
            "/identity/token",
            # The token endpoint is where the stand-in key belongs.
            data={"grant_type": _GRANT, "apikey": standin_key.reveal()},
            auth=httpx.Auth(),  # the worker credential is not
        )
        response.raise_for_status()
        return Secret(response.json()["access_token"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _code(response: httpx.Response) -> str:
    try:
        return str(response.json().get("code", ""))
    except (ValueError, AttributeError):
        return ""
