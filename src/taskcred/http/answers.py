"""Sending answers: models as JSON, ETags, and the first answer again where a request is a replay."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from flask import Response, jsonify, request
from pydantic import BaseModel
from werkzeug.http import parse_etags

from taskcred.errors import StalePreconditionError
from taskcred.http.authentication import caller, context
from taskcred.http.shapes import IdempotencyHeader, IfMatchHeader, IfNoneMatchHeader
from taskcred.services import idempotency
from taskcred.services.idempotency import Answer, Replayed

_ENTITY_TAG: Final = re.compile(r'"(\d{1,9})-[0-9a-f]{16}"')


def send(
    model: BaseModel,
    status: int = 200,
    *,
    revision: int | None = None,
    header: IfNoneMatchHeader | None = None,
) -> Response:
    """`model` as JSON. With a revision it carries an ETag; 304 where `header` names that."""
    return _send(model.model_dump(mode="json"), status, revision, header)


def nothing() -> Response:
    """204."""
    return Response(status=204)


def _send(
    body: dict[str, Any], status: int, revision: int | None, header: IfNoneMatchHeader | None = None
) -> Response:
    response = jsonify(body)
    response.status_code = status
    if revision is None:
        return response
    # The revision is what If-Match is judged by. The digest is for polling: what changes without a new
    # revision (last use, progress) must not be a 304.
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    tag = f"{revision}-{digest}"
    if header is not None and header.tag is not None and parse_etags(header.tag).contains_weak(tag):
        response = Response(status=304)
    response.set_etag(tag)
    return response


def if_match(header: IfMatchHeader) -> int | None:
    """The revision that If-Match names; None where anything may be changed. Raises StalePreconditionError
    for a tag we never gave out, which cannot be the present one."""
    if header.tag is None or header.tag == "*":
        return None
    known = _ENTITY_TAG.fullmatch(header.tag)
    if known is None:
        raise StalePreconditionError(
            "If-Match is not the ETag of any revision.", hint="Read it again and send its ETag."
        )
    return int(known[1])


def once(
    header: IdempotencyHeader, work: Callable[[], Answer], asked: dict[str, Any] | None = None
) -> Response:
    """`work`'s answer; under an Idempotency-Key, the answer of the first time. The answer's member
    `revision` becomes its ETag. `asked` is what repetitions have in common, where that is not the body."""
    if header.key is None:
        answer: Answer | Replayed = work()
    else:
        what = [request.path, request.get_json() if asked is None else asked]
        answer = idempotency.once(context(), caller(), str(request.endpoint), header.key, what, work)
    response = _send(answer.body, answer.status, answer.body.get("revision"))
    if answer.status == HTTPStatus.CREATED:
        response.headers["Location"] = f"{request.path}/{answer.body['id']}"
    if isinstance(answer, Replayed):
        response.headers["Idempotency-Replayed"] = "true"
    return response
