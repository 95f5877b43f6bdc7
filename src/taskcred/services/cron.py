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
_SECOND: Final = timedelta(seconds=1)
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


def is_zone(name: str) -> bool:
    """Whether this host knows the time zone; one that it knew may have left its database since."""
    try:
        return name not in _OF_THE_HOST and bool(ZoneInfo(name))
    except (ValueError, KeyError, OSError):
        return (
            False  # KeyError: no such zone. ValueError: a path that is none. OSError: a directory of zones.
        )


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
    last = after.astimezone(UTC).replace(microsecond=0)
    reading = _by_elapsed_time if fields[_HOUR].startswith("*") else _by_wall_clock
    for at in reading(cron, zone, last):
        if at > last:
            last = at
            yield at


def _by_wall_clock(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    # Later wall times never mean earlier instants, since a repeated time means its first: what is not
    # after `after` on the wall is not after it at all.
    for wall in CronSim(cron, _wall(after, zone)):
        at = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if _wall(at, zone) == wall:
            yield at
        else:
            # In a gap, the two folds read the wall time with the offsets after and before it (PEP 495).
            yield _change(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), at, zone)


def _by_elapsed_time(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    # While the offset stays, wall time is elapsed time; where it changes we begin again with the new one.
    # (Left to itself with a zone, cronsim 2.8 loses times where the clock moves by half an hour.)
    since, start = after, _wall(after, zone)
    while True:
        offset = _offset(since, zone)
        for wall in CronSim(cron, start):
            at = wall.replace(tzinfo=UTC) - offset
            if _offset(at, zone) != offset:
                since = _change(since, at, zone)
                start = _wall(since, zone) - _SECOND  # the first instant of the new offset counts
                break
            since = at
            yield at
        else:
            return


def _change(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """The first second after `low` at which the offset is not that of `low`; at `high` it is not."""
    before = _offset(low, zone)
    while high - low > _SECOND:
        middle = low + ((high - low) // (2 * _SECOND)) * _SECOND
        low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
    return high


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return _wall(at, zone) - at.replace(tzinfo=None)


def _wall(at: datetime, zone: ZoneInfo) -> datetime:
    """What the clock on the wall shows at an instant in UTC."""
    return at.astimezone(zone).replace(tzinfo=None)


def _zone(name: str) -> ZoneInfo:
    if is_zone(name):
        return ZoneInfo(name)
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
