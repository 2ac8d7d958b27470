"""Does anything see the future? Whatever makes columns of bars is asked again with other futures, and must say the same.

    leaks(lambda bars: features(bars), bars)   ->   [] or, for each column, the first bar that knew too much

A value of bar t may depend on bars up to t. So it must stay when only a prefix of the bars is there (prefix
invariance), when the bars after t are others (future perturbation), and when it is computed once more (nothing was
kept from the time at which the future was there). Each of the three finds what the others miss.

Bars may also be those of a whole market (`MarketColumns`): then another future is another for each instrument, apart from
the others', with other bars absent, and a column names its instrument.

What cannot be found from outside: a table of the real future that somebody has built in, whatever bars it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from shared.contracts.errors import NeedsOperator
from shared.contracts.times import from_ms
from shared.trading.strategy import PortfolioStrategy, Strategy
from shared.trading.values import UNKNOWN, Bar, Regime, Target

if TYPE_CHECKING:
    import numpy as np

    from shared.trading.columns import Columns, MarketColumns
    from shared.trading.compiled import Terms
    from shared.trading.compiled.portfolios import PortfolioTerms

Series = TypeVar("Series", "Columns", "MarketColumns")
Compute = Callable[[Series], object]  # -> columns of shape (n,): a mapping, a frame, Targets, or one array

CUTS = 12  # places at which the future is taken away, and changed
JUMP, NOISE = 0.3, 0.1  # how another future differs, in logarithms of the price
ABSENT = 0.1  # of the bars of another future of a market
HORIZON = 256  # bars of future that are changed where the first leaking bar is looked for
LOOKED_AT = 400_000  # bars computed in that search, before the first found is the one that is told


@dataclass(frozen=True)
class Leak:
    """A value that was another before the bars after it came."""

    column: str
    bar: int  # the first one found
    opened_at_ms: int
    expected: object  # with what could be known
    was: object  # with the future at hand
    how: str

    def __str__(self) -> str:
        return (
            f"{self.column} sees the future, first at bar {self.bar} ({from_ms(self.opened_at_ms):%Y-%m-%d %H:%M}): "
            f"it is {self.was}, but {self.expected} {self.how}"
        )


PREFIX = "when no later bar is there"
FUTURE = "when later bars are others"
AGAIN = "when it is computed once more"


def leaks(
    compute: Compute[Series], bars: Series, *, cuts: int = CUTS, seed: int = 7, tolerance: float = 0.0
) -> list[Leak]:
    """The first leaking bar of each column of `compute(bars)` that has one, earliest first.

    Values are compared bit for bit; `tolerance` (relative) is for sums that are added in another order when there are
    more of them. Raises NeedsOperator when `compute` raises, or does not give one value a bar.
    """
    import numpy as np

    if len(bars) < 2:
        raise NeedsOperator(f"There is no future in {len(bars)} bars: give at least 2, better 1,000.")
    rng = np.random.default_rng(seed)
    whole = _asked(compute, bars)
    found: dict[str, Leak] = {}

    def look(how: str, other: Series, known: int) -> None:
        for leak in _differences(whole, _asked(compute, other), known, bars, how, tolerance):
            if leak.column not in found or leak.bar < found[leak.column].bar:
                found[leak.column] = leak

    for known in np.unique(np.linspace(1, len(bars) - 1, cuts + 2).astype(int))[1:].tolist():
        look(PREFIX, bars.part(0, known), known)
        look(FUTURE, other_future(bars, known, rng, JUMP), known)
        look(FUTURE, other_future(bars, known, rng, -JUMP), known)
    look(AGAIN, bars, len(bars))
    for leak in list(_first_ones(compute, bars, rng, found, tolerance)):
        found[leak.column] = leak
    return sorted(found.values(), key=lambda leak: leak.bar)


def other_future(bars: Series, known: int, rng: np.random.Generator, jump: float) -> Series:
    """The same bars up to, not including, `known`; after it higher or lower ones (`jump`, logarithm), at the same times.

    In a market every second instrument goes the other way: what compares them would not see one move that all make.
    """
    import numpy as np

    from shared.trading.columns import Columns, MarketColumns

    if isinstance(bars, MarketColumns):
        shape = bars.close.shape
        apart = np.where(np.arange(len(bars.symbols)) % 2 == 0, jump, -jump)
        moves = np.exp(apart + rng.normal(0.0, NOISE, shape))
        moves[rng.random(shape) < ABSENT] = math.nan
        moves[:known] = 1.0
        return MarketColumns(bars.symbols, bars.opened_at_ms, *(table * moves for table in bars.all()[1:]))
    moves = np.exp(jump + rng.normal(0.0, NOISE, len(bars)))
    moves[:known] = 1.0
    return Columns.of(bars.opened_at_ms, *(column * moves for column in bars.all()[1:]))


def columns_of(answer: object, size: int) -> dict[str, np.ndarray[Any, Any]]:
    """Named columns of shape (size,): from a mapping, a pandas or polars frame, Targets, or a single array."""
    import numpy as np

    table: Any = vars(answer) if hasattr(answer, "__dataclass_fields__") else answer
    names: Any = cast(Any, table) if isinstance(table, Mapping) else getattr(table, "columns", None)
    parts: dict[str, Any] = {"value": table} if names is None else {str(name): cast(Any, table)[name] for name in names}
    made: dict[str, np.ndarray[Any, Any]] = {name: np.asarray(part) for name, part in parts.items()}
    for name, column in made.items():
        if column.shape != (size,):
            raise NeedsOperator(f"Column {name} must have one value for each of the {size} bars, was {column.shape}.")
    return made


def strategy_tables(strategy: Strategy, params: Any, terms: Terms) -> dict[str, Compute[Columns]]:
    """What a strategy decides, by tier: stepped by Python, compiled, and as the engine hosts it.

    A regime made of the bars themselves comes with them, so that who needs one decides something.
    """

    def stepped(bars: Columns) -> object:
        from shared.trading.compiled.callbacks import stepped_targets

        targets, failure = stepped_targets(strategy, params, bars, _regimes(bars))
        if failure is not None:
            raise failure
        return targets

    def compiled(bars: Columns) -> object:
        import numpy as np

        from shared.trading.compiled import scan

        run = scan(strategy, bars, params, terms, regimes=_regimes(bars), with_curve=True, with_fills=True)
        assert run.fills is not None
        lots = np.zeros(len(bars), np.int64)
        np.add.at(lots, run.fills[:, 0], run.fills[:, 1])
        return {"equity": run.curve, "lots": np.cumsum(lots)}

    def hosted(bars: Columns) -> object:
        import numpy as np

        return dict(zip(Target._fields, np.array(list(_hosted(strategy, params, terms, bars))).T, strict=True))

    return {"stepped": stepped, "compiled": compiled, "hosted": hosted}


def portfolio_tables(
    strategy: PortfolioStrategy, params: Any, terms: PortfolioTerms
) -> dict[str, Compute[MarketColumns]]:
    """The same for a strategy over many instruments: its weights stepped by Python, and what came of them compiled."""

    def stepped(market: MarketColumns) -> object:
        from shared.trading.compiled.weights import stepped_weights

        told, failure = stepped_weights(strategy, params, market, _regimes(market))
        if failure is not None:
            raise failure
        return {"decides": told.is_decided, **_by_name(market.symbols, "weight", told.weights)}

    def compiled(market: MarketColumns) -> object:
        import numpy as np

        from shared.trading.compiled.portfolios import scan_portfolio

        regimes = _regimes(market)
        run = scan_portfolio(strategy, market, params, terms, regimes=regimes, with_curve=True, with_fills=True)
        assert run.fills is not None
        lots = np.zeros(market.close.shape, np.int64)
        np.add.at(lots, (run.fills[:, 0], run.fills[:, 1]), run.fills[:, 2])
        return {"equity": run.curve, **_by_name(market.symbols, "lots", np.cumsum(lots, axis=0))}

    return {"stepped": stepped, "compiled": compiled}


def _by_name(symbols: tuple[str, ...], what: str, table: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """A column for each instrument: `ETH-USDT weight`."""
    return {f"{symbol} {what}": column for symbol, column in zip(symbols, table.T, strict=True)}


def _asked(compute: Compute[Series], bars: Series) -> dict[str, np.ndarray[Any, Any]]:
    try:
        answer = compute(bars)
    except Exception as error:
        raise NeedsOperator(
            f"Columns of {len(bars)} bars could not be made: {type(error).__name__}: {error}. "
            "What needs more bars must say NaN, or 0.0, for the first ones."
        ) from error
    return columns_of(answer, len(bars))


def _hosted(strategy: Strategy, params: Any, terms: Terms, bars: Columns) -> Iterator[Target]:
    """The Trader's own targets, bar by bar. Its orders are refused: a strategy never hears of them."""
    from shared.trading.trader import Trader

    trader = Trader(strategy, terms.instrument, terms.timeframe, terms.cash, terms.costs)
    trader.admit("checked", params._asdict())
    trader.choose("checked")
    readings = map(Regime, *(column.tolist() for column in _regimes(bars)))
    for values, regime in zip(zip(*(column.tolist() for column in bars.all()), strict=True), readings, strict=True):
        if trader.intent is not None:
            trader.on_reject()
        trader.on_bar(Bar(*values), regime)
        yield trader.candidates["checked"].target


