"""What the controller keeps in SQLite, and how it comes back. Bodies are JSON, so that a person can read them;
a reading may hold NaN, which JSON has not, and is MessagePack.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from services.param_controller.controller import ParamController
from services.param_controller.holding import Holding
from services.param_controller.sleeves import Arm, Earned, Key, Lesson
from shared.contracts.execution import TradeClosed
from shared.contracts.parameters import ParamDecision
from shared.contracts.regime import RegimeReading
from shared.contracts.times import from_ms, to_ms
from shared.runtime.store import Statement, Store

T = TypeVar("T")
_SLEEVE = "venue text not null, strategy text not null, symbol text not null, timeframe text not null"

TABLES = (
    (
        f"create table arms ({_SLEEVE}, preset_id text not null, body text not null,"
        " primary key (venue, strategy, symbol, timeframe, preset_id)) without rowid"
    ),
    (
        f"create table decisions (decision_id text primary key, {_SLEEVE}, epoch integer not null, body text not null)"
        " without rowid"
    ),
    "create index decisions_by_epoch on decisions (venue, strategy, symbol, timeframe, epoch)",
    # In the order in which they were learned: a posterior is this table, read from the top.
    (
        "create table lessons (sequence integer primary key autoincrement, decision_id text not null unique,"
        f" {_SLEEVE}, body text not null)"
    ),
    (
        f"create table trades (trade_id text not null, {_SLEEVE}, decision_id text not null, closed_ms integer not null,"
        " result_r real not null, primary key (venue, trade_id)) without rowid"
    ),
    "create index trades_by_decision on trades (decision_id)",
    (
        f"create table holdings ({_SLEEVE}, body text not null, primary key (venue, strategy, symbol, timeframe))"
        " without rowid"
    ),
    (
        "create table readings (venue text not null, symbol text not null, timeframe text not null, body blob not null,"
        " primary key (venue, symbol, timeframe)) without rowid"
    ),
    # A name that a person gave to a preset, see the route /preset/register.
    (
        f"create table names ({_SLEEVE}, name text not null, preset_id text not null, body text not null,"
        " primary key (venue, strategy, symbol, timeframe, name)) without rowid"
    ),
)


async def recall(store: Store, controller: ParamController) -> None:
    """Let the controller become what it was."""
    rows = store.rows
    controller.recover(
        arms=[
            (Key(*key), name, _read(body, Arm))
            for *key, name, body in await rows("select venue, strategy, symbol, timeframe, preset_id, body from arms")
        ],
        lessons=[
            (Key(*key), _read(body, Lesson))
            for *key, body in await rows(
                "select venue, strategy, symbol, timeframe, body from lessons order by sequence"
            )
        ],
        decisions=[
            _read(body, ParamDecision)
            for _, body in await rows(
                "select max(epoch), body from decisions group by venue, strategy, symbol, timeframe"
            )
        ],
        trades=[
            (Key(*key), under, Earned(from_ms(closed_ms), trade_id, result_r))
            for *key, under, closed_ms, trade_id, result_r in await rows(
                "select venue, strategy, symbol, timeframe, decision_id, closed_ms, trade_id, result_r from trades"
                " where decision_id not in (select decision_id from lessons)"
            )
        ],
        holdings=[
            (Key(*key), _read(body, Holding))
            for *key, body in await rows("select venue, strategy, symbol, timeframe, body from holdings")
        ],
        readings=[
            msgspec.msgpack.decode(body, type=RegimeReading) for (body,) in await rows("select body from readings")
        ],
    )


def keep_arm(key: Key, preset_id: str, arm: Arm) -> Statement:
    """An admitted preset, or the end of its admission."""
    return Statement("insert or replace into arms values (?, ?, ?, ?, ?, ?)", (*key, preset_id, _written(arm)))


def keep_decision(key: Key, decision: ParamDecision) -> Statement:
    """A choice."""
    return Statement(
        "insert or ignore into decisions values (?, ?, ?, ?, ?, ?, ?)",
        (decision.decision_id, *key, decision.epoch, _written(decision)),
    )


def keep_lesson(key: Key, lesson: Lesson) -> Statement:
    """An outcome, after all those before it. A second one of the same decision fails the transaction."""
    return Statement(
        "insert into lessons (decision_id, venue, strategy, symbol, timeframe, body) values (?, ?, ?, ?, ?, ?)",
        (lesson.outcome.decision_id, *key, _written(lesson)),
    )


def keep_trade(key: Key, trade: TradeClosed) -> Statement:
    """A closed trade, whichever decision it belongs to."""
    return Statement(
        "insert or ignore into trades values (?, ?, ?, ?, ?, ?, ?, ?)",
        (trade.trade_id, *key, trade.decision_id, to_ms(trade.closed_at), trade.result_r),
    )


def keep_holding(key: Key, holding: Holding) -> Statement:
    """What the sleeve holds now."""
    return Statement("insert or replace into holdings values (?, ?, ?, ?, ?)", (*key, _written(holding)))


def keep_reading(reading: RegimeReading) -> Statement:
    """The last reading of its series."""
    return Statement(
        "insert or replace into readings values (?, ?, ?, ?)",
        (reading.venue, reading.symbol, reading.timeframe, msgspec.msgpack.encode(reading)),
    )


def _written(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()


def _read(body: str, kind: type[T]) -> T:
    return msgspec.json.decode(body, type=kind)
