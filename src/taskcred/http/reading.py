"""Reading requests strictly: what does not fit our models is refused before anything looks at it.

Python's JSON reader accepts more than JSON and than a database can hold: NaN, lone surrogates, NUL, nesting
without end. All of that is a 400 that names the cause.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from flask import Request, Response
from pydantic import ValidationError
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from taskcred.errors import InvalidRequestError

MAX_BODY: Final = 1024 * 1024
_MAX_DEPTH: Final = 32
_UNFIT_TEXT: Final = re.compile("[\x00\ud800-\udfff]")
_MAX_INT: Final = 1 << 63


class StrictRequest(Request):
    """A request whose JSON body is an object of plain values, or an InvalidRequestError."""

    # One more than we take: werkzeug cuts a body of unknown length off here without a word.
    max_content_length = MAX_BODY + 1

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body. The arguments of Flask's method are accepted and change nothing: none of our routes
        wants a body that might be JSON."""
        if self.mimetype != "application/json" and not self.mimetype.endswith("+json"):
            raise UnsupportedMediaType
        raw = self.get_data()
        if len(raw) > MAX_BODY:
            raise RequestEntityTooLarge
        return read_json(raw)


def refuse_oversized(request: Request) -> None:
    """Refuse a body that says it is too large before any of it is read."""
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise RequestEntityTooLarge


def read_json(raw: bytes) -> dict[str, Any]:
    """The object in `raw`."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise _unreadable("It is not UTF-8.") from None
    except RecursionError:
        raise _unreadable("It is nested too deeply.") from None
    except ValueError:
        raise _unreadable("It is not JSON, or holds a number without end.") from None
    if not isinstance(value, dict):
        raise _unreadable("It is not a JSON object.")
    _refuse_unfit(value)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _unreadable(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The request body cannot be read. {why}", hint="Send one JSON object.", field="body"
    )


def _refuse_unfit(value: Any) -> None:
    """Walk the value without recursion: it comes from outside."""
    todo: list[tuple[Any, int]] = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise _unreadable(f"It is nested more than {_MAX_DEPTH} deep.")
        if isinstance(item, dict):
            todo.extend((key, depth) for key in item)
            todo.extend((member, depth + 1) for member in item.values())
        elif isinstance(item, list):
            todo.extend((member, depth + 1) for member in item)
        elif isinstance(item, str) and _UNFIT_TEXT.search(item):
            raise _unreadable("A text in it holds NUL or half a surrogate pair.")
        elif isinstance(item, int) and not -_MAX_INT <= item < _MAX_INT:
            raise _unreadable("A number in it does not fit into 64 bits.")


def refuse_invalid(error: ValidationError) -> Response:
    """flask-openapi3's hook for what does not fit a model: an InvalidRequestError that names the field.

    Pydantic's own text would do, except that it can quote the value, which may be a key.
    """
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])[:128]  # a member we do not know has any name
    message = first["msg"].removeprefix("Value error, ")
    raise InvalidRequestError(
        f"{field}: {message}" if field else message,
        hint=f"Correct {field or 'the request'} and send it again; /openapi.json says what is expected.",
        field=field or "body",
    ) from None
