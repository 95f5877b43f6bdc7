"""The Python interface for services and jobs.

    from taskcred.client import Client, TaskSession

`Client` (and `AsyncClient`) starts, watches and executes runs; `TaskSession` gives a job an access token
that is always fresh. docs/howto/client.md shows them at work.
"""

from __future__ import annotations

from taskcred.client import errors
from taskcred.client.attempt import AsyncAttempt, Attempt
from taskcred.client.clients import AsyncClient, Client
from taskcred.client.models import Event, Grant, Output, Run
from taskcred.client.operations import ENDED
from taskcred.client.session import TaskSession

__all__ = [
    "ENDED",
    "AsyncAttempt",
    "AsyncClient",
    "Attempt",
    "Client",
    "Event",
    "Grant",
    "Output",
    "Run",
    "TaskSession",
    "errors",
]
