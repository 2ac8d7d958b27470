"""Where bars meet sleeves: one instrument is read once, each of its sleeves steps, and the account's rails judge what they want.

Ordinary code over its own state: no bus, no file, no venue, no clock. What it decides is kept and sent by engine.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from math import isnan, nan
from typing import Any, NamedTuple

import msgspec

from services.engine.breakers import Standing
from services.engine.records import KeptSeries, KeptSleeve
from services.engine.risk import Account, Limits, Touch, Wanted, judged
from services.engine.venue import Ticket
from shared.contracts.execution import PortfolioSnapshot, Position
from shared.contracts.instruments import Instrument
from shared.contracts.times import from_ms, timeframe_ms
from shared.regimes.reader import Reading, RegimeReader
from shared.trading.orders import Intent, PaperFill
from shared.trading.snapshots import KeptCandidate, Snapshot
from shared.trading.trader import Trader
from shared.trading.values import Bar, Regime

MINUTE = timedelta(minutes=1)
FREEZE_EVERY = 64  # bars; a start steps each preset over at most so many, 4 µs a bar


@dataclass
class Series:
    """One instrument, read bar by bar for all of its sleeves."""

    symbol: str
    timeframe: str
    instrument: Instrument
    reader: RegimeReader
    kept: KeptSeries = field(default_factory=KeptSeries)
    close: float = nan
    close_before: float = nan

    @property
    def name(self) -> str:
        return f"{self.symbol}.{self.timeframe}"

    @property
    def watermark_ms(self) -> int:
        return self.kept.watermark_ms

    def note(self, **changes: Any) -> None:
        """Remember these fields of `kept`."""
        self.kept = msgspec.structs.replace(self.kept, **changes)


class Frozen(NamedTuple):
    """When a preset's state was kept last, in bars that it had seen, and whether it was retired then."""

    bars: int
    is_retired: bool


NEVER = Frozen(-FREEZE_EVERY, is_retired=False)  # or too long ago: at the next chance


@dataclass
class Sleeve:
    """One strategy on one instrument, with its own capital."""

    strategy: str
    symbol: str
    timeframe: str
    trader: Trader
    kept: KeptSleeve = field(default_factory=KeptSleeve)
    frozen: dict[str, Frozen] = field(default_factory=dict[str, "Frozen"])

    @property
    def name(self) -> str:
        return f"{self.strategy}.{self.symbol}.{self.timeframe}"

    @property
    def series(self) -> str:
        return f"{self.symbol}.{self.timeframe}"

    def freeze(self) -> dict[str, KeptCandidate]:
        """Presets whose state is to be kept anew: newcomers, the retired, and those that were kept long ago.

        A start steps the others over the bars since, which are kept once for all sleeves. Raises TypeError when a
        strategy's state is no state.
        """
        anew: dict[str, KeptCandidate] = {}
        for name, candidate in self.trader.candidates.items():
            last = self.frozen.get(name)
            is_same = last is not None and last.is_retired == candidate.is_retired
            if last is None or not is_same or candidate.bars - last.bars >= FREEZE_EVERY:
                anew[name] = self.trader.kept_candidate(name)
        self.frozen |= {name: Frozen(kept.bars, kept.is_retired) for name, kept in anew.items()}
        return anew

    def forget(self) -> list[str]:
        """Presets that are stepped no more, told once."""
        gone = [name for name in self.frozen if name not in self.trader.candidates]
        for name in gone:
            del self.frozen[name]
        return gone

    def resume(self, books: bytes, candidates: dict[str, KeptCandidate], bars: list[tuple[Bar, Regime]]) -> None:
        """Go on where `books` were taken, after these bars. Who stands still is not stepped: it is warmed anew when woken."""
        if self.kept.halted:
            bars = [(bar, regime) for bar, regime in bars if bar.opened_at_ms < self.kept.halted_ms]
        bars = bars[-(self.trader.kept.maxlen or 0) :]
        snapshot = msgspec.msgpack.decode(books, type=Snapshot)
        whole = msgspec.structs.replace(snapshot, candidates=candidates, bars=bars)
        self.trader.resume(msgspec.msgpack.encode(whole))
        self.frozen = dict.fromkeys(candidates, NEVER)

    def wake(self, bars: list[tuple[Bar, Regime]]) -> str:
        """Go on after a halt, every preset warmed anew over these bars; why not, if that fails. "" when awake.

        If the strategy raises on the bar that halted it once more, it is warmed from the bars after that one.
        """
        reason = ""
        for since_ms in (-1, self.kept.halted_ms + 1):
            try:
                self._rewarm([(bar, regime) for bar, regime in bars if bar.opened_at_ms >= since_ms])
            except Exception as error:  # noqa: BLE001  # a strategy's own fault, told to who asked
                reason = f"{type(error).__name__}: {error}"
            else:
                self.kept = msgspec.structs.replace(self.kept, halted="", halted_ms=-1)
                return ""
        return reason

    def _rewarm(self, bars: list[tuple[Bar, Regime]]) -> None:
        trader, before = self.trader, self.trader.candidates
        self.frozen = dict.fromkeys(before, NEVER)
        trader.kept.clear()
        trader.kept.extend(bars)
        trader.candidates = {}
        try:
            for preset_id, candidate in before.items():
                trader.admit(preset_id, candidate.params._asdict())
                trader.candidates[preset_id].is_retired = candidate.is_retired
        except BaseException:
            trader.candidates = before
            raise

    def choose(self, preset_id: str, decision_id: str) -> bool:
        """Follow this preset from the next bar on, or as soon as it is admitted. Returns whether that is now."""
        candidate = self.trader.candidates.get(preset_id)
        if candidate is None or candidate.is_retired:
            self.kept = msgspec.structs.replace(self.kept, waiting_preset=preset_id, waiting_decision=decision_id)
            return False
        self.trader.choose(preset_id, decision_id)
        self.kept = msgspec.structs.replace(self.kept, waiting_preset="", waiting_decision="")
        return True

    def admit(self, preset_id: str, params: Mapping[str, object]) -> None:
        """Step this preset from the next bar on; if it was chosen already, follow it."""
        self.trader.admit(preset_id, params)
        if self.kept.waiting_preset == preset_id:
            self.choose(preset_id, self.kept.waiting_decision)


