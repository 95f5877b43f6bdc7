"""The REST API as commands use it: JSON in, JSON out, the person's access token on every request."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

import httpx

from taskcred.cli import acting, login, state, transport
from taskcred.cli.where import Server, find
from taskcred.domain.secret import Secret
from taskcred.errors import NotFoundError

_MARGIN: Final = 30  # seconds before its end a token counts as over


class Client:
    """Requests as the person who signed in. Every method raises an error of taskcred.errors."""

    def __init__(self, server: Server, http: httpx.Client, entry: state.SignedIn) -> None:
        self.url = server.url
        self._server = server
        self._http = http
        self._entry = entry
        self._act_for = ""

    def act_for(self, service_id: str) -> None:
        """Carry out what follows for a service id, named by its iam_id, id or name. Raises NotFoundError
        where no service id of this name, or more than one, is the person's to act for."""
        if not service_id.startswith("iam-"):
            theirs = self.get("/identity/act-for")["service_ids"]
            found = [each["iam_id"] for each in theirs if service_id in (each["id"], each["name"])]
            if len(found) != 1:
                names = ", ".join(f"{each['name']} ({each['iam_id']})" for each in theirs)
                raise NotFoundError(
                    f"You may act for {'no' if not found else 'more than one'} service id of this name here.",
                    hint=f"Yours in this account: {names or 'none'}. An operator lets people act for service ids.",
                )
            service_id = found[0]
        self._act_for = service_id

    def get(self, path: str, **query: Any) -> Any:
        """The JSON at `path`; query values that are None are left out."""
        return self._call("GET", path, params={k: v for k, v in query.items() if v is not None})

    def get_changed(self, path: str, etag: str) -> tuple[Any, str]:
        """The JSON at `path` and its ETag; (None, etag) while it is the one that `etag` names."""
        answer = self._send("GET", path, headers={"If-None-Match": etag} if etag else {})
        if answer.status_code == HTTPStatus.NOT_MODIFIED:
            return None, etag
        return _value(answer), answer.headers.get("ETag", "")

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON answer; carries an Idempotency-Key, so that a repeat on the way changes nothing."""
        return self._call("POST", path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())})

    def patch(self, path: str, body: Any, etag: str) -> Any:
        """Change what `etag` names; StalePreconditionError where somebody else changed it since."""
        return self._call("PATCH", path, json=body, headers={"If-Match": etag})

    def delete(self, path: str) -> Any:
        """The JSON answer, None where there is none."""
        return self._call("DELETE", path)

    def items(self, path: str, limit: int = 10_000, **query: Any) -> list[Any]:
        """Up to `limit` items of a list, page by page."""
        items: list[Any] = []
        after = None
        while len(items) < limit:
            body = self.get(path, after=after, **query)
            items += body["items"]
            after = body["next"]
            if not after:
                break
        return items[:limit]

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return _value(self._send(method, path, **arguments))

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        if time.time() > self._entry.expires_at - _MARGIN:
            self._entry = login.refreshed(self._server, seen=self._entry.access_token)
        answer = self._send_once(method, path, **arguments)
        if answer.status_code == HTTPStatus.UNAUTHORIZED:  # ended early, or the clocks differ
            self._entry = login.refreshed(self._server, seen=self._entry.access_token)
            answer = self._send_once(method, path, **arguments)
        return answer

    def _send_once(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        # The server needs the text: it is the bearer token.
        headers = {
            "Authorization": f"Bearer {self._entry.access_token.reveal()}",
            **({"Taskcred-Act-For": self._act_for} if self._act_for else {}),
            **arguments.pop("headers", {}),
        }
        with transport.translated(self.url):
            return self._http.request(method, path, headers=headers, **arguments)


@contextlib.contextmanager
def connect(url: str | None) -> Iterator[Client]:
    """A client of the server that `where.find` finds, for the service id that --act-for names. Raises
    InvalidTokenError where nobody signed in."""
    server = find(url)
    entry = state.signed_in(server.url)
    if entry is None:
        raise login.ended(server.url)
    with transport.open_client(server) as http:
        client = Client(server, http, entry)
        service_id = acting.chosen()
        if service_id:
            client.act_for(service_id)
        yield client


def signed_in_token(server: Server) -> Callable[[], Secret]:
    """A function that gives the access token of whoever signed in, renewed where it is about to end. Raises
    InvalidTokenError where nobody did, or the sign-in has ended."""

    def token() -> Secret:
        entry = state.signed_in(server.url)
        if entry is None:
            raise login.ended(server.url)
        if time.time() > entry.expires_at - _MARGIN:
            entry = login.refreshed(server, seen=entry.access_token)
        return entry.access_token

    token()  # better said now than later
    return token


def _value(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise transport.error_of(answer)
    return answer.json() if answer.content else None
