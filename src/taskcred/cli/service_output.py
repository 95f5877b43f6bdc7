"""How the commands about services print one, and hand out secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from taskcred.cli import output

if TYPE_CHECKING:
    from taskcred.domain.services import ServiceView

_ONCE: Final = "Secrets are shown this once: nobody can read them again."


def plain(service: ServiceView) -> dict[str, Any]:
    """The service for programs: as REST has it, with its id under the name that clients know."""
    values = asdict(service)
    return {"client_id": values.pop("id")} | {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }


def say(service: ServiceView, sentence: str, *, webhook_secret: str = "", as_json: bool) -> None:
    """The service as it is now, with a webhook secret that is told this once; for people with `sentence`
    beside it."""
    values = plain(service) | ({"webhook_secret": webhook_secret} if webhook_secret else {})
    if as_json:
        output.data(values)
        return
    if sentence:
        output.note(sentence)
    secrets, trusts, people = (values.pop(name) for name in ("secrets", "trusts", "administrators"))
    values["created_at"] = f"{service.created_at:%Y-%m-%d %H:%M} UTC ({output.distance(service.created_at)})"
    output.facts(
        (name, ", ".join(value) if isinstance(value, list) else value) for name, value in values.items()
    )
    if webhook_secret:
        output.note(_ONCE)
    for secret in secrets:
        output.line(_secret(secret))
    for trust in trusts:
        output.line(f"trusts {trust['subject']} of {trust['issuer']} for {trust['audience']}: {trust['id']}")
    for person in people:
        output.line(f"administrator {' '.join(filter(None, (person['email'], person['iam_id'])))}")


def _secret(secret: Mapping[str, Any]) -> str:
    used, ends = secret["last_used_at"], secret["ends_at"]
    words = [
        f"secret …{secret['last_four']}: made {output.distance(secret['created_at'])}",
        f"last used {output.distance(used)}" if used else "not used yet",
    ]
    return ", ".join(words + ([f"ends {output.distance(ends)}"] if ends else []))


def show_secrets(service: ServiceView, url: str, shown: Mapping[str, str], *, as_json: bool) -> None:
    """What a service needs to prove itself, and its secrets, this once; or the file that has them."""
    values = {"name": service.name, "url": url or None, "client_id": service.id, **shown}
    if as_json:
        output.data(values)
        return
    output.facts(values.items())
    if shown.keys() & {"client_secret", "webhook_secret"}:
        output.note(_ONCE)
