"""Every class of the error tree has its answer in IBM's containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskcred import errors
from taskcred.errors import TaskcredError
from taskcred.iam.errors import answer_for


def classes(kind: type[TaskcredError]) -> Iterator[type[TaskcredError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from classes(child)


def made(kind: type[TaskcredError]) -> TaskcredError:
    return kind("x", status=418) if kind is errors.ProviderRefusedError else kind("x")


@pytest.mark.parametrize("kind", sorted(classes(TaskcredError), key=lambda kind: kind.__name__))
def test_callers_errors_are_4xx_and_ours_are_5xx(kind: type[TaskcredError]) -> None:
    status, bxnim = answer_for(made(kind))
    callers = issubclass(kind, errors.RequestError | errors.KeyRefusedError)
    assert (400 <= status < 500) if callers else status in {500, 503}
    assert bxnim.startswith("BXNIM")


def test_an_error_may_name_its_own_code() -> None:
    error = errors.InvalidTokenError("x", bxnim="BXNIM0401E", status=400)
    assert answer_for(error) == (400, "BXNIM0401E")
