"""Ways back to a service, out of these pages: only to a callback URL of its own (`domain.services.leads_back`)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from flask import g

from taskcred.domain.services import ServiceState, answer_url, leads_back
from taskcred.errors import NotFoundError
from taskcred.http.authentication import context as ctx
from taskcred.services import runs
from taskcred.store import services
from taskcred.web.frame import me

_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")


def host_of(url: str) -> str:
    """Where a way back leads, as people read it; empty: nowhere else."""
    return urlsplit(url).netloc


def let_forms_lead_to(url: str) -> None:
    """The answer to this page's form may lead there."""
    origin = f"{urlsplit(url).scheme}://{host_of(url)}"
    if _ORIGIN.fullmatch(origin):
        g.form_leads_to = origin


def of_run(run_id: str | None) -> str:
    """The way back that the service gave to this run of the person's, with `run_id` in its query; empty where
    there is none, or not any more."""
    if not run_id:
        return ""
    try:
        run = runs.get(ctx(), me(), run_id)
    except NotFoundError:
        return ""
    if run.service_id is None:
        return ""
    with ctx().store.read() as connection:
        service = services.find(connection, run.service_id)
    # Looked at again: the URL may have left the list since the run was started.
    if service is None or service.state != ServiceState.ACTIVE:
        return ""
    if not leads_back(service.callback_urls, run.return_to):
        return ""
    return answer_url(run.return_to, run_id=run.id)
