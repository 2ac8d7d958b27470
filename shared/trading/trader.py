"""One sleeve as the engine hosts it: bars and fills in, intents and closed trades out. Plain Python, no numba, no numpy.

For each closed bar: book the fills that the venue told (`on_fill`), then `on_bar`. Both call the functions of `fills`
that the backtest compiles. Risk rails, orders and storage are the engine's; it may make an intent smaller, and tells
what came of it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from shared.contracts.errors import BadMessage, NeedsOperator, TrimtabError
from shared.contracts.execution import Side, TradeClosed, TradeFill
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.contracts.times import from_ms
from shared.trading import fills
from shared.trading.fills import COMMAND, REASONS, REFUSALS, SIGNAL, Plan, Sleeve, no_watch
from shared.trading.kernel import OtherSource, freeze, thaw
from shared.trading.ledger import Book, fee_on
from shared.trading.loop import TYPICAL_BARS, typical_range
from shared.trading.orders import Intent, OpenTrade, PaperFill, Step
from shared.trading.performance import Stats, begun
from shared.trading.scales import Scale
from shared.trading.snapshots import KeptCandidate, Snapshot
from shared.trading.strategy import Strategy
from shared.trading.values import UNKNOWN, Bar, Regime, Target, flat, is_known

KEPT_BARS = 1_000  # closed bars from which a newcomer is warmed; a longer warm-up goes on with the bars that follow


class SleeveRefused(TrimtabError):
    """This sleeve cannot go on: its strategy said something impossible, or its numbers do not fit. Others can."""


@dataclass
class Candidate:
    """One admitted preset, stepped on every bar whether it is chosen or not."""

    params: Any
    state: Any
    bars: int = 0  # stepped
    target: Target = field(default_factory=flat)
    before: float = 0.0  # its exposure a bar ago: who is chosen enters only on a change
    is_retired: bool = False


class Trader:
    """See the module. `model_id` and `regime` are of the bar; a promotion between two bars is simply the next bar's."""

    def __init__(
        self,
        strategy: Strategy,
        instrument: Instrument,
        timeframe: str,
        cash: Decimal,
        costs: Costs,
        *,
        kept_bars: int = KEPT_BARS,
    ) -> None:
        if costs.backtest_only:
            raise NeedsOperator(
                f"Only a backtest can charge {', '.join(costs.backtest_only)}: leave them out for {instrument.symbol}."
            )
        self.strategy = strategy
        self.instrument = instrument
        self.timeframe = timeframe
        self.scale = Scale.of(instrument)
        self.rules = self.scale.rules(instrument, costs)
        self.sleeve: Sleeve = fills.opened(self.scale.units(cash))
        self.stats: Stats = begun(self.sleeve.book.cash)
        self.dust = Decimal(0)  # base currency below one lot, left by fees that were taken in it
        self.candidates: dict[str, Candidate] = {}
        self.chosen = ""  # preset that new positions follow
        self.decision_id = ""
        self.active = ""  # preset whose target was followed last: the holder's while a position is open
        self.intent: Intent | None = None  # not yet wholly answered
        self.trade: OpenTrade | None = None
        self.kept: deque[tuple[Bar, Regime]] = deque(maxlen=max(kept_bars, TYPICAL_BARS + 1))

    # what the sleeve has

    @property
    def quantity(self) -> Decimal:
        """What is held, in base units, signed; without dust."""
        return self.scale.quantity(self.sleeve.book.lots)

    @property
    def cash(self) -> Decimal:
        """Quote currency."""
        return self.scale.amount(self.sleeve.book.cash)

    @property
    def equity(self) -> Decimal:
        """Cash and holdings at the last close."""
        close = self.kept[-1][0].close if self.kept else 0.0
        return self.scale.amount(self.stats.equity) + self.dust * self.scale.price(int(close * self.rules.ticks + 0.5))

    @property
    def fees(self) -> Decimal:
        """Paid since the beginning, quote currency."""
        return self.scale.amount(self.sleeve.book.fees)

    @property
    def entry_price(self) -> float:
        """Mean price of the open position; NaN when flat."""
        return self.sleeve.watch.entry

    @property
    def is_flat(self) -> bool:
        """Nothing is held and nothing is on its way."""
        return self.sleeve.book.lots == 0 and self.sleeve.plan.want == 0

    def is_ready(self, preset_id: str) -> bool:
        """Whether this preset has seen as many bars as its strategy needs."""
        candidate = self.candidates[preset_id]
        return candidate.bars >= self.strategy.warmup(candidate.params)

    # which presets there are, and which is followed

    def admit(self, preset_id: str, params: Mapping[str, object]) -> None:
        """Step this preset from now on, warmed from the kept bars. Admitting it again changes nothing."""
        if preset_id in self.candidates:
            self.candidates[preset_id].is_retired = False
            return
        checked = self.strategy.params(params)
        candidate = Candidate(checked, self.strategy.start(checked))
        for bar, regime in self.kept:
            self._advance(candidate, bar, regime)
        self.candidates[preset_id] = candidate

    def retire(self, preset_id: str) -> None:
        """Follow this preset no more; a position that it opened is managed to its end."""
        candidate = self.candidates.get(preset_id)
        if candidate is None:
            return
        candidate.is_retired = True
        if self.chosen == preset_id:
            self.chosen = ""
        self._forget_retired()

    def choose(self, preset_id: str, decision_id: str = "") -> None:
        """New positions follow this preset from the next bar on. Raises KeyError when it was not admitted."""
        if self.candidates[preset_id].is_retired:
            raise KeyError(preset_id)
        self.chosen = preset_id
        self.decision_id = decision_id

    # events

    def on_bar(self, bar: Bar, regime: Regime = UNKNOWN, model_id: str = "", may_trade: bool = True) -> Step:
        """Take one closed bar. `may_trade` False: nothing new is begun, what is open is managed to its end.

        Raises SleeveRefused when the sleeve cannot go on.
        """
        self.kept.append((bar, regime))
        for candidate in self.candidates.values():
            self._advance(candidate, bar, regime)
        self._follow()
        was_pending = self.sleeve.plan.want != 0
        follow = self.candidates.get(self.active)
        may_begin = may_trade and follow is not None and not follow.is_retired and self.is_ready(self.active)
        target = flat() if follow is None else follow.target
        self.sleeve, self.stats = fills.at_close(self.sleeve, self.stats, bar.close, target, may_begin, self.rules)
        if self.trade is not None:
            self.trade.bars_held += 1
        if self.sleeve.refused:
            self._plan(self.sleeve.plan._replace(want=0))  # so that a person can still flatten it
            raise SleeveRefused(
                f"{self.strategy.name} on {self.instrument.symbol} {self.timeframe}, preset {self.active or 'none'}, bar "
                f"{from_ms(bar.opened_at_ms):%Y-%m-%d %H:%M}: {REFUSALS[self.sleeve.refused]}, "
                f"was exposure {target.exposure} with {self.cash} {self.instrument.quote}."
            )
        intent = None
        if self.sleeve.plan.want != 0 and not was_pending:
            intent = self.intent = self._intent(bar, regime_name(regime), model_id)
        return Step(intent, self.equity, self.active)

    def paper_fill(self, open: float) -> PaperFill | None:
        """How a simulated venue fills what is wanted at this open; None when the cash pays for nothing of it."""
        ticks = fills.fill_ticks(open, self.sleeve.plan.want, self.rules)
        lots = fills.fill_lots(self.sleeve, ticks, self.rules)
        if lots == 0:
            return None
        fee = fee_on(abs(lots) * ticks * self.rules.unit, self.rules.fee_ppm, self.rules.min_fee)
        side: Side = "buy" if lots > 0 else "sell"
        return PaperFill(
            side,
            self.scale.quantity(abs(lots)),
            self.scale.price(ticks),
            self.scale.amount(fee),
            self.instrument.quote,
        )

    def on_fill(self, fill: TradeFill) -> TradeClosed | None:
        """Book one execution, whole or partial; the trade that it closed, if it did.

        Raises BadMessage when the fee is in an asset of which this sleeve has no price.
        """
        if fill.fee_asset not in (self.instrument.base, self.instrument.quote):
            raise BadMessage(
                f"A fee on {self.instrument.symbol} must be in {self.instrument.base} or {self.instrument.quote}, "
                f"was {fill.fee} {fill.fee_asset}. Turn off paying fees in another coin."
            )
        held = self.quantity
        signed = fill.quantity if fill.side == "buy" else -fill.quantity
        if held * (held + signed) < 0:  # from long to short at once: one trade ends, another begins
            share = fills.share_of(
                self.scale.units(fill.fee), self.scale.lots(abs(held)), self.scale.lots(fill.quantity)
            )
            ending = msgspec.structs.replace(fill, quantity=abs(held), fee=self.scale.amount(share))
            rest = msgspec.structs.replace(fill, quantity=fill.quantity - abs(held), fee=fill.fee - ending.fee)
            closed = self._book(ending)
            self._book(rest)
            return closed
        return self._book(fill)

    def on_reject(self) -> None:
        """The rest of the intent came to nothing: refused, canceled, expired, or not sent.

        An entry is wanted again only when the target changes; an exit is wanted again on the next bar.
        """
        plan, held = self.sleeve.plan, self.sleeve.book.lots
        is_exit = held * plan.want < 0
        self._plan(plan._replace(want=0, acted=math.nan if is_exit else plan.acted))  # NaN: any target is a change
        self.intent = None
        self._forget_retired()

    def resize(self, quantity: Decimal) -> Intent:
        """The engine's rails made the open intent smaller (base units); the rest of it lapses."""
        lots, plan = self.scale.lots(quantity), self.sleeve.plan
        if self.intent is None or not 0 < lots <= abs(plan.want):
            raise ValueError(f"An intent may only be made smaller, was {quantity} of {self.scale.quantity(plan.want)}.")
        signed = lots if plan.want > 0 else -lots
        self._plan(plan._replace(want=signed))
        self.intent = msgspec.structs.replace(self.intent, lots=signed, quantity=self.scale.quantity(lots))
        return self.intent

    def flatten(self) -> Intent | None:
        """Leave the position now, by command; afterwards as after a stop. None when flat, or while an order is out."""
        held, plan = self.sleeve.book.lots, self.sleeve.plan
        if held == 0 or plan.want != 0:
            return None
        self._plan(plan._replace(want=-held, acted=0.0, lock=1 if held > 0 else -1, reason=COMMAND))
        bar, regime = self.kept[-1]
        self.intent = self._intent(bar, regime_name(regime), "" if self.trade is None else self.trade.model_id)
        return self.intent

    # keeping

    def snapshot(self) -> bytes:
        """Everything, exactly: positions, sums, states, and the kept bars (about 80 bytes each)."""
        return self._snapshot({name: self.kept_candidate(name) for name in self.candidates}, list(self.kept))

    def books(self) -> bytes:
        """A snapshot without candidates and bars: what changes on every bar, and is small."""
        return self._snapshot({}, [])

    def _snapshot(self, candidates: dict[str, KeptCandidate], bars: list[tuple[Bar, Regime]]) -> bytes:
        return msgspec.msgpack.encode(
            Snapshot(
                source=self.strategy.source,
                sleeve=self.sleeve,
                stats=self.stats,
                dust=self.dust,
                candidates=candidates,
                chosen=self.chosen,
                decision_id=self.decision_id,
                active=self.active,
                intent=self.intent,
                trade=self.trade,
                bars=bars,
            )
        )

    def kept_candidate(self, preset_id: str) -> KeptCandidate:
        """One candidate as it is after the last bar. Raises TypeError when its strategy's state is no state."""
        candidate = self.candidates[preset_id]
        return KeptCandidate(
            opened_ms=self.kept[-1][0].opened_at_ms if self.kept else -1,
            params=candidate.params._asdict(),
            state=freeze(candidate.state, self.strategy.source),
            bars=candidate.bars,
            target=candidate.target,
            before=candidate.before,
            is_retired=candidate.is_retired,
        )

    def resume(self, frozen: bytes) -> None:
        """Go on where a snapshot was taken. Its candidates may be older than its bars: they are stepped over the rest.

        States of another source are warmed again from all kept bars.
        """
        kept = msgspec.msgpack.decode(frozen, type=Snapshot)
        self.sleeve, self.stats, self.dust = kept.sleeve, kept.stats, kept.dust
        self.chosen, self.decision_id, self.active = kept.chosen, kept.decision_id, kept.active
        self.intent, self.trade = kept.intent, kept.trade
        self.kept.clear()
        self.kept.extend(kept.bars)
        self.candidates.clear()
        for name, saved in kept.candidates.items():
            params = self.strategy.params(saved.params)
            try:
                state = thaw(saved.state, self.strategy.start(params), self.strategy.source)
            except OtherSource:
                self.admit(name, saved.params)
                self.candidates[name].is_retired = saved.is_retired
            else:
                self.candidates[name] = candidate = Candidate(
                    params, state, saved.bars, saved.target, saved.before, saved.is_retired
                )
                for bar, regime in self.kept:
                    if bar.opened_at_ms > saved.opened_ms:
                        self._advance(candidate, bar, regime)

    # private

    def _plan(self, plan: Plan) -> None:
        self.sleeve = self.sleeve._replace(plan=plan)

    def _advance(self, candidate: Candidate, bar: Bar, regime: Regime) -> None:
        candidate.before = candidate.target.exposure
        candidate.state, candidate.target = self.strategy.step(candidate.state, bar, regime, candidate.params)
        candidate.bars += 1

    def _follow(self) -> None:
        """An open position keeps its preset. When flat, the chosen one is followed, from the next change of its target."""
        if not self.is_flat or self.active == self.chosen:
            return
        self.active = self.chosen
        before = self.candidates[self.chosen].before if self.chosen else 0.0
        self._plan(Plan(0, before, 0, SIGNAL, fills.NO_EXITS))
        self._forget_retired()

    def _forget_retired(self) -> None:
        for name in [n for n, c in self.candidates.items() if c.is_retired and (n != self.active or self.is_flat)]:
            del self.candidates[name]
            if self.active == name:
                self.active = ""
                self._plan(Plan(0, 0.0, 0, SIGNAL, fills.NO_EXITS))

    def _intent(self, bar: Bar, regime: str, model_id: str) -> Intent:
        held, plan = self.sleeve.book.lots, self.sleeve.plan
        after = held + plan.want
        is_entry = after != 0 and (held == 0 or held * after < 0 or abs(after) > abs(held))
        keeps = self.trade is not None and not (held * after < 0)  # of the trade that is open
        return Intent(
            side="buy" if plan.want > 0 else "sell",
            quantity=self.scale.quantity(abs(plan.want)),
            lots=plan.want,
            exposure=plan.acted,
            reason=REASONS[plan.reason],
            is_entry=is_entry,
            opened_at=from_ms(bar.opened_at_ms),
            preset_id=self.active,
            decision_id=self.trade.decision_id if keeps and self.trade else self.decision_id,
            model_id=model_id,
            regime=regime,
        )

    def _book(self, fill: TradeFill) -> TradeClosed | None:
        side = 1 if fill.side == "buy" else -1
        lots = side * self.scale.lots(fill.quantity)
        notional = self.scale.units(fill.quantity * fill.price)
        in_base = fill.fee_asset == self.instrument.base
        fee = self.scale.units(fill.fee * fill.price if in_base else fill.fee)
        before, risk = self.sleeve.book, self.sleeve.watch.risk
        if self.trade is None:
            self.trade = self._opened(fill)
        if lots != 0:
            typical = self._typical_range()
            self.sleeve, self.stats = fills.booked(self.sleeve, self.stats, lots, notional, fee, typical, self.rules)
        else:
            cash = before.cash - fee - side * notional
            self.sleeve = self.sleeve._replace(book=before._replace(cash=cash, fees=before.fees + fee))
        self.dust += fill.quantity * side - self.scale.quantity(lots)
        if in_base:
            self.dust -= fill.fee
        self._settle(fee if in_base else 0)
        book = self.sleeve.book
        self.trade.book(fill, self.scale.amount(fee), self.quantity)
        self.trade.reason = self.intent.reason if self.intent else REASONS[self.sleeve.plan.reason]
        if self.sleeve.plan.want == 0:
            self.intent = None
        if book.lots != 0:
            return None
        if before.lots == 0:  # the fee took all of it: nothing was opened
            self.trade = self.trade if self.sleeve.plan.want != 0 else None
            return None
        closed = self.trade.closed(fill, self.cash, self.dust, self.scale.amount(round(risk)))
        self.trade = None
        self._forget_retired()
        return closed

    def _settle(self, fee: int) -> None:
        """A fee taken in base currency is given back in quote and taken from the lots; `dust` holds what is below one."""
        book = self.sleeve.book
        gone = -math.floor(self.dust / self.scale.lot)
        if gone < 0 and book.lots <= 0:
            gone = 0
        self.dust += self.scale.quantity(gone)
        lots, cash = book.lots - gone, book.cash + fee
        self.sleeve = self.sleeve._replace(
            book=Book(cash, lots, cash if lots == 0 else book.staked, book.fees),
            watch=no_watch() if lots == 0 else self.sleeve.watch,
        )

    def _opened(self, fill: TradeFill) -> OpenTrade:
        intent = self.intent
        return OpenTrade(
            trade_id=fill.order_id,
            side="long" if fill.side == "buy" else "short",
            opened_at=fill.at,
            preset_id=intent.preset_id if intent else self.active,
            decision_id=intent.decision_id if intent else self.decision_id,
            model_id=intent.model_id if intent else "",
            regime=intent.regime if intent else "UNKNOWN",
            cash_before=self.cash,
            dust_before=self.dust,
        )

    def _typical_range(self) -> float:
        bars = [bar for bar, _ in list(self.kept)[-(TYPICAL_BARS + 1) :]]
        return typical_range([b.high for b in bars], [b.low for b in bars], [b.close for b in bars], len(bars) - 1)


def regime_name(regime: Regime) -> str:
    """The most likely regime, or UNKNOWN."""
    if not is_known(regime):
        return "UNKNOWN"
    return max((regime.bull, "BULL"), (regime.bear, "BEAR"), (regime.chop, "CHOP"), key=lambda pair: pair[0])[1]
