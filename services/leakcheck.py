"""`trimtab leakcheck`: law 2 on your own data. What is asked is in shared/trading/leakcheck.py; here is what it is asked of.

momentum                      a strategy, by name or by the path of its file: stepped, compiled, and as the engine hosts it
strategies/mine.py:targets    a function over whole columns, `targets(bars)`: exposures, Targets, or a frame of columns
regimes                       features and readings, by a model that is fitted on the first half of the bars
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from services.backtest_suite.data import Bars, read_bars
from services.ml_service.fit_lines import FitLine, FitRequest, Fitted, NotFitted
from services.venue_sim.market import SimulatedSeries
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
from shared.trading.leakcheck import Compute, Leak, leaks, strategy_tables
from shared.trading.strategies import all_strategies, find_strategy, load_strategy
from shared.trading.strategy import Strategy

EXIT_CLEAN, EXIT_LEAK = 0, 1
SEED = 7
COSTS = Costs(fee_bps=10, slippage_bps=5)
ADDED_OTHERWISE = 1e-9  # numpy adds longer columns in another order; a leak of that size could not be traded

console = Console(highlight=False)


def check(subject: str, data: Path | None, symbol: str, timeframe: str, bars: int, as_json: bool) -> int:
    """Look for leaks, tell them, and return the exit code: 0 when there are none, 1 when there are."""
    market = market_of(data, symbol, timeframe, bars)
    tolerance = ADDED_OTHERWISE if ":" in subject else 0.0
    found = {part: leaks(compute, market.columns, tolerance=tolerance) for part, compute in tables_of(subject, market)}
    if as_json:
        console.print(json.dumps(_told(subject, market, found)), markup=False, soft_wrap=True)
    else:
        for part, of_part in found.items():
            for line in map(str, of_part) if of_part else ("nothing sees the future",):
                console.print(f"{subject}, {part}: {line}", markup=False, soft_wrap=True)
        console.print(f"on {len(market)} bars of {market.symbol} {market.timeframe}, {market.source}", markup=False)
    return EXIT_LEAK if any(found.values()) else EXIT_CLEAN


def market_of(data: Path | None, symbol: str, timeframe: str, bars: int) -> Bars:
    """The last bars of a file, or as many of the simulated market."""
    if data is None:
        series = SimulatedSeries(symbol or "BTC-USDT", SEED, timeframe or "1m")
        columns = Columns.of(*zip(*map(series.candle, range(bars)), strict=True))
        return Bars(series.instrument.symbol, timeframe or "1m", columns, series.instrument, source=series.identity)
    found = read_bars(data, symbol=symbol, timeframe=timeframe)
    if len(found) != 1:
        names = ", ".join(f"{each.symbol} {each.timeframe}" for each in found)
        raise NeedsOperator(f"{data} holds {names}: say which with --symbol and --timeframe.")
    (one,) = found
    columns = one.columns.part(max(len(one) - bars, 0), len(one))
    return Bars(one.symbol, one.timeframe, columns, one.instrument, one.universe, one.source)


def tables_of(subject: str, market: Bars) -> Iterator[tuple[str, Compute]]:
    """What is to be checked, by name."""
    if subject == "regimes":
        model = fitted_on(candles(market.columns)[: len(market) // 2])
        yield "features", feature_table
        yield "readings", lambda bars: reading_table(model, timeframe_ms(market.timeframe), bars)
    elif ":" in subject:
        yield "function", function_of(subject)
    else:
        strategy = strategy_of(subject)
        terms = Terms(market.instrument, market.timeframe, COSTS, Decimal(10_000))
        yield from strategy_tables(strategy, strategy.params(), terms).items()


def strategy_of(subject: str) -> Strategy:
    """A strategy by its name, or by the path of its file."""
    return load_strategy(Path(subject)) if subject.endswith(".py") else find_strategy(subject, all_strategies())


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


def _told(subject: str, market: Bars, found: dict[str, list[Leak]]) -> dict[str, object]:
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
