"""Key material: where it lies in the vault, what a key is called at the provider, which texts pass."""

from __future__ import annotations

from typing import Final

from taskcred.domain import keytext
from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError

_SHORTEST: Final = 16
_LONGEST: Final = 512


def path(credential_id: str, key_id: str) -> str:
    """The vault path of a key's material."""
    return f"credentials/{credential_id}/{key_id}"


def provider_name(credential_id: str, key_id: str) -> str:
    """The name of a key we make at the provider: unique, and recognisably ours."""
    return f"taskcred {credential_id}.{key_id}"


def check_provided(api_key: Secret) -> None:
    """Raise InvalidRequestError where the text cannot be an API key; whether it is one, the provider
    says."""
    # The text is needed to look at its form.
    text = api_key.reveal()
    if not _SHORTEST <= len(text) <= _LONGEST or not all("!" <= c <= "~" for c in text):
        raise InvalidRequestError(
            "This is not the text of an API key.",
            hint=f"Paste the key itself: {_SHORTEST} to {_LONGEST} visible ASCII characters, no spaces.",
            code="key_malformed",
            field="secret.api_key",
        )
    if keytext.is_standin_key(text):
        raise InvalidRequestError(
            "This is a stand-in key of a run, not an API key.",
            hint="Paste an API key of your own.",
            code="key_is_standin",
            field="secret.api_key",
        )
    is_ours = text.startswith(keytext.USER_KEY_PREFIX) and len(text) == keytext.LENGTH
    if is_ours and not keytext.has_form(text, keytext.USER_KEY_PREFIX):
        raise InvalidRequestError(
            "This key has a typing error: its checksum does not fit.",
            hint="Copy the key again, all of it.",
            code="key_malformed",
            field="secret.api_key",
        )
