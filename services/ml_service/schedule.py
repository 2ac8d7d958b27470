"""When a schedule in cron's words comes due, by the venue's time (UTC). Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

RESOLUTION = timedelta(seconds=1)


def newest_tick(expression: str, now: datetime) -> datetime | None:
    """The last moment up to `now` that the schedule names, None when it names none. Raises ValueError on no schedule.

    Who remembers the last tick that was served, and asks for the newest, serves once however many were missed.
    """
    try:
        return next(CronSim(expression, now + RESOLUTION, reverse=True), None)  # the library's begin is not included
    except CronSimError as error:
        raise ValueError(
            f"expected minute, hour, day, month, weekday in cron's words, such as '0 3 * * *', was {expression!r}: {error}"
        ) from error
