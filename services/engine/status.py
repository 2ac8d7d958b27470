"""What was done, counted in SQLite: so the counts survive a restart, and a bar that was decided twice would show."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from services.engine.desk import Desk
from services.engine.records import KeptSeries
from shared.contracts.times import from_ms, timeframe_ms
from shared.runtime.store import Store


class SeriesStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument. Bars are counted from the first that was no history."""

    symbol: str
    timeframe: str
    bars_decided: int
    bars_absent: int  # announced as gaps
    bars_missed: int  # neither decided nor announced
    bars_doubled: int  # decided more than once
    last_bar: datetime | None  # opened at


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's work since it first began."""

    account: str
    venue: str
    mode: str
    state: str
    bars_decided: int
    bars_missed: int
    bars_doubled: int
    decisions: int  # param.decision taken in
    orders: int
    fills: int
    trades_closed: int
    halts: int
    regimes: dict[str, int]
    equity_start: Decimal
    equity_end: Decimal
    open_orders: int
    halted_sleeves: dict[str, str]
    series: tuple[SeriesStatus, ...]


async def status(store: Store, desk: Desk, account: str, venue: str, mode: str) -> Status:
    """Count."""
    series = [await _series_status(store, desk, name) for name in desk.series]
    regimes = {"BULL": 0, "BEAR": 0, "CHOP": 0, "UNKNOWN": 0}
    regimes |= {
        str(name): int(count)
        for name, count in await store.rows("select regime, count(*) from bars where is_history = 0 group by regime")
    }
    cash = await store.fact("cash")
    return Status(
        account=account,
        venue=venue,
        mode=mode,
        state=desk.standing.state,
        bars_decided=_total(series, "bars_decided"),
        bars_missed=_total(series, "bars_missed"),
        bars_doubled=_total(series, "bars_doubled"),
        decisions=await _count(store, "journal where direction = 'heard' and message_id glob 'ParamDecision:*'"),
        orders=await _count(store, "orders"),
        fills=await _count(store, "fills"),
        trades_closed=await _count(store, "trades"),
        halts=await _count(store, "halts"),
        regimes=regimes,
        equity_start=Decimal(0) if cash is None else Decimal(cash.decode()),
        equity_end=desk.standing.equity,
        open_orders=len(desk.sleeve_of),
        halted_sleeves={each.name: each.kept.halted for each in desk.sleeves.values() if each.kept.halted},
        series=tuple(series),
    )


async def _series_status(store: Store, desk: Desk, name: str) -> SeriesStatus:
    series = desk.series[name]
    row = await store.row(  # one statement, so that what is compared was committed together
        "select count(*), count(distinct opened_ms), (select content from series where series = ?1) "
        "from bars where series = ?1 and is_history = 0",
        name,
    )
    rows, decided = (0, 0) if row is None else (int(row[0]), int(row[1]))
    kept = KeptSeries() if row is None or row[2] is None else msgspec.msgpack.decode(row[2], type=KeptSeries)
    first, last = kept.first_live_ms, kept.watermark_ms
    slots = 0 if first < 0 else (last - first) // timeframe_ms(series.timeframe) + 1
    return SeriesStatus(
        symbol=series.symbol,
        timeframe=series.timeframe,
        bars_decided=decided,
        bars_absent=kept.absent,
        bars_missed=slots - decided - kept.absent,
        bars_doubled=rows - decided,
        last_bar=from_ms(last) if last >= 0 else None,
    )


async def _count(store: Store, what: str) -> int:
    row = await store.row(f"select count(*) from {what}")
    return 0 if row is None else int(row[0])


def _total(series: Iterable[SeriesStatus], field: str) -> int:
    return sum(getattr(each, field) for each in series)
