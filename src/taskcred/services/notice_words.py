"""What notices say to their owner: one place, the same words on the page, in mail and to a webhook."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Words:
    """A sentence for a headline, a few for what happened and the cure, and the page where one acts."""

    title: str
    text: str
    path: str


_KEY_PAGE: Final = "/profile/api-key"
_GRANTS_PAGE: Final = "/profile/grants"

WORDS: Final[dict[str, Words]] = {
    "prompt.missing": Words(
        "A task credential is needed",
        "Your work waits because you have no task credential in this account. "
        "Create one, and everything that waits starts by itself.",
        "/prompts/{prompt_id}",
    ),
    "prompt.unusable": Words(
        "Your task credential needs a new key",
        "Your work waits because the key of your task credential expired or was refused. "
        "Give it a new key, and everything that waits starts by itself.",
        "/prompts/{prompt_id}",
    ),
    "prompt.locked": Words(
        "Your task credential is locked",
        "Your work waits because an operator locked your task credential. "
        "Ask your taskcred operator to unlock it; everything that waits then starts by itself.",
        "/prompts/{prompt_id}",
    ),
    "key_expired": Words(
        "A key has expired",
        "The key {key} of your task credential {credential} has expired. "
        "Runs wait until you give the credential a new key.",
        _KEY_PAGE,
    ),
    "key_refused": Words(
        "A key was refused",
        "The identity provider refuses the key {key} of your task credential {credential}. "
        "Runs wait until you give the credential a new key.",
        _KEY_PAGE,
    ),
    "credential_locked": Words(
        "Your task credential was locked",
        "An operator locked your task credential {credential}: {reason} "
        "Runs wait until it is unlocked; ask your taskcred operator.",
        _KEY_PAGE,
    ),
    "creation_failed": Words(
        "A key could not be made",
        "Your change was undone, nothing half-made is left. The cause: {why}",
        _KEY_PAGE,
    ),
    "intent_given_up": Words(
        "A change was given up",
        "A change to your task credential ({change}) was tried again and again and then given up. "
        "The cause: {why} Tell your taskcred operator.",
        _KEY_PAGE,
    ),
    "grant_expiring": Words(
        "A grant expires soon",
        "{service} may start work for you until {until}. If that shall go on, renew it.",
        "/grants/new?service={service_id}&tasks={tasks}",
    ),
    "grant_ended": Words(
        "A grant was ended",
        "{service} may no longer start work for you: {why} What it had started under your grant was ended too.",
        _GRANTS_PAGE,
    ),
    "notice_given_up": Words(
        "A message did not reach you",
        "A message to you by {channel} was given up: {why} "
        "Messages are shown here in any case; tell your taskcred operator.",
        "/",
    ),
}


def words_for(kind: str, payload: Mapping[str, Any]) -> Words:
    """The words of a notice, with the payload's ids and words filled in.

    A prompt's words depend on its "why". A kind without words is named as it is: telling clumsily is
    better than not telling.
    """
    words = WORDS.get(f"prompt.{payload.get('why')}" if kind.startswith("prompt.") else kind)
    if words is None:
        title = kind.replace(".", " ").replace("_", " ").capitalize()
        return Words(title, f"{title}.", "/")
    given: defaultdict[str, str] = defaultdict(str, {key: str(value) for key, value in payload.items()})
    return Words(words.title, words.text.format_map(given), words.path.format_map(given))
