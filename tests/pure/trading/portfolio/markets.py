"""Markets of many instruments for the tests: told bar by bar, or drawn."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import numpy as np
from hypothesis import strategies as st

from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns, MarketColumns
from shared.trading.compiled import portfolios
from shared.trading.compiled.portfolios import PortfolioRun, PortfolioTerms, scan_portfolio
from shared.trading.fills import REASONS
from shared.trading.kernel import kernel, ring
from shared.trading.portfolio import Market
from shared.trading.strategy import PortfolioStrategy, portfolio_strategy
from shared.trading.values import Regime

FREE = Costs(fee_bps=0, slippage_bps=0)
SYMBOLS = tuple(f"{letter}-USDT" for letter in "ABCDEF")
Kind = Literal["spot", "perpetual", "share"]


def instrument(
    symbol: str, *, kind: Kind = "spot", tick: str = "0.01", lot: str = "0.01", least: str = "0"
) -> Instrument:
    base, quote = symbol.split("-")
    return Instrument(
        symbol=symbol,
        base=base,
        quote=quote,
        kind=kind,
        tick=Decimal(tick),
        lot=Decimal(lot),
        min_notional=Decimal(least),
    )


class Told(NamedTuple):
    """One bar of a story: its open, its close, and the weight that is wished for at that close (None: nothing new)."""

    open: float
    close: float
    weight: float | None = None


def market_of(*stories: list[Told | None]) -> MarketColumns:
    """A market in which each instrument does what its story tells, minute by minute; None where it has no bar."""
    columns: dict[str, Columns] = {}
    for symbol, story in zip(SYMBOLS, stories, strict=False):
        bars = [(i, told) for i, told in enumerate(story) if told is not None]
        open = np.array([told.open for _, told in bars])
        close = np.array([told.close for _, told in bars])
        wish = [0.0 if told.weight is None else 1.0 + told.weight for _, told in bars]
        times = np.array([60_000 * i for i, _ in bars])
        columns[symbol] = Columns.of(times, open, np.maximum(open, close), np.minimum(open, close), close, wish)
    return MarketColumns.of(columns)


class NoParams(NamedTuple):
    """Nothing to set."""


class NoState(NamedTuple):
    """Nothing to remember."""


@kernel
def start_told(p: NoParams, instruments: int) -> NoState:
    return NoState()


@kernel
def step_told(s: NoState, market: Market, regime: Regime, p: NoParams, weights: list[float]) -> tuple[NoState, bool]:
    """Wishes for what the volumes tell: 1 + weight, or 0 where there is nothing new."""
    is_decided = False
    for k in range(len(weights)):
        if market.volume[k] > 0.0:
            weights[k] = market.volume[k] - 1.0
            is_decided = True
    return s, is_decided


def told_strategy(**options: Any) -> PortfolioStrategy:
    """The strategy that does as it is told by `market_of`."""
    return portfolio_strategy("told", NoParams, start_told, step_told, bounds={}, warmup=lambda p: 0, **options)


def run_told(
    market: MarketColumns,
    *,
    cash: str = "1000",
    costs: Costs = FREE,
    kind: Kind = "spot",
    least: str = "0",
    rebalance_band: float = 0.0,
    is_one_intent: bool = False,
    trade_from: int = 0,
    funding: dict[str, tuple[list[int], list[float]]] | None = None,
) -> PortfolioRun:
    """What comes of a told market."""
    instruments = tuple(instrument(symbol, kind=kind, least=least) for symbol in market.symbols)
    funded = {symbol: (np.array(times), np.array(rates)) for symbol, (times, rates) in (funding or {}).items()}
    terms = PortfolioTerms(instruments, "1m", costs, Decimal(cash), rebalance_band, funding=funded)
    strategy = told_strategy(is_one_intent=is_one_intent)
    return scan_portfolio(strategy, market, {}, terms, trade_from=trade_from, with_curve=True, with_fills=True)


def trades(run: PortfolioRun) -> list[tuple[int, str, str, str]]:
    """The fills in people's numbers: bar, symbol, signed quantity, price."""
    assert run.fills is not None
    told: list[tuple[int, str, str, str]] = []
    for bar, k, lots, ticks, _ in run.fills.tolist():
        scale = run.scales[k]
        told.append((bar, SYMBOLS[k], f"{scale.quantity(lots).normalize():f}", f"{scale.price(ticks).normalize():f}"))
    return told


def charges(run: PortfolioRun) -> list[tuple[int, str, str, str]]:
    """What holding cost in people's numbers: bar, symbol, amount, reason."""
    assert run.charges is not None
    return [
        (bar, SYMBOLS[k], f"{run.scales[k].amount(units).normalize():f}", REASONS[reason])
        for bar, k, units, reason, _ in run.charges.tolist()
    ]


def equity(run: PortfolioRun) -> list[float]:
    """The curve in quote currency."""
    assert run.curve is not None
    return [float(run.scales[0].amount(units)) for units in run.curve.tolist()]


class Params(NamedTuple):
    every: int = 3  # bars
    size: float = 1.0  # sum of the weights' sizes
    turns: bool = True  # sells short what falls


class State(NamedTuple):
    past: list[float]
    seen: int


@kernel
def start(p: Params, instruments: int) -> State:
    return State(ring(instruments), 0)


