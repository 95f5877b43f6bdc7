"""The wait for an owner's answer, in the triggerer: no worker slot is held while a run is parked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from taskcred.adapters.airflow.hook import TaskcredHook
from taskcred.adapters.attempts import ended_meanwhile


class PromptTrigger(BaseTrigger):
    """Fires when `run_id` no longer waits for a credential: it was answered, or the run has ended."""

    def __init__(self, taskcred_conn_id: str, run_id: str) -> None:
        super().__init__()
        self.taskcred_conn_id = taskcred_conn_id
        self.run_id = run_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How Airflow makes this trigger again in another process."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"taskcred_conn_id": self.taskcred_conn_id, "run_id": self.run_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: `ended` says why there is nothing to carry out any more, if so."""
        client = await TaskcredHook(self.taskcred_conn_id).aget_conn()
        async with client:
            run = await client.wait(self.run_id)
        yield TriggerEvent({"ended": ended_meanwhile(run).message if run.is_final else ""})
