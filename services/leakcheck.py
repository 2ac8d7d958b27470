"""`trimtab leakcheck`: law 2 on your own data. What is asked is in shared/trading/leakcheck.py; here is what it is asked of.

momentum                      a strategy, by name or by the path of its file: stepped, compiled, and as the engine hosts it;
                              one that trades a portfolio on all instruments of the data
strategies/mine.py:targets    a function over whole columns, `targets(bars)`: exposures, Targets, or a frame of columns
regimes                       features and readings, by a model that is fitted on the first half of the bars
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from services.backtest_suite.data import Bars, read_bars
from services.backtest_suite.panels import Panel
from services.ml_service.fit_lines import FitLine, FitRequest, Fitted, NotFitted
from services.venue_sim.market import LISTINGS, SimulatedSeries
from shared.artifacts.canonical import content_id
from shared.artifacts.models import load_model
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.times import timeframe_ms
from shared.regimes.context import CONTEXT_NAMES
from shared.regimes.features import FEATURE_NAMES, Candle, features_of
from shared.regimes.hmm import RegimeModel
from shared.regimes.reader import RegimeReader
from shared.trading.columns import Columns
from shared.trading.compiled import Terms
from shared.trading.compiled.portfolios import PortfolioTerms
from shared.trading.leakcheck import Compute, Leak, leaks, portfolio_tables, strategy_tables
from shared.trading.strategies import find_any, load_any
from shared.trading.strategy import PortfolioStrategy, Strategy

EXIT_CLEAN, EXIT_LEAK = 0, 1
SEED = 7
COSTS = Costs(fee_bps=10, slippage_bps=5)
ADDED_OTHERWISE = 1e-9  # numpy adds longer columns in another order; a leak of that size could not be traded

console = Console(highlight=False)


def check(subject: str, data: Sequence[Path], symbol: str, timeframe: str, bars: int, as_json: bool) -> int:
    """Look for leaks, tell them, and return the exit code: 0 when there are none, 1 when there are."""
    strategy = None if subject == "regimes" or ":" in subject else strategy_of(subject)
    if isinstance(strategy, PortfolioStrategy):
        market = panel_of(data, symbol, timeframe, bars, strategy)
        terms = PortfolioTerms(market.instruments, market.timeframe, COSTS, Decimal(10_000))
        tables = portfolio_tables(strategy, strategy.params(), terms)
        found = {part: leaks(compute, market.columns) for part, compute in tables.items()}
    else:
        market = market_of(data, symbol, timeframe, bars)
        tolerance = ADDED_OTHERWISE if ":" in subject else 0.0
        parts = tables_of(subject, strategy, market)
        found = {part: leaks(compute, market.columns, tolerance=tolerance) for part, compute in parts}
    if as_json:
        console.print(json.dumps(_told(subject, market, found)), markup=False, soft_wrap=True)
    else:
        for part, of_part in found.items():
            for line in map(str, of_part) if of_part else ("nothing sees the future",):
                console.print(f"{subject}, {part}: {line}", markup=False, soft_wrap=True)
        console.print(f"on {len(market)} bars of {market.symbol} {market.timeframe}, {market.source}", markup=False)
    return EXIT_LEAK if any(found.values()) else EXIT_CLEAN


def market_of(data: Sequence[Path], symbol: str, timeframe: str, bars: int) -> Bars:
    """The last bars of a file, or as many of the simulated market."""
    if not data:
        return simulated(symbol or "BTC-USDT", timeframe or "1m", bars)
    found = [each for path in data for each in read_bars(path, symbol=symbol, timeframe=timeframe)]
    if len(found) != 1:
        names = ", ".join(f"{each.symbol} {each.timeframe}" for each in found)
        raise NeedsOperator(f"The data hold {names}: say which with --symbol and --timeframe.")
    return found[0].part(max(len(found[0]) - bars, 0), len(found[0]))


def panel_of(data: Sequence[Path], symbol: str, timeframe: str, bars: int, strategy: PortfolioStrategy) -> Panel:
    """The last bars of all that the data hold; without data of what the simulated market lists, if it takes so many.

    They are taken for perpetuals, so that what the strategy would be short of is looked at as well.
    """
    if data:
        members = [each for path in data for each in read_bars(path, symbol=symbol, timeframe=timeframe)]
    else:
        members = [simulated(name, timeframe or "1m", bars) for name in list(LISTINGS)[: strategy.instruments[1]]]
    perpetuals = [msgspec.structs.replace(each.instrument, kind="perpetual") for each in members]
    panel = Panel(tuple(replace(each, instrument=made) for each, made in zip(members, perpetuals, strict=True)))
    return panel.part(max(len(panel) - bars, 0), len(panel))


def simulated(symbol: str, timeframe: str, bars: int) -> Bars:
    """The first bars of one instrument of the simulated market."""
    series = SimulatedSeries(symbol, SEED, timeframe)
    columns = Columns.of(*zip(*map(series.candle, range(bars)), strict=True))
    return Bars(series.instrument.symbol, timeframe, columns, series.instrument, source=series.identity)


def tables_of(subject: str, strategy: Strategy | None, market: Bars) -> Iterator[tuple[str, Compute[Columns]]]:
    """What is to be checked, by name."""
    if subject == "regimes":
        model = fitted_on(candles(market.columns)[: len(market) // 2])
        yield "features", feature_table
        yield "readings", lambda bars: reading_table(model, timeframe_ms(market.timeframe), bars)
    elif strategy is None:
        yield "function", function_of(subject)
    else:
        terms = Terms(market.instrument, market.timeframe, COSTS, Decimal(10_000))
        yield from strategy_tables(strategy, strategy.params(), terms).items()


def strategy_of(subject: str) -> Strategy | PortfolioStrategy:
    """A strategy by its name, or by the path of its file."""
    return load_any(Path(subject)) if subject.endswith(".py") else find_any(subject)


def function_of(subject: str) -> Callable[[Columns], object]:
    """The function that `file.py:name` names. Raises NeedsOperator when there is none."""
    file, _, name = subject.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise NeedsOperator(f"A function is named as file.py:function, was {subject!r}.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise NeedsOperator(f"{file} does not load: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise NeedsOperator(f"{file} must have a function {name}(bars), has {', '.join(_functions(module))}.")
    return found


def feature_table(bars: Columns) -> object:
    """What the regime model sees, a column for each feature; NaN while it warms up."""
    nothing = (np.nan,) * len(FEATURE_NAMES)
    rows = [row or nothing for row in features_of(candles(bars))]
    return dict(zip(FEATURE_NAMES, np.array(rows).T, strict=True))


def reading_table(model: RegimeModel, bar_ms: int, bars: Columns) -> object:
    """What a reader says of each bar, by a model that was promoted before the first."""
    reader = RegimeReader(bar_ms)
    reader.use(model, "checked", int(bars.opened_at_ms[0]))
    told = [reader.on_bar(*bar) for bar in zip(bars.opened_at_ms.tolist(), candles(bars), strict=True)]
    table = {name: np.array([getattr(reading, name) for reading in told]) for name in told[0]._fields[1:5]}
    table["log_likelihood"] = np.array([reading.log_likelihood for reading in told])
    return table | dict(zip(CONTEXT_NAMES, np.array([reading.context for reading in told]).T, strict=True))


def candles(bars: Columns) -> list[Candle]:
    """The bars one by one, as features are made of them."""
    return [Candle(*prices) for prices in zip(*(column.tolist() for column in bars.all()[1:]), strict=True)]


def fitted_on(bars: list[Candle]) -> RegimeModel:
    """A model as ml_service would train it, in a process of its own: the last fifth held out."""
    request = FitRequest(bars, len(bars) // 5, states=(3,), starts=2, seed=SEED)
    fitting = [sys.executable, "-m", "services.ml_service.fitting"]
    answer = subprocess.run(fitting, input=msgspec.msgpack.encode(request), capture_output=True, check=False)
    lines = answer.stdout.splitlines()
    told = msgspec.json.decode(lines[-1], type=FitLine) if lines else NotFitted(answer.stderr.decode()[-500:])
    if not isinstance(told, Fitted):
        raise NeedsOperator(f"A model was expected from {len(bars)} bars, but: {told}. Give more bars.")
    return load_model(told.model, content_id(told.model))


def _functions(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")] or ["none"]


def _told(subject: str, market: Bars | Panel, found: dict[str, list[Leak]]) -> dict[str, object]:
    """The same as plain data."""
    return {
        "subject": subject,
        "clean": not any(found.values()),
        "bars": len(market),
        "symbol": market.symbol,
        "timeframe": market.timeframe,
        "data_sha256": market.sha256,
        "checked": list(found),
        "leaks": [
            {
                "part": part,
                "column": leak.column,
                "bar": leak.bar,
                "opened_at_ms": leak.opened_at_ms,
                "was": str(leak.was),
                "expected": str(leak.expected),
                "how": leak.how,
            }
            for part, of_part in found.items()
            for leak in of_part
        ],
    }
