"""On what terms a portfolio trades, and the numbers of it that compile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import numpy as np

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.contracts.times import timeframe_ms
from shared.trading.columns import Floats, Integers
from shared.trading.frictions import borrow_rate_ms, funding_of
from shared.trading.portfolio import Carry, RuleRows
from shared.trading.scales import Rules, Scale

CHARGED = {"borrow_bps_year"}  # of the costs that only a backtest can charge, what a portfolio charges as well


@dataclass(frozen=True)
class PortfolioTerms:
    """On what terms a portfolio trades: one account for all instruments, which settle in one currency."""

    instruments: tuple[Instrument, ...]  # in the order of the market's columns
    timeframe: str
    costs: Costs
    cash: Decimal  # quote currency
    rebalance_band: float = 0.0  # of the equity: a leg that is off by less is left alone
    shorts: bool = True  # where the instruments allow them; False: a negative weight is 0
    funding: Mapping[str, tuple[Integers, Floats]] | None = None  # of perpetuals, by symbol: times (ms, rising), rates

    def __post_init__(self) -> None:
        for name, seen in (
            ("settlement currency", {each.quote for each in self.instruments}),
            ("calendar", {each.calendar for each in self.instruments}),
        ):
            if len(seen) != 1:
                raise NeedsOperator(f"One account has one {name}, there were {', '.join(sorted(seen)) or 'none'}.")
        if unknown := [name for name in self.costs.backtest_only if name not in CHARGED]:
            raise NeedsOperator(f"A portfolio cannot charge {', '.join(unknown)} yet; leave them out.")
        if strangers := sorted(set(self.funding or ()) - set(self.symbols)):
            raise NeedsOperator(
                f"Funding is of {', '.join(strangers)}, the portfolio trades {', '.join(self.symbols)}."
            )
        if not 0.0 <= self.rebalance_band < 1.0:
            raise NeedsOperator(f"A rebalance band must be 0 <= band < 1 of the equity, was {self.rebalance_band}.")

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Of the instruments, in their order."""
        return tuple(each.symbol for each in self.instruments)

    @cached_property
    def scales(self) -> tuple[Scale, ...]:
        """How each instrument is counted, all in one ledger unit: fine enough for every notional to be whole."""
        decimals = max(Scale.of(each).decimals for each in self.instruments)
        return tuple(
            Scale(each.tick, each.lot, decimals, int((each.tick * each.lot).scaleb(decimals)))
            for each in self.instruments
        )

    @cached_property
    def rules(self) -> tuple[Rules, ...]:
        """The rules of each instrument, but for its highest price, which a market tells."""
        pairs = zip(self.scales, self.instruments, strict=True)
        return tuple(scale.rules(instrument, self.costs, shorts=self.shorts) for scale, instrument in pairs)

    @cached_property
    def rows(self) -> RuleRows:
        """What differs between them, as arrays (n,)."""
        return rows_of(self.rules)

    @cached_property
    def carry(self) -> Carry:
        """What holding costs, the funding of all instruments in the order of time."""
        borrow = np.array([borrow_rate_ms(each, self.costs) for each in self.instruments])
        given = {symbol: (at.tolist(), rates.tolist()) for symbol, (at, rates) in (self.funding or {}).items()}
        every = [funding_of(each, given.get(each.symbol)) for each in self.instruments]
        times, rates = (np.array([value for one in every for value in one[part]], np.float64) for part in (0, 1))
        whose = np.repeat(np.arange(len(every)), [len(one[0]) for one in every])
        order = np.argsort(times, kind="stable")
        is_on = bool(len(times) or borrow.any())
        return Carry(is_on, borrow, times[order], whose[order], rates[order], timeframe_ms(self.timeframe))  # type: ignore[arg-type]


def rows_of(rules: Sequence[Rules]) -> RuleRows:
    """The same as arrays (n,)."""
    floats = {name for name, of in RuleRows.__annotations__.items() if "float" in str(of)}
    columns = {name: [getattr(each, name) for each in rules] for name in RuleRows._fields}
    return RuleRows(**{n: np.array(c, np.float64 if n in floats else np.int64) for n, c in columns.items()})  # type: ignore[arg-type]
