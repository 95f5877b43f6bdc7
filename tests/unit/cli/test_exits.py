"""The exit code table and the error tree are one."""

from __future__ import annotations

from taskcred import errors
from taskcred.cli.exits import EXIT_CODES, ExitCode, exit_code


def tree(root: type[errors.TaskcredError]) -> set[type[errors.TaskcredError]]:
    return {root}.union(
        *(tree(child) for child in root.__subclasses__() if child.__module__ == errors.__name__)
    )


def test_every_error_of_the_tree_has_an_exit_code_of_its_own_line() -> None:
    assert tree(errors.TaskcredError) == set(EXIT_CODES)


def test_an_error_made_elsewhere_takes_its_nearest_bases() -> None:
    class StrangerError(errors.VaultSealedError):
        pass

    assert exit_code(StrangerError("…")) is ExitCode.UNAVAILABLE
