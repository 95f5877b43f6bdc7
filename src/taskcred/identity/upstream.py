"""Calls to the identity provider over HTTP: time-outs, bulkhead, and its failures in our words.

httpx's exceptions and the provider's answers are translated here and nowhere else. A call that gets no
answer, an answer that asks us to wait, or one that no IAM would give, is UpstreamUnavailableError: nothing
is known about what was asked. Only a refusal in IBM's own words is a refusal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import httpx

from taskcred.bulkhead import Bulkhead
from taskcred.domain.secret import Secret
from taskcred.errors import UpstreamUnavailableError

_LONGEST_WAIT: Final = 300  # seconds; a Retry-After beyond it is taken for this
_LONGEST_MESSAGE: Final = 300


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of status 4xx. `code` is IBM's (BXNIM...), `message` its sentence."""

    status: int
    code: str
    message: str


class Upstream:
    """An HTTP client of one provider. `permits` calls run at once, the next is refused at once instead of
    holding a thread; None: no limit, for a provider in this very process."""

    def __init__(
        self, base_url: str, *, timeout: timedelta, permits: int | None, transport: httpx.BaseTransport | None
    ) -> None:
        self._client: Final = httpx.Client(
            base_url=base_url,
            timeout=timeout.total_seconds(),
            transport=transport,
            limits=httpx.Limits(max_connections=permits, max_keepalive_connections=permits),
            headers={"Accept": "application/json", "User-Agent": "taskcred"},
            follow_redirects=False,
        )
        self._bulkhead: Final = Bulkhead(permits) if permits is not None else None

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        bearer: Secret | None = None,
        basic: tuple[str, Secret] | None = None,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any] | Refusal:
        """The answer's JSON object ({} where it has no content), or the provider's refusal.

        Raises UpstreamUnavailableError.
        """
        all_headers = dict(headers or {})
        if bearer is not None:
            # The provider needs the token to know who asks.
            all_headers["Authorization"] = f"Bearer {bearer.reveal()}"
        # The provider needs the client secret to know that it is us.
        auth = httpx.BasicAuth(basic[0], basic[1].reveal()) if basic is not None else None
        with self._permit(), _translated():
            response = self._client.request(
                method, path, headers=all_headers, auth=auth, data=form, json=json
            )
        return _read(response)

    def _permit(self) -> AbstractContextManager[None]:
        if self._bulkhead is None:
            return nullcontext()
        return self._bulkhead.permit(
            UpstreamUnavailableError(
                "As many calls to the identity provider are under way as are allowed at once.",
                hint="Try again in a moment; `identity.bulkhead` is the limit.",
            )
        )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException:
        raise _away("The identity provider did not answer in time.") from None
    except (httpx.HTTPError, httpx.InvalidURL):
        # `from None`: the library's texts quote URLs and header values.
        raise _away("The identity provider cannot be reached.") from None


def _read(response: httpx.Response) -> Mapping[str, Any] | Refusal:
    if response.status_code == 429 or response.status_code >= 500:
        error = _away(f"The identity provider is too busy or ill (HTTP {response.status_code}).")
        wait = response.headers.get("Retry-After", "")
        if wait.isdecimal():
            error.retry_after = max(1, min(int(wait), _LONGEST_WAIT))
        raise error
    if response.status_code == 204:
        return {}
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    refusal = _refusal(response.status_code, body) if response.is_client_error else None
    if refusal is None:
        raise _away(
            f"What answers at the identity provider's address is none (HTTP {response.status_code}).",
            hint="Check the configured URL, and proxies on the way.",
        )
    return refusal


def _refusal(status: int, body: Any) -> Refusal | None:
    """From one of IBM's two error containers; None where it is neither."""
    if not isinstance(body, dict):
        return None
    code, message = body.get("errorCode"), body.get("errorMessage")
    errors = body.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        code = errors[0].get("message_code") or errors[0].get("code")
        message = errors[0].get("message")
    if not isinstance(code, str):
        return None
    return Refusal(status, code, str(message or "")[:_LONGEST_MESSAGE])


def _away(message: str, hint: str = "") -> UpstreamUnavailableError:
    return UpstreamUnavailableError(message, hint=hint or "Try again; `taskcred doctor` tells more.")