def _regimes(bars: Columns | MarketColumns) -> list[np.ndarray[Any, Any]]:
    """BULL above the close of a day's worth of bars ago, else BEAR: as causal as can be, UNKNOWN for the first ones.

    A market's is that of its first instrument.
    """
    import numpy as np

    days_worth = min(24, len(bars))
    close = bars.close if bars.close.ndim == 1 else bars.close[:, 0]
    bull = np.where(close > np.concatenate([close[:days_worth], close[:-days_worth]]), 0.8, 0.1)
    bull[:days_worth] = UNKNOWN.bull
    return [bull, 0.9 - bull, np.where(bull > 0.0, 0.1, math.nan)]


def _differences(
    whole: Mapping[str, np.ndarray[Any, Any]],
    other: Mapping[str, np.ndarray[Any, Any]],
    known: int,
    bars: Columns | MarketColumns,
    how: str,
    tolerance: float,
) -> Iterator[Leak]:
    """For each column its first value within the `known` bars that is not the same in both."""
    import numpy as np

    for name, column in whole.items():
        if name not in other:  # the future decided which columns there are
            yield Leak(name, 0, int(bars.opened_at_ms[0]), "not there", "there", how)
            continue
        one, two = column[:known], other[name][:known]
        differs = one != two
        if one.dtype.kind == two.dtype.kind == "f":
            differs &= ~(np.isnan(one) & np.isnan(two))
            if tolerance > 0.0:
                differs &= ~np.isclose(one, two, rtol=tolerance, atol=0.0)
        if differs.any():
            i = int(np.argmax(differs))
            yield Leak(name, i, int(bars.opened_at_ms[i]), two[i].item(), one[i].item(), how)


def _first_ones(
    compute: Compute[Series], bars: Series, rng: np.random.Generator, found: Mapping[str, Leak], tolerance: float
) -> Iterator[Leak]:
    """The first bar of each leaking column, bar by bar from the beginning, as long as that is cheap enough."""
    last = {name: leak.bar for name, leak in found.items()}
    looked_at = 0
    for i in range(max(last.values(), default=0)):
        near = bars.part(0, min(i + 1 + HORIZON, len(bars)))
        looked_at += 3 * len(near)
        if looked_at > LOOKED_AT or not any(i < bar for bar in last.values()):
            return
        now = _asked(compute, near)
        for jump in (JUMP, -JUMP):
            other = _asked(compute, other_future(near, i + 1, rng, jump))
            for leak in _differences(now, other, i + 1, bars, FUTURE, tolerance):
                if leak.bar < last.get(leak.column, 0):
                    del last[leak.column]
                    yield leak
