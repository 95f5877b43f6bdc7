"""Exit codes: one table over the error tree. docs/cli.md prints it; a test walks the tree."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from taskcred import errors


class ExitCode(IntEnum):
    """What the process's exit status means."""

    OK = 0
    BUG = 1  # in taskcred, not in what was asked
    USAGE = 2  # a flag or value is wrong
    NOT_FOUND = 3
    REFUSED = 4  # not signed in, not allowed, or a key was refused
    CONFLICT = 5  # the thing's present state does not allow it
    UNAVAILABLE = 6  # passing: try again
    CONFIGURATION = 7
    INTEGRITY = 8  # stored bytes are not what we wrote, or the master key is wrong
    BAD_RESULT = 9  # the command worked; what it looked at did not: a failed run, a failed check
    # `exec`: every other status is the command's own.
    NOT_STARTED = 125
    NOT_EXECUTABLE = 126
    NO_COMMAND = 127
    INTERRUPTED = 130


class CommandEnded(SystemExit):
    """`exec` ends with the status of the command that it ran, whatever that number means elsewhere."""


EXIT_CODES: Final[dict[type[errors.TaskcredError], ExitCode]] = {
    errors.TaskcredError: ExitCode.BUG,
    errors.RequestError: ExitCode.USAGE,
    errors.InvalidRequestError: ExitCode.USAGE,
    errors.InvalidTokenError: ExitCode.REFUSED,
    errors.ForbiddenError: ExitCode.REFUSED,
    errors.NotFoundError: ExitCode.NOT_FOUND,
    errors.ConflictError: ExitCode.CONFLICT,
    errors.StalePreconditionError: ExitCode.CONFLICT,
    errors.PolicyViolationError: ExitCode.REFUSED,
    errors.RateLimitedError: ExitCode.UNAVAILABLE,
    errors.UnavailableError: ExitCode.UNAVAILABLE,
    errors.VaultSealedError: ExitCode.UNAVAILABLE,
    errors.VaultUnreachableError: ExitCode.UNAVAILABLE,
    errors.VaultRefusedError: ExitCode.UNAVAILABLE,
    errors.StoreBusyError: ExitCode.UNAVAILABLE,
    errors.UpstreamUnavailableError: ExitCode.UNAVAILABLE,
    errors.OutOfTouchError: ExitCode.UNAVAILABLE,
    errors.ConfigurationError: ExitCode.CONFIGURATION,
    errors.IntegrityError: ExitCode.INTEGRITY,
    errors.WrongMasterKeyError: ExitCode.INTEGRITY,
    errors.RecordNotFoundError: ExitCode.INTEGRITY,
    errors.KeyRefusedError: ExitCode.REFUSED,
    errors.ProviderRefusedError: ExitCode.REFUSED,
}


def exit_code(error: errors.TaskcredError) -> ExitCode:
    """The exit code for `error`: its class's entry, or that of the nearest base that has one."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
