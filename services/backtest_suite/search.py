"""One search: draw parameter sets, run them on a training span, run the best on the span after it. Pure.

|<------ training ------>|<-- test -->|<-- holdout -->|
  every set is run here    the best     nobody looks: the governor's
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from services.backtest_suite.bars import terms_for
from services.backtest_suite.candidates import Found
from services.backtest_suite.draws import draw
from services.backtest_suite.manifests import span_of
from shared.contracts.errors import BadMessage
from shared.contracts.governance import Costs
from shared.trading.columns import Columns
from shared.trading.compiled import Run, grid, scan
from shared.trading.strategy import Strategy


@dataclass(frozen=True)
class Plan:
    """How one search goes about it."""

    train_share: float
    test_share: float
    sets: int
    best: int
    least_trades: int
    seed: int
    threads: int | None


def search(strategy: Strategy, bars: Columns, symbol: str, timeframe: str, costs: Costs, plan: Plan) -> list[Found]:
    """The best sets by their Sharpe ratio in training, best first. None when nothing traded often enough.

    The same bars, plan and code give the same answer. Raises BadMessage when the bars are too few to be split.
    """
    train_end = int(len(bars) * plan.train_share)
    test_end = train_end + int(len(bars) * plan.test_share)
    train, test = bars.part(0, train_end), bars.part(train_end, test_end)
    if min(len(train), len(test)) < 2:
        raise BadMessage(f"A search needs bars for training and test, there were {len(bars)}.")
    terms = terms_for(symbol, timeframe, train, costs)
    seed = f"{plan.seed}.{strategy.name}.{symbol}.{timeframe}.{int(bars.opened_at_ms[-1])}"
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]))
    table = draw(strategy, plan.sets, rng, most_warmup=len(train) // 4)
    runs = [run for run in grid(strategy, train, table, terms, threads=plan.threads) if isinstance(run, Run)]
    worthy = [run for run in runs if run.figures.trades >= plan.least_trades and math.isfinite(run.figures.sharpe)]
    # `sorted` keeps the order of what is equal, so ties are broken by the draw.
    best = sorted(worthy, key=lambda run: run.figures.sharpe, reverse=True)[: plan.best]
    return [
        Found(
            params=run.params._asdict(),
            train=span_of(train),
            train_figures=run.figures,
            test=span_of(test),
            test_figures=scan(strategy, bars.part(0, test_end), run.params, terms, trade_from=train_end).figures,
            trials=len(table),
        )
        for run in best
    ]
