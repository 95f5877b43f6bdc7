"""Answering a prompt: it makes the credential that whatever waits needs. (Credentials settle prompts, so this
stands above both.)"""

from __future__ import annotations

from taskcred.domain.credentials import DEFAULT_NAME, Created, Drain, KeySource
from taskcred.domain.permissions import Permission, Principal
from taskcred.domain.runs import PromptState
from taskcred.errors import ConflictError
from taskcred.services import credentials, prompts
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.store import prompts as store


def answer(ctx: Context, principal: Principal, prompt_id: str, source: KeySource, name: str = "") -> Created:
    """Give what the prompt asks for: a first key, or a new key in place of one that no longer works.

    Every parked run of the owner is queued in the transaction that makes the credential usable. Raises
    NotFoundError; ConflictError (`prompt_closed`; `credential_locked`: only an operator lifts a lock);
    and whatever making a credential raises.
    """
    authorize(ctx, principal, Permission.PROMPT_ANSWER, "prompt", prompt_id)
    with ctx.store.write() as connection:
        prompt = prompts.find_own(connection, principal, prompt_id)
        standing = store.standing(connection, principal.account_id, principal.iam_id)
        if prompt.state is PromptState.OPEN and not standing.why:
            # Whatever made the credential usable has settled the prompt; this mends a restored database.
            prompts.settle(ctx, connection, principal.account_id, principal.iam_id, actor_of(principal))
    if prompt.state is not PromptState.OPEN or not standing.why:
        raise ConflictError(
            "Nothing waits for this answer any more.",
            hint="Your runs show how they go on.",
            code="prompt_closed",
            action_url=f"{ctx.public_url}/runs",
        )
    if standing.why == "locked":
        raise ConflictError(
            "Your task credential is locked, and a new key does not lift a lock.",
            hint="Ask your taskcred operator to unlock it; everything that waits then starts by itself.",
            code="credential_locked",
        )
    if standing.credential_id is None:
        return credentials.create(ctx, principal, name=name or DEFAULT_NAME, source=source)
    return credentials.rotate(ctx, principal, standing.credential_id, source=source, drain=Drain())
