"""Secrets in a text that comes part by part: found also where two parts meet."""

from __future__ import annotations

from collections.abc import Collection

from taskcred.domain.secret import MASK


def mask(text: str, secrets: Collection[str]) -> str:
    """`text` without these secrets, wherever they appear as they are."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def begun(text: str, secrets: Collection[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a secret whose rest is still to come:
    to be held back until it has."""
    longest = max((len(secret) - 1 for secret in secrets), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(secret.startswith(text[-length:]) for secret in secrets):
            return length
    return 0
