"""/v1/prompts: what is asked of the caller, and the answer to it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from flask import Response
from pydantic import BaseModel, Field

from taskcred.domain.permissions import Permission
from taskcred.domain.runs import PromptState
from taskcred.http.answers import once, send
from taskcred.http.authentication import caller, context
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import ABSENT, IdempotencyHeader, Name, PageQuery, SourceIn, Told, left_out
from taskcred.http.task_credentials import NewCredential, created_answer
from taskcred.services import answering, prompts
from taskcred.services.idempotency import Answer

api = nouns("prompts", "Open requests for a task credential.")


class Prompt(Told):
    """A request to an owner. Its address carries no authority: only the owner can answer."""

    id: UUID
    state: PromptState
    why: str = Field(description="missing, unusable or locked.")
    account_id: str
    iam_id: str
    waiting_runs: int = Field(ge=0, description="The parked runs that the answer will queue.")
    opened_at: datetime
    closed_at: datetime | None


class PromptPage(BaseModel):
    """Prompts, newest first."""

    items: list[Prompt]
    next: str | None = Field(description="Send as `after` for the next page; null at the end.")


class PromptQuery(PageQuery):
    """Which prompts."""

    state: PromptState = Field(default=ABSENT, json_schema_extra=left_out)


class AnswerBody(SourceIn):
    """A key source; the same as for a new task credential."""

    name: Name = Field(
        default=ABSENT, json_schema_extra=left_out, description="Name of the key and of a new credential."
    )


class PromptPath(BaseModel):
    """/…/{prompt_id}"""

    prompt_id: UUID


@operation(api, "get", "/v1/prompts", Permission.PROMPT_READ, answers={200: PromptPage})
def list_prompts(query: PromptQuery) -> Response:
    """The caller's prompts in this account, newest first."""
    page, following = prompts.list_own(
        context(), caller(), state=query.state, after=query.after, limit=query.limit
    )
    return send(PromptPage(items=[Prompt.model_validate(view) for view in page], next=following))


@operation(api, "get", "/v1/prompts/<uuid:prompt_id>", Permission.PROMPT_READ, answers={200: Prompt})
def get_prompt(path: PromptPath) -> Response:
    """One prompt of the caller's."""
    return send(Prompt.model_validate(prompts.get(context(), caller(), str(path.prompt_id))))


@operation(
    api,
    "post",
    "/v1/prompts/<uuid:prompt_id>/answer",
    Permission.PROMPT_ANSWER,
    answers={200: NewCredential, 202: NewCredential},
    errors=(409, 422),
)
def answer_prompt(path: PromptPath, header: IdempotencyHeader, body: AnswerBody) -> Response:
    """Give the key that is asked for; every parked run of the caller's in this account is then queued."""

    def work() -> Answer:
        created = answering.answer(
            context(), caller(), str(path.prompt_id), body.source(), name=body.name or ""
        )
        return created_answer(created, 200 if created.stage == "done" else 202)

    return once(header, work)
