"""When a schedule comes due: cron's five fields in an IANA time zone, with the two odd days of the year.

A schedule with a fixed hour ("30 2 * * *") follows the wall clock: in autumn, when 02:30 comes twice, it
comes due at the first one only; in spring, when 02:30 is left out, at the first instant after the gap. A
schedule of every hour ("*/20 * * * *") follows elapsed time and knows nothing of either. The hour field
decides, as in Debian's cron, by beginning with a star or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from taskcred.errors import InvalidRequestError

_HOUR: Final = 1  # the second of the five fields
_DAY: Final = timedelta(days=1)
_OF_THE_HOST: Final = {"localtime", "posixrules"}  # files beside the zones that mean another on each host


def verify_cron(cron: str, timezone: str, now: datetime) -> None:
    """Raise InvalidRequestError (`invalid_cron`, `invalid_timezone`) unless a time will come."""
    zone = _zone(timezone)
    try:
        first = next(_times(cron, zone, now), None)
    except CronSimError as error:
        raise _invalid(f"The cron expression is not valid: {str(error).lower()}.") from None
    if first is None:
        raise _invalid("The cron expression names a time that never comes.")


def next_after(cron: str, timezone: str, after: datetime) -> datetime | None:
    """The first time strictly after `after`, in UTC; None where none comes within 50 years."""
    return next(_times(cron, _zone(timezone), after), None)


def next_times(cron: str, timezone: str, after: datetime, count: int) -> tuple[datetime, ...]:
    """The next `count` times after `after`, in UTC, of an expression that was verified."""
    times = _times(cron, _zone(timezone), after)
    return tuple(at for at, _ in zip(times, range(count), strict=False))


def _times(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Strictly increasing instants after `after`, in UTC."""
    fields = cron.split()
    if len(fields) != 5:
        raise CronSimError("it needs five fields: minute, hour, day of month, month, day of week")
    last = after.astimezone(UTC)
    if fields[_HOUR].startswith("*"):
        candidates = (at.astimezone(UTC) for at in CronSim(cron, after.astimezone(zone)))
    else:
        # On the wall clock, and from a day before: `after` may lie in the repeated hour, whose wall times
        # come again, or just behind a gap that times were moved over.
        wall = after.astimezone(zone).replace(tzinfo=None) - _DAY
        candidates = (_instant(at, zone) for at in CronSim(cron, wall))
    for at in candidates:
        if at > last:
            last = at
            yield at


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """The instant of a wall-clock time: the first of two, or the end of the gap it falls into."""
    at = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None) == wall:
        return at
    # In a gap, fold 0 and 1 read the wall time with the offsets before and after it (PEP 495). The gap
    # ends where the wall clock, read with the old offset, first shows the new one.
    low, high = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), at
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
    return high.replace(microsecond=0)


def _zone(name: str) -> ZoneInfo:
    try:
        if name not in _OF_THE_HOST:
            return ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        pass  # KeyError: no such zone. ValueError: a path that is none. OSError: a directory of zones.
    raise InvalidRequestError(
        "There is no such time zone.",
        hint='Use a name of the IANA database, such as "Europe/Berlin" or "UTC".',
        code="invalid_timezone",
        field="timezone",
    )


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(
        message,
        hint='Five fields: minute, hour, day of month, month, day of week. "30 6 * * 1-5" is 6:30 on weekdays.',
        code="invalid_cron",
        field="cron",
    )
