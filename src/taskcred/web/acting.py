"""Whose page it is that its reader may not see as who they are now: their own, or a service id's that they may
act for. A prompt's link, say, comes to a person by mail, whoever they act for at that moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from taskcred.domain.permissions import Principal
from taskcred.http.sign_in import ACT_FOR_PREFIX
from taskcred.services.context import Context
from taskcred.store import prompts
from taskcred.store import tables as t
from taskcred.web.accounts import Choices

_TABLES = {"run_id": t.runs, "prompt_id": t.prompts, "schedule_id": t.schedules}


@dataclass(frozen=True, slots=True)
class Offer:
    """As whom the reader would see the page. `choice` is what the account switcher sends; `name` the
    service id's, empty where the page is the reader's own."""

    choice: str
    name: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A service id whose work waits for a key, with its open prompt; `choice` as in `Offer`."""

    prompt_id: str
    choice: str
    name: str


def waiting(ctx: Context, reader: Principal, choices: Choices) -> list[Waiting]:
    """The service ids that the reader may act for, and does not now, whose work waits for a key: nobody else
    would tell them, since a service id has no mail."""
    with ctx.store.read() as connection:
        return [
            Waiting(prompt.id, f"{ACT_FOR_PREFIX}{each.iam_id}", each.name)
            for each in choices.service_ids
            if each.iam_id != reader.iam_id
            and (prompt := prompts.find_open(connection, each.account_id, each.iam_id)) is not None
        ]


def offer(ctx: Context, reader: Principal, choices: Choices, named: Mapping[str, Any]) -> Offer | None:
    """How the reader gets to see the page of the thing that its address names; None where it is not theirs
    in any way, which tells nothing about whether there is such a thing."""
    for name, table in _TABLES.items():
        if name in named:
            query = sa.select(table.c.account_id, table.c.iam_id).where(table.c.id == str(named[name]))
            with ctx.store.read() as connection:
                owner = connection.execute(query).first()
            return _offer(reader, choices, owner.account_id, owner.iam_id) if owner else None
    return None


def _offer(reader: Principal, choices: Choices, account_id: str, iam_id: str) -> Offer | None:
    if account_id != reader.account_id or iam_id == reader.iam_id:
        return None
    if iam_id == reader.acting_iam_id:
        return Offer(account_id, "")
    service_id = next((each for each in choices.service_ids if each.iam_id == iam_id), None)
    return Offer(f"{ACT_FOR_PREFIX}{iam_id}", service_id.name) if service_id else None
