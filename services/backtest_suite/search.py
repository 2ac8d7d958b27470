"""A scheduled search of one sleeve: how it draws, and on which terms. What passes is decided where people's presets are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from services.backtest_suite.bars import CASH, terms_for
from services.backtest_suite.data import Bars
from services.backtest_suite.driver import Experiment
from services.backtest_suite.presets import PresetSearch, Split, find_presets
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.trading.columns import Columns
from shared.trading.strategy import Strategy


@dataclass(frozen=True)
class Plan:
    """How one search goes about it."""

    split: Split
    sets: int
    seed: int
    threads: int | None


def search(strategy: Strategy, bars: Columns, symbol: str, timeframe: str, costs: Costs, plan: Plan) -> PresetSearch:
    """Tune on the oldest bars, try the best on those after them; what passed there may be proposed.

    The same bars, plan and code give the same answer. Raises NeedsOperator when the bars are too few to be split,
    Failure when one of the best raises in the test.
    """
    training = bars.part(
        0, int(len(bars) * plan.split.train)
    )  # a tick that knew the other prices would know the future
    if not len(training):
        raise NeedsOperator(f"A search needs bars for training and test, there were {len(bars)}.")
    instrument = terms_for(symbol, timeframe, training, costs).instrument
    seed = f"{plan.seed}.{strategy.name}.{symbol}.{timeframe}.{int(bars.opened_at_ms[-1])}"
    experiment = Experiment.of(
        strategy,
        Bars(symbol, timeframe, bars, instrument, source="ingester"),
        cash=CASH,
        costs=costs,
        seed=int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]),
    )
    return find_presets(experiment, plan.split, sets=plan.sets, workers=plan.threads)