@dataclass(frozen=True)
class Decided:
    """What a sleeve made of a bar: an intent that may be sent, rails that were touched, or why it stands still now."""

    sleeve: Sleeve
    intent: Intent | None = None
    touches: tuple[Touch, ...] = ()
    failure: str = ""


class Desk:
    """All series and sleeves of one account."""

    def __init__(self, limits: Limits, series: Iterable[Series], sleeves: Iterable[Sleeve], standing: Standing) -> None:
        self.limits = limits
        self.series = {each.name: each for each in series}
        self.sleeves = {each.name: each for each in sleeves}
        self.standing = standing
        self.orders_at: deque[datetime] = deque()  # of the last minute, venue time
        self.sleeve_of: dict[str, str] = {}  # open order id -> sleeve

    def sleeves_of(self, series: str) -> list[Sleeve]:
        return [sleeve for sleeve in self.sleeves.values() if sleeve.series == series]

    # -- one bar -----------------------------------------------------------------------------------------------------

    def read(self, series: Series, bar: Bar) -> Reading:
        """Take a closed bar and read the regime in it."""
        reading = series.reader.on_bar(bar.opened_at_ms, bar)
        series.close_before, series.close = series.close, bar.close
        state = series.reader.filter
        series.note(watermark_ms=bar.opened_at_ms, filter=(state.posterior, state.log_likelihood))
        return reading

    def decide(self, series: Series, bar: Bar, reading: Reading, is_history: bool) -> Iterator[Decided]:
        """Step each sleeve of this series and judge what it wants, one after the other: the next sees the orders before."""
        regime = Regime(reading.bull, reading.bear, reading.chop)
        may_trade = self.standing.may_enter and not is_history
        at = from_ms(bar.opened_at_ms + timeframe_ms(series.timeframe))
        for sleeve in self.sleeves_of(series.name):
            if sleeve.kept.halted:
                continue
            try:
                step = sleeve.trader.on_bar(bar, regime, reading.model_id, may_trade)
            except Exception as error:  # noqa: BLE001  # a strategy's own fault, whatever it is, stops its sleeve and no other
                yield Decided(sleeve, failure=f"{type(error).__name__}: {error}")
                continue
            yield Decided(sleeve) if step.intent is None else self.judge(sleeve, step.intent, at)

    def judge(self, sleeve: Sleeve, intent: Intent, at: datetime) -> Decided:
        """What of an intent may be sent. The trader is told of what may not."""
        trader = sleeve.trader
        if not self.standing.may_order:
            trader.on_reject()
            return Decided(sleeve)
        held = abs(trader.quantity)
        reduces = min(intent.quantity, held) if trader.quantity * intent.lots < 0 else Decimal(0)
        verdict = judged(Wanted(intent.quantity, reduces), self._account(sleeve, at), trader.instrument, self.limits)
        if verdict.quantity == 0:
            trader.on_reject()
            return Decided(sleeve, None, verdict.touches)
        if verdict.quantity < intent.quantity:
            trader.resize(verdict.quantity)
        self.orders_at.append(at)
        return Decided(sleeve, trader.intent, verdict.touches)

    def flatten(self, sleeve: Sleeve) -> Intent | None:
        """Leave what this sleeve holds, if it holds something and no order is out."""
        return sleeve.trader.flatten()

    def fill_at(self, ticket: Ticket, price: float) -> PaperFill | None:
        """How a simulated venue fills this order at this open: as the sleeve's backtest would."""
        return self.sleeves[self.sleeve_of[ticket.order_id]].trader.paper_fill(price)

    # -- the account -------------------------------------------------------------------------------------------------

    @property
    def equity(self) -> Decimal:
        """Cash and holdings of all sleeves, at the last closes."""
        return sum((self._worth(sleeve) for sleeve in self.sleeves.values()), Decimal(0))

    def snapshot(self, account: str, at: datetime) -> PortfolioSnapshot:
        """The account at the close of a bar: cash and inventory, which is all there is."""
        traders = [sleeve.trader for sleeve in self.sleeves.values()]
        return PortfolioSnapshot(
            account=account,
            at=at,
            cash=sum((trader.cash for trader in traders), Decimal(0)),
            equity=self.equity,
            fees=sum((trader.fees for trader in traders), Decimal(0)),
            positions=tuple(self.positions()),
        )

    def positions(self) -> Iterator[Position]:
        """Sleeves that hold something."""
        for sleeve in self.sleeves.values():
            trader = sleeve.trader
            if trader.quantity == 0:
                continue
            entry, mark = Decimal(str(trader.entry_price)), self._mark(sleeve)
            yield Position(
                strategy=sleeve.strategy,
                symbol=sleeve.symbol,
                timeframe=sleeve.timeframe,
                quantity=trader.quantity,
                entry_price=entry,
                mark_price=float(mark),
                unrealized=trader.quantity * (mark - entry),
                preset_id=trader.active,
            )

    def holdings(self) -> dict[str, Decimal]:
        """Base asset -> what all sleeves hold of it by our books, dust included."""
        held: dict[str, Decimal] = {}
        for sleeve in self.sleeves.values():
            base = sleeve.trader.instrument.base
            held[base] = held.get(base, Decimal(0)) + sleeve.trader.quantity + sleeve.trader.dust
        return held

    def held(self) -> dict[str, Decimal]:
        """Symbol -> worth of what all sleeves hold of it, with what is on its way."""
        worth: dict[str, Decimal] = {}
        for sleeve in self.sleeves.values():
            worth[sleeve.symbol] = worth.get(sleeve.symbol, Decimal(0)) + self._committed(sleeve)
        return worth

    def _account(self, asking: Sleeve, at: datetime) -> Account:
        """The account as the rails see it: other instruments as of its last close, this one as it is now."""
        while self.orders_at and self.orders_at[0] <= at - MINUTE:
            self.orders_at.popleft()
        here = [sleeve for sleeve in self.sleeves.values() if sleeve.symbol == asking.symbol]
        instrument = sum((self._committed(sleeve, is_asking=sleeve is asking) for sleeve in here), Decimal(0))
        others = sum((worth for symbol, worth in self.standing.held.items() if symbol != asking.symbol), Decimal(0))
        series = self.series[asking.series]
        return Account(
            equity=self.standing.equity,
            instrument=instrument,
            gross=instrument + others,
            orders_last_minute=len(self.orders_at),
            close=series.close,
            close_before=series.close_before,
        )

    def _committed(self, sleeve: Sleeve, is_asking: bool = False) -> Decimal:
        """Worth of what a sleeve holds, with what is on its way; of who asks, only of what it holds."""
        trader = sleeve.trader
        on_its_way = Decimal(0) if is_asking else trader.scale.quantity(trader.sleeve.plan.want)
        return abs(trader.quantity + on_its_way) * self._mark(sleeve)

    def _worth(self, sleeve: Sleeve) -> Decimal:
        trader = sleeve.trader
        return trader.cash + (trader.quantity + trader.dust) * self._mark(sleeve)

    def _mark(self, sleeve: Sleeve) -> Decimal:
        """The last close, in whole ticks; 0 before the first, when nothing can be held."""
        close, trader = self.series[sleeve.series].close, sleeve.trader
        return Decimal(0) if isnan(close) else trader.scale.price(int(close * trader.rules.ticks + 0.5))
