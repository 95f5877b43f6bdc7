"""A form that starts something starts it once, however often it is sent: a second press, a reload."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from flask import request

from taskcred.errors import PolicyViolationError
from taskcred.http.authentication import context as ctx
from taskcred.services import idempotency
from taskcred.services.idempotency import Answer
from taskcred.web.frame import me

FIELD: Final = "once"
_FORM: Final = re.compile(r"[0-9a-f]{32}")


def once(asked: object, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` answers, or answered when this very form, with the same contents `asked`, came before."""
    key = request.form.get(FIELD, "")
    if not _FORM.fullmatch(key):
        return work()
    try:
        answer = idempotency.once(ctx(), me(), str(request.endpoint), key, asked, lambda: Answer(201, work()))
    except PolicyViolationError as error:
        if error.error_code != "idempotency_key_reused":
            raise
        return work()  # the browser went back and the person changed something: that is a new request
    return answer.body
