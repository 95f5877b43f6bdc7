"""Acting for a service id (`serviceid:act`): who signed in does for it what its owner may do.

The identity provider is asked at each request and its answer is never kept, so a permission that is taken
away is gone with the next request.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from taskcred.domain.permissions import Permission, Principal
from taskcred.errors import ForbiddenError
from taskcred.ports import ActFor
from taskcred.services.authorize import authorize, record_refusal
from taskcred.services.context import Context

_IAM_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


def act_for(ctx: Context, person: Principal, iam_id: str) -> Principal:
    """`person` as the service id. Raises ForbiddenError: of `authorize` for whoever did not sign in
    interactively, and with code act_for_refused where the permission is not there (any more)."""
    authorize(ctx, person, Permission.SERVICEID_ACT, "serviceid", iam_id[:128])
    found = find(ctx, person, iam_id)
    if found is None:
        record_refusal(ctx, person, Permission.SERVICEID_ACT, "serviceid", iam_id[:128], "act_for_refused")
        raise refused()
    return replace(
        person,
        iam_id=found.iam_id,
        account_id=found.account_id,
        acting_iam_id=person.iam_id,
        owner_name=found.name,
    )


def find(ctx: Context, person: Principal, iam_id: str) -> ActFor | None:
    """What the identity provider says at this moment."""
    if person.token is None or not _IAM_ID.fullmatch(iam_id):
        return None
    return ctx.provider.may_act(person.token, iam_id)


def refused(action_url: str | None = None) -> ForbiddenError:
    """One answer for a service id that is not there and for one that is not theirs to act for."""
    return ForbiddenError(
        "You may not act for this service id in this account, or not any more.",
        hint="The operator of the server lets people act for service ids: `taskcred iam allow-act`. "
        "Check the account you are signed in to.",
        code="act_for_refused",
        action_url=action_url,
    )