@kernel
def step(s: State, market: Market, regime: Regime, p: Params, weights: list[float]) -> tuple[State, bool]:
    """Restless on purpose: each instrument long, short or flat by its own last move, in sizes that its volume tells."""
    for k in range(len(weights)):
        side = 0.0
        if market.close[k] > s.past[k]:
            side = 1.0
        elif market.close[k] < s.past[k] and p.turns:
            side = -1.0
        if market.close[k] > 0.0:
            s.past[k] = market.close[k]
            weights[k] = side * p.size * market.volume[k] / float(len(weights))
    return State(s.past, s.seen + 1), s.seen % p.every == 0


RESTLESS = portfolio_strategy(
    "restless_portfolio",
    Params,
    start,
    step,
    bounds={"every": (1, 10), "size": (0.0, 1.0)},
    warmup=lambda p: 0,
)
RESTLESS_PAIR = portfolio_strategy(
    "restless_pair",
    Params,
    start,
    step,
    bounds={"every": (1, 10), "size": (0.0, 1.0)},
    warmup=lambda p: 0,
    is_one_intent=True,
)


@st.composite
def any_market(draw: st.DrawFn, least: int = 1, most: int = len(SYMBOLS), bars: int = 120) -> MarketColumns:
    """Jumpy walks at prices from a thousandth to a few hundred that go together a little; some are listed late or ended
    early, and all have gaps.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.sampled_from([1, 2, bars // 4, bars // 2, bars]))
    common = rng.normal(0.0, 0.02, count)
    gaps = draw(st.sampled_from([0.0, 0.05, 0.4]))
    columns: dict[str, Columns] = {}
    for symbol in SYMBOLS[: draw(st.integers(least, most))]:
        scale = draw(st.sampled_from([0.001, 1.0, 300.0]))
        noise = draw(st.sampled_from([0.001, 0.02, 0.1]))
        close = scale * np.exp(np.cumsum(common + rng.normal(0.0, noise, count)))
        open = np.concatenate([[scale], close[:-1]]) * np.exp(rng.normal(0.0, noise, count))
        first, end = sorted(rng.integers(0, count + 1, 2)) if rng.random() < 0.3 else (0, count)
        there = (rng.random(count) >= gaps) & (np.arange(count) >= first) & (np.arange(count) < end)
        columns[symbol] = Columns.of(
            60_000 * np.flatnonzero(there),
            *(column[there] for column in (open, np.maximum(open, close), np.minimum(open, close), close)),
            rng.random(count)[there],
        )
    made = MarketColumns.of(columns)
    return made if len(made) else market_of(*[[Told(1.0, 1.0)] for _ in columns])


@st.composite
def any_terms(
    draw: st.DrawFn, symbols: tuple[str, ...], kinds: tuple[Kind, ...] = ("spot", "perpetual", "share")
) -> PortfolioTerms:
    """Terms that differ by instrument; perpetuals mostly with funding, at times of their own, shares that are lent or not."""
    steps = [("0.01", "0.00001"), ("0.05", "0.001"), ("0.00000001", "1")]
    instruments: list[Instrument] = []
    for symbol in symbols:
        tick, lot = draw(st.sampled_from(steps))
        least = draw(st.sampled_from(["0", "5", "400"]))
        instruments.append(instrument(symbol, kind=draw(st.sampled_from(kinds)), tick=tick, lot=lot, least=least))
    costs = Costs(
        fee_bps=draw(st.sampled_from([0.0, 7.5, 10.0])),
        slippage_bps=draw(st.floats(0.0, 50.0)),
        min_fee=draw(st.sampled_from([Decimal(0), Decimal("0.35")])),
        borrow_bps_year=draw(st.sampled_from([None, 0.0, 10_000.0])) if "share" in kinds else None,
    )
    cash = Decimal(draw(st.sampled_from(["100", "1000.01", "5000000"])))
    band = draw(st.sampled_from([0.0, 0.02, 0.3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    funding = {
        each.symbol: (np.sort(rng.choice(120 * 60_000, 9, replace=False)), rng.uniform(-0.01, 0.01, 9))
        for each in instruments
        if each.kind == "perpetual" and rng.random() < 0.7
    }
    return PortfolioTerms(tuple(instruments), "1m", costs, cash, band, funding=funding)


def interpreted(
    strategy: PortfolioStrategy, market: MarketColumns, params: dict[str, Any], terms: PortfolioTerms
) -> PortfolioRun:
    """The same loop run by Python."""
    known = portfolios._loops
    portfolios._loops = {strategy.source: portfolios.interpreted_portfolio_loop(strategy)}
    try:
        return scan_portfolio(strategy, market, params, terms, with_curve=True, with_fills=True)
    finally:
        portfolios._loops = known


def last_marks(market: MarketColumns, run: PortfolioRun) -> list[list[int]]:
    """The ticks of the last close of each instrument at each bar; 0 before its first."""
    marks: list[list[int]] = []
    before = [0] * len(market.symbols)
    for closes in market.close.tolist():
        before = [
            mark if math.isnan(close) else int(close * float(1 / scale.tick) + 0.5)
            for mark, close, scale in zip(before, closes, run.scales, strict=True)
        ]
        marks.append(before)
    return marks
