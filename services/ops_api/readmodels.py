"""What was heard, folded into rows and into what is true now.

A message is folded once (the inbox sees to that), its rows are written in one transaction with it, and a start folds
the same rows back: `recover` ends where the last process stopped. Lists stay in SQLite, see `queries`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from services.ops_api.now import CURRENT, Now, about, series_of, sleeve_of
from shared.contracts import subjects as said
from shared.contracts.execution import PortfolioSnapshot, TradeClosed, TradeFill
from shared.contracts.governance import ModelDemoted, PresetDemoted, PresetPromoted, StageChanged
from shared.contracts.market import BarClosed, GapFound
from shared.contracts.regime import MarketRegime, RegimeReading
from shared.contracts.risk import BreakerTripped, CommandAnswered
from shared.contracts.subjects import Subject
from shared.contracts.times import from_ms, timeframe_ms, to_ms
from shared.contracts.wire import Message
from shared.runtime.listening import Effects, Handler
from shared.runtime.store import Store

PRUNE_EVERY = 500  # bars of a series between two prunings
PAGE = 10_000  # rows folded back at a time
# Fields by which an event can be looked up.
NAMES = ("order_id", "decision_id", "preset_id", "model_id", "trade_id", "subject_id", "evidence_id", "job_id")
# Heard, kept, and nothing more to do; those with a name are counted under it.
TOLD: dict[Subject[Any], str] = {
    said.QUALITY_FLAGGED: "quality_flags",
    said.CHUNK_REGISTERED: "",
    said.UNIVERSE_UPDATED: "",
    said.REGIME_TRANSITION: "transitions",
    said.REGIME_MISMATCH: "mismatches",
    said.MODEL_TRAINED: "models_trained",
    said.MODEL_PROMOTED: "models_promoted",
    said.MODEL_DRIFTED: "",
    said.PRESET_CANDIDATE: "presets_proposed",
    said.PRESET_REFUSED: "presets_refused",
    said.PARAM_DECISION: "decisions",
    said.PARAM_OUTCOME: "outcomes",
    said.SIGNAL: "signals",
    said.ORDER_SUBMITTED: "orders",
    said.ORDER_ACCEPTED: "",
    said.ORDER_REJECTED: "orders_rejected",
    said.ORDER_CANCELED: "",
    said.ORDER_EXPIRED: "",
    said.TRADE_FILL: "fills",
    said.RAIL_TOUCHED: "rails",
    said.EVIDENCE_ORDERED: "",
    said.EVIDENCE_GIVEN: "",
    said.ALERT: "alerts",
    said.NOTIFIED: "notifications",
    said.AUDITED: "",
    said.PARKED: "parked",
}
# Which part of the page is stale after an event of this stream.
PARTS = {"GOV": "governance", "PARAM": "presets", "EXEC": "orders", "RISK": "state", "OPS": "alerts"}


class ReadModels:
    """Everything heard, as far as people ask for it. `stale(part)` is called when something they see has changed."""

    def __init__(self, now: Now, bars_kept: int) -> None:
        self.now, self._bars_kept = now, bars_kept
        self.stale: Callable[[str], None] = lambda part: None
        self.answered: Callable[[CommandAnswered], None] = lambda answer: None

    async def recover(self, store: Store) -> None:
        """Fold back what was kept."""
        self.now.counts.update(dict(await store.rows("select name, n from counts")))
        kinds = {kind.__name__: kind for kind in CURRENT}
        for kind, body in await store.rows("select kind, body from latest"):
            self.now.remember(msgspec.msgpack.decode(body, type=kinds[kind]))
        at: tuple[int, str] = (-1, "")
        trades = "select closed_ms, trade_id, body from trades where (closed_ms, trade_id) > (?, ?)"
        while page := await store.rows(f"{trades} order by closed_ms, trade_id limit {PAGE}", *at):
            for closed_ms, trade_id, body in page:
                at = closed_ms, trade_id
                self.now.earn(msgspec.msgpack.decode(body, type=TradeClosed))
        at_ms = -1
        curve = f"select at_ms, equity from equity where account = ? and at_ms > ? order by at_ms limit {PAGE}"
        while page := await store.rows(curve, self.now.account, at_ms):
            for at_ms, equity in page:
                self.now.earnings.book_snapshot(from_ms(at_ms), Decimal(equity))

    def handlers(self) -> dict[Subject[Any], Handler]:
        """A handler for every subject that this service hears and that is kept."""
        told: dict[Subject[Any], Handler] = {subject: self._on_event(subject, name) for subject, name in TOLD.items()}
        return told | {
            said.BAR_CLOSED: self._on_bar,
            said.GAP_FOUND: self._on_gap,
            said.REGIME_READING: self._on_reading,
            said.MARKET_REGIME: self._on_market,
            said.MODEL_DEMOTED: self._on_model_demoted,
            said.PRESET_PROMOTED: self._on_preset_promoted,
            said.PRESET_DEMOTED: self._on_preset_demoted,
            said.STAGE_CHANGED: self._on_stage,
            said.TRADE_CLOSED: self._on_trade,
            said.PORTFOLIO_SNAPSHOT: self._on_snapshot,
            said.BREAKER_TRIPPED: self._on_breaker,
            said.COMMAND_ANSWERED: self._on_answer,
        }

    def _on_event(self, subject: Subject[Any], counted: str) -> Handler:
        is_current = subject.message in CURRENT

        async def handle(message: Message, effects: Effects) -> None:
            self._keep(effects, message)
            if is_current:
                self._remember(effects, message)
            if counted:
                self.count(effects, counted)

        return handle

    async def _on_bar(self, bar: BarClosed, effects: Effects) -> None:
        series, opened_ms = series_of(bar), to_ms(bar.opened_at)
        effects.execute(
            "insert or replace into bars values (?, ?, ?, ?, ?, ?, ?)",
            *(series, opened_ms, bar.open, bar.high, bar.low, bar.close, bar.volume),
        )
        length = timeframe_ms(bar.timeframe)
        if opened_ms // length % PRUNE_EVERY == 0:
            for table in ("bars", "readings"):
                oldest_ms = opened_ms - self._bars_kept * length
                effects.execute(f"delete from {table} where series = ? and opened_ms < ?", series, oldest_ms)
        self._remember(effects, bar)
        if not bar.is_history:
            self.count(effects, "bars_closed")
        self.stale(f"bars.{series}")

    async def _on_gap(self, gap: GapFound, effects: Effects) -> None:
        self._keep(effects, gap)
        if not gap.is_history:
            self.count(effects, "gaps", gap.bars)

    async def _on_reading(self, reading: RegimeReading, effects: Effects) -> None:
        series = series_of(reading)
        odds = (None if math.isnan(p) else p for p in (reading.bull, reading.bear, reading.chop))
        log_likelihood = None if math.isnan(reading.log_likelihood) else reading.log_likelihood
        effects.execute(
            "insert or replace into readings values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(series, to_ms(reading.opened_at), reading.regime, *odds, reading.model_id, reading.reading_hash),
            log_likelihood,
        )
        self._remember(effects, reading)
        if not reading.is_history:
            self.count(effects, f"regime.{reading.regime}")
        self.stale(f"bars.{series}")

    async def _on_market(self, market: MarketRegime, effects: Effects) -> None:
        self._remember(effects, market)

    async def _on_model_demoted(self, demoted: ModelDemoted, effects: Effects) -> None:
        self._keep(effects, demoted)
        reader = self.now.models.get(series_of(demoted))
        if reader is not None and reader.model_id == demoted.model_id:
            del self.now.models[series_of(demoted)]
            effects.execute("delete from latest where kind = 'ModelPromoted' and about = ?", about(reader))

    async def _on_preset_promoted(self, promoted: PresetPromoted, effects: Effects) -> None:
        self._keep(effects, promoted)
        self._remember(effects, promoted)
        if promoted.evidence_id:  # a default is admitted from birth: no gate passed it
            self.count(effects, "presets_promoted")
        self.stale("presets")

    async def _on_preset_demoted(self, demoted: PresetDemoted, effects: Effects) -> None:
        self._keep(effects, demoted)
        admitted = self.now.admitted[sleeve_of(demoted)].pop(demoted.preset_id, None)
        if admitted is not None:
            effects.execute("delete from latest where kind = 'PresetPromoted' and about = ?", about(admitted))
        self.stale("presets")

    async def _on_stage(self, change: StageChanged, effects: Effects) -> None:
        self._keep(effects, change)
        if change.kind == "model" and change.after == "refused":  # models have no message of their own for it
            self.count(effects, "models_refused")

    async def _on_trade(self, trade: TradeClosed, effects: Effects) -> None:
        self._keep(effects, trade)
        self.now.earn(trade)
        effects.execute(
            "insert into trades values (?, ?, ?, ?, ?, ?, ?, ?)",
            *(trade.trade_id, to_ms(trade.closed_at), trade.symbol, trade.strategy, trade.timeframe, trade.side),
            *(trade.exit_reason, msgspec.msgpack.encode(trade)),
        )
        self.count(effects, "trades_closed")
        self.stale("trades")

    async def _on_snapshot(self, snapshot: PortfolioSnapshot, effects: Effects) -> None:
        effects.execute(
            "insert or replace into equity values (?, ?, ?, ?)",
            *(snapshot.account, to_ms(snapshot.at), str(snapshot.cash), str(snapshot.equity)),
        )
        self._remember(effects, snapshot)
        if snapshot.account == self.now.account:
            self.now.earnings.book_snapshot(snapshot.at, snapshot.equity)
            self.stale("equity")

    async def _on_breaker(self, tripped: BreakerTripped, effects: Effects) -> None:
        self._keep(effects, tripped)
        self._remember(effects, tripped)
        if tripped.after == "halted" != tripped.before:
            self.count(effects, "halts")

    async def _on_answer(self, answer: CommandAnswered, effects: Effects) -> None:
        self._keep(effects, answer)
        body = msgspec.msgpack.encode(answer)
        effects.execute("update commands set answer = ? where command_id = ?", body, answer.command_id)
        effects.afterwards(lambda: self.answered(answer))

    def _keep(self, effects: Effects, message: Message) -> None:
        """As an event, under its id and under every id that it mentions."""
        envelope = effects.cause
        assert envelope is not None  # a handler always handles a message
        kind, at_ms = type(message).__name__, to_ms(message.happened_at)
        effects.execute(
            "insert or ignore into events values (?, ?, ?, ?, ?, ?, ?, ?)",
            *(envelope.id, kind, at_ms, sleeve_of(message), envelope.source, envelope.correlation, envelope.cause),
            msgspec.msgpack.encode(message),
        )
        for named in _names(message):
            effects.execute("insert or ignore into mentions values (?, ?, ?, ?)", named, kind, at_ms, envelope.id)
        stream = said.subject_of(message).stream
        if stream is not None and stream.name in PARTS:
            self.stale(PARTS[stream.name])

    def _remember(self, effects: Effects, message: Message) -> None:
        self.now.remember(message)
        effects.execute(
            "insert into latest values (?, ?, ?) on conflict (kind, about) do update set body = excluded.body",
            *(type(message).__name__, about(message), msgspec.msgpack.encode(message)),
        )

    def count(self, effects: Effects, name: str, n: int = 1) -> None:
        """Add to what is counted under this name."""
        self.now.counts[name] += n
        effects.execute("insert into counts values (?, ?) on conflict (name) do update set n = n + excluded.n", name, n)


def _names(message: Message) -> set[str]:
    names = {getattr(message, name, "") for name in NAMES}
    if isinstance(message, TradeFill):
        names.discard(message.trade_id)  # the venue's own number, which other venues use too
    return names - {""}
