"""An identity provider in memory."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from taskcred.domain import keytext
from taskcred.domain.secret import Secret
from taskcred.errors import (
    InvalidTokenError,
    KeyRefusedError,
    ProviderRefusedError,
    TaskcredError,
    UpstreamUnavailableError,
)
from taskcred.identity import claims as identity_claims
from taskcred.identity.claims import CLIENT_ID
from taskcred.ports import AccessToken, Account, ActFor, Clock, ProviderKey, SignIn
from taskcred.testing.scripted import Scripted

_APIKEY_GRANT: Final = "urn:ibm:params:oauth:grant-type:apikey"


@dataclass(frozen=True, slots=True)
class Person:
    """A person or service id the in-memory provider knows."""

    iam_id: str
    account_ids: tuple[str, ...]
    name: str
    email: str


@dataclass(slots=True)
class _SignInRequest:
    person: Person
    account_id: str
    redirect_uri: str
    code_challenge: str


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a refresh token stands for."""

    person: Person
    account_id: str
    auth_time: datetime


class InMemoryIdentityProvider(Scripted):
    """An identity provider of IBM's shape: accounts, people, API keys, ES256-signed access tokens.

    It decides as a real one does: a token made for a run manages no keys, a key value is unique and at
    least 32 characters long, a deleted, disabled or expired key gets no token while tokens made from it
    live on. `exchanges` counts answered exchanges.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        url: str = "https://taskcred.test",
        token_ttl: timedelta = timedelta(hours=1),
    ) -> None:
        super().__init__()
        self.token_ttl = token_ttl
        self.exchanges = 0
        self.people: dict[str, Person] = {}
        self._clock = clock
        self._url = url
        self._accounts: dict[str, Account] = {}
        self._keys: dict[str, ProviderKey] = {}
        self._ids: dict[bytes, str] = {}  # digest of a key's value -> its id
        self._actors: set[tuple[str, str]] = set()  # person, service id
        self._codes: dict[str, _SignInRequest] = {}
        self._grants: dict[str, _Grant] = {}
        self._signing_key = ec.generate_private_key(ec.SECP256R1())

    # What a test arranges and looks at.

    def add_account(self, name: str = "acme") -> str:
        """A new account's id."""
        account = Account(uuid.uuid4().hex, name)
        self._accounts[account.id] = account
        return account.id

    def add_person(self, *account_ids: str, name: str = "Ada", email: str = "ada@example.test") -> str:
        """A new member of these accounts; the iam_id."""
        return self._add(f"IBMid-{uuid.uuid4().hex[:10].upper()}", account_ids, name, email)

    def add_service_id(self, account_id: str, name: str = "robot") -> str:
        """A new service id; the iam_id."""
        return self._add(f"iam-ServiceId-{uuid.uuid4()}", (account_id,), name, "")

    def allow_act(self, person: str, service_id: str) -> None:
        """Let a person act for a service id."""
        self._actors.add((person, service_id))

    def disallow_act(self, person: str, service_id: str) -> None:
        """Take that away."""
        self._actors.discard((person, service_id))

    def _add(self, iam_id: str, account_ids: tuple[str, ...], name: str, email: str) -> str:
        self.people[iam_id] = Person(iam_id, account_ids, name, email)
        return iam_id

    def add_key(
        self, iam_id: str, account_id: str, *, name: str = "mine", expires_at: datetime | None = None
    ) -> Secret:
        """A key its owner made elsewhere: what a user pastes."""
        value = keytext.new_key(keytext.USER_KEY_PREFIX)
        self._put_key(name, iam_id, account_id, value, expires_at)
        return value

    def keys_of(self, iam_id: str, account_id: str) -> list[ProviderKey]:
        """The keys an owner has at the provider now, oldest first."""
        with self._lock:
            return [k for k in self._keys.values() if (k.iam_id, k.account_id) == (iam_id, account_id)]

    def key_with(self, value: Secret) -> ProviderKey | None:
        """The key that has this value, if there is one."""
        with self._lock:
            return self._keys.get(self._ids.get(value.digest(), ""))

    def end_key(self, value: Secret) -> None:
        """Somebody deletes the key behind our back."""
        with self._lock:
            self._keys.pop(self._ids.pop(value.digest()))

    def token(
        self,
        iam_id: str,
        account_id: str,
        *,
        grant_type: str = "authorization_code",
        client_id: str = CLIENT_ID,
        auth_time: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> AccessToken:
        """A signed access token, with the claims IBM's have."""
        person = self.people[iam_id]
        issued = self._clock.now().replace(microsecond=0)
        realm, _, identifier = iam_id.partition("-")
        claims: dict[str, Any] = {
            "iam_id": iam_id,
            "id": iam_id,
            "realmid": realm,
            "identifier": identifier,
            "sub": person.email or iam_id,
            "sub_type": "ServiceId" if iam_id.startswith("iam-ServiceId-") else "User",
            "name": person.name,
            "email": person.email,
            "account": {"valid": True, "bss": account_id},
            "iat": int(issued.timestamp()),
            "exp": int((issued + (ttl or self.token_ttl)).timestamp()),
            "iss": f"{self._url}/identity",
            "grant_type": grant_type,
            "scope": "ibm openid",
            "client_id": client_id,
            "jti": uuid.uuid4().hex,
        }
        if grant_type in identity_claims.INTERACTIVE_GRANT_TYPES:
            claims["auth_time"] = int((auth_time or issued).timestamp())
        raw = jwt.encode(claims, self._signing_key, algorithm="ES256", headers={"kid": "in-memory"})
        return identity_claims.access_token(raw, claims)

    def sign_in(self, iam_id: str, account_id: str, *, auth_time: datetime | None = None) -> SignIn:
        """What a person holds who signed in now (or at `auth_time`)."""
        proved = auth_time or self._clock.now().replace(microsecond=0)
        refresh = uuid.uuid4().hex
        self._grants[refresh] = _Grant(self.people[iam_id], account_id, proved)
        return SignIn(self.token(iam_id, account_id, auth_time=proved), Secret(refresh), proved)

    def approve(self, sign_in_url: str, iam_id: str, account_id: str) -> tuple[str, str]:
        """The person signs in on the page behind `sign_in_url`; the code and state the browser brings back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(sign_in_url).query).items()}
        code = uuid.uuid4().hex
        self._codes[code] = _SignInRequest(
            self.people[iam_id], account_id, query["redirect_uri"], query["code_challenge"]
        )
        return code, query["state"]

    # The port.

    @contextmanager
    def _provider_call(self, method: str) -> Iterator[None]:
        def refused() -> TaskcredError:
            if method == "exchange":
                return KeyRefusedError("scripted: the identity provider refuses this key")
            return ProviderRefusedError(f"scripted: the identity provider refuses {method}", status=403)

        with self._call(method, UpstreamUnavailableError, refused):
            yield

    def exchange(self, api_key: Secret, *, for_run: bool) -> AccessToken:
        """See `ports.IdentityProvider`; likewise the methods below."""
        with self._provider_call("exchange"):
            key = self.key_with(api_key)
            expired = key is not None and key.expires_at is not None and key.expires_at <= self._clock.now()
            if key is None or key.disabled or expired:
                raise KeyRefusedError("Provided API key could not be found.")
            self.exchanges += 1
            client_id = CLIENT_ID if for_run else "default"
            return self.token(key.iam_id, key.account_id, grant_type=_APIKEY_GRANT, client_id=client_id)

    def verify(self, raw_token: str) -> AccessToken:
        with self._provider_call("verify"):
            return self._verified(raw_token)

    def _verified(self, raw_token: str) -> AccessToken:
        try:
            # Expiry is judged below, by this provider's clock instead of the machine's.
            claims = jwt.decode(
                raw_token,
                self._signing_key.public_key(),
                algorithms=["ES256"],
                issuer=f"{self._url}/identity",
                options={"verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            raise InvalidTokenError("The access token is not valid.", hint="Sign in again.") from None
        token = identity_claims.access_token(raw_token, claims)
        if token.expires_at <= self._clock.now():
            raise InvalidTokenError("The access token is not valid.", hint="Sign in again.")
        return token

    def _manager(self, authority: Secret, iam_id: str, account_id: str) -> None:
        # The text is needed to verify the token.
        token = self._verified(authority.reveal())
        is_own = token.iam_id == iam_id or self._acts(token, iam_id)
        is_run = token.claims["client_id"] == CLIENT_ID and token.claims["grant_type"] == _APIKEY_GRANT
        if is_run or not is_own or token.account_id != account_id:
            self._refuse("The token may not manage this key.", 403)

    def _acts(self, token: AccessToken, iam_id: str) -> bool:
        return identity_claims.is_interactive(token.claims) and (token.iam_id, iam_id) in self._actors

    def _refuse(self, message: str, status: int) -> NoReturn:
        raise ProviderRefusedError(message, status=status)

    def key_details(self, api_key: Secret, authority: Secret) -> ProviderKey:
        with self._provider_call("key_details"):
            key = self.key_with(api_key)
            if key is None:
                self._refuse("No such key.", 404)
            self._manager(authority, key.iam_id, key.account_id)
            return key

    def create_key(
        self,
        authority: Secret,
        *,
        name: str,
        iam_id: str,
        account_id: str,
        value: Secret,
        expires_at: datetime | None,
    ) -> ProviderKey:
        with self._provider_call("create_key"):
            self._manager(authority, iam_id, account_id)
            # The text is needed to judge its length.
            if len(value.reveal()) < 32:
                self._refuse("The key value is too short.", 400)
            if self.key_with(value) is not None:
                self._refuse("The key value is in use.", 409)
            return self._put_key(name, iam_id, account_id, value, expires_at)

    def _put_key(
        self, name: str, iam_id: str, account_id: str, value: Secret, expires_at: datetime | None
    ) -> ProviderKey:
        key = ProviderKey(
            f"ApiKey-{uuid.uuid4()}", name, iam_id, account_id, False, False, self._clock.now(), expires_at
        )
        with self._lock:
            self._keys[key.id] = key
            self._ids[value.digest()] = key.id
        return key

    def disable_key(self, authority: Secret, provider_key_id: str) -> None:
        with self._provider_call("disable_key"):
            key = self._keys.get(provider_key_id)
            if key is not None:
                self._manager(authority, key.iam_id, key.account_id)
                self._keys[key.id] = replace(key, disabled=True)

    def delete_key(self, authority: Secret, provider_key_id: str) -> None:
        with self._provider_call("delete_key"):
            key = self._keys.get(provider_key_id)
            if key is not None:
                self._manager(authority, key.iam_id, key.account_id)
                del self._keys[key.id]

    def sign_out_url(self) -> str:
        return f"{self._url}/identity/sign-out"

    def sign_in_url(self, *, redirect_uri: str, state: str, code_challenge: str, fresh: bool) -> str:
        query = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": redirect_uri,
            "state": state,
            "code_challenge": code_challenge,
            "code_challenge_method": "S256",
            **({"prompt": "login"} if fresh else {}),
        }
        return f"{self._url}/identity/authorize?{urlencode(query)}"

    def finish_sign_in(self, *, code: str, redirect_uri: str, code_verifier: str) -> SignIn:
        with self._provider_call("finish_sign_in"):
            request = self._codes.pop(code, None)
            digest = hashlib.sha256(code_verifier.encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if request is None or (request.redirect_uri, request.code_challenge) != (redirect_uri, challenge):
                self._refuse("The authorization code is not valid.", 400)
            return self.sign_in(request.person.iam_id, request.account_id)

    def refresh_sign_in(self, refresh_token: Secret, *, account_id: str | None = None) -> SignIn:
        with self._provider_call("refresh_sign_in"):
            # The text is needed to look the grant up.
            grant = self._grants.pop(refresh_token.reveal(), None)
            wanted = account_id or (grant.account_id if grant else "")
            if grant is None or wanted not in grant.person.account_ids:
                self._refuse("The refresh token is not valid for this account.", 400)
            return self.sign_in(grant.person.iam_id, wanted, auth_time=grant.auth_time)

    def accounts(self, authority: Secret) -> list[Account]:
        with self._provider_call("accounts"):
            # The text is needed to verify the token.
            person = self.people[self._verified(authority.reveal()).iam_id]
            return [self._accounts[account_id] for account_id in person.account_ids]

    def may_act(self, authority: Secret, iam_id: str) -> ActFor | None:
        with self._provider_call("may_act"):
            return next((found for found in self._acting(authority) if found.iam_id == iam_id), None)

    def acts_for(self, authority: Secret) -> list[ActFor]:
        with self._provider_call("acts_for"):
            return self._acting(authority)

    def _acting(self, authority: Secret) -> list[ActFor]:
        # The text is needed to verify the token.
        token = self._verified(authority.reveal())
        permitted = [
            service_id
            for service_id in self.people.values()
            if self._acts(token, service_id.iam_id) and token.account_id in service_id.account_ids
        ]
        return [ActFor(each.iam_id, token.account_id, each.name) for each in permitted]

    def check(self) -> None:
        with self._provider_call("check"):
            pass
