"""Whose grant a job runs under, where the engine knows its people by names of its own."""

from __future__ import annotations

from collections.abc import Mapping

from taskcred.client import Client
from taskcred.errors import ConfigurationError, ForbiddenError


def grant_of(client: Client, owners: Mapping[str, str], name: str, task: str) -> str:
    """The id of the active grant for `task` that the person called `name` in the engine gave this service.

    `owners` says which iam_id a name stands for, with "@" and the account's id behind it for one of somebody's
    accounts; whoever may edit it decides who acts as whom. Grants are looked up by iam_id, not noted by id: a
    consent that was renewed has another id. Raises ConfigurationError for a name without an iam_id, or with
    grants in more than one account, ForbiddenError where there is no such grant.
    """
    iam_id = owners.get(name)
    if iam_id is None:
        raise ConfigurationError(
            f"{name!r} stands for nobody in taskcred.",
            hint=f'Say in the setting `owners` whose iam_id it is: {{"{name}": "IBMid-…"}}.',
        )
    iam_id, _, account_id = iam_id.partition("@")
    found = [
        grant
        for grant in client.grants()
        if (grant.iam_id, grant.account_id) == (iam_id, account_id or grant.account_id)
        and grant.is_active
        and task in grant.tasks
    ]
    if len({grant.account_id for grant in found}) > 1:
        raise ConfigurationError(
            f"{name} ({iam_id}) has given grants for the task {task!r} in more than one account.",
            hint="Say in the setting `owners` which account is meant: "
            + " or ".join(sorted(f'"{grant.iam_id}@{grant.account_id}"' for grant in found))
            + ".",
        )
    if found:
        return found[0].id
    raise ForbiddenError(
        f"{name} ({iam_id}) has given no grant for the task {task!r} that is still good.",
        hint="Ask them to open the address of the consent page, signed in to taskcred.",
        action_url=client.consent_url(tasks=[task]),
        code="no_grant",
    )
