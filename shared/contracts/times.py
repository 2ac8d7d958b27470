"""Times are aware and UTC; a bar is named by the instant at which it opened. Timeframes are written as exchanges do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared.contracts.errors import BadMessage

TIMEFRAMES: dict[str, timedelta] = {
    "1m": timedelta(minutes=1),
    "3m": timedelta(minutes=3),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "30m": timedelta(minutes=30),
    "1h": timedelta(hours=1),
    "2h": timedelta(hours=2),
    "4h": timedelta(hours=4),
    "6h": timedelta(hours=6),
    "8h": timedelta(hours=8),
    "12h": timedelta(hours=12),
    "1d": timedelta(days=1),
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
FOR_EVER_MS = 2**47  # as a time (ms): the year 6429, which no bar will reach


def timeframe_length(timeframe: str) -> timedelta:
    """How long one bar of this timeframe lasts."""
    try:
        return TIMEFRAMES[timeframe]
    except KeyError:
        raise BadMessage(f"A timeframe must be one of {', '.join(TIMEFRAMES)}, was {timeframe!r}.") from None


def timeframe_ms(timeframe: str) -> int:
    """The length of one bar in milliseconds."""
    return timeframe_length(timeframe) // MILLISECOND


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970 UTC, exactly (no float on the way)."""
    return (moment - EPOCH) // MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    """The aware UTC instant of milliseconds since 1970."""
    return EPOCH + timedelta(milliseconds=milliseconds)


def parse_time(text: str) -> datetime:
    """`2022-01-01`, `2022-01-01T12:00` or with an offset, as an aware UTC instant. Without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadMessage(f"A time must look like 2022-01-31 or 2022-01-31T12:00, was {text!r}.") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
