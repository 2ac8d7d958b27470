"""One run, and all that it tells: figures, trades, equity, significance, and the manifest that repeats it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.backtest_suite.drawn import Drawn
from services.backtest_suite.formulas import expectancy, path_of, returns_of
from services.backtest_suite.legs import Leg, leg_of, legs_of
from services.backtest_suite.manifests import SHORT, Manifest, Params, file_of, versions
from services.backtest_suite.metrics import Metrics, metrics_of
from services.backtest_suite.scanners import OverMany, OverOne
from services.backtest_suite.significance import (
    DRAWS,
    Significance,
    deflated_sharpe,
    probabilistic_sharpe,
    sharpe_error,
    significance_of,
)
from services.backtest_suite.trades import Trade
from shared.contracts.governance import Figures
from shared.trading.compiled import Run
from shared.trading.compiled.portfolios import PortfolioRun
from shared.trading.performance import periods_per_year
from shared.trading.scales import Scale

if TYPE_CHECKING:
    from services.backtest_suite.driver import Experiment

MOST_DRAWN = 40_000_000  # returns that a bootstrap draws in all, about two seconds
LEAST_DRAWS = 100


@dataclass(frozen=True)
class Result(Drawn):
    """One run. What takes time to make is made when it is first asked for."""

    experiment: Experiment
    run: Run | PortfolioRun
    trials: int  # parameter sets tried on these bars, this one included; 1 where nobody counts
    elapsed_s: float
    number: int = 0  # how often exactly this was run, by the runs database; 0: it was not kept

    @property
    def run_id(self) -> str:
        """The beginning of the fingerprint, and an ordinal that keeps runs of the same apart."""
        return f"{self.fingerprint[:SHORT]}-{self.number}"

    @cached_property
    def fingerprint(self) -> str:
        return self.experiment.fingerprint(self.params)

    @cached_property
    def params(self) -> Params:
        return self.run.params._asdict()

    @cached_property
    def metrics(self) -> Metrics:
        """All figures, from the first bar on whose close an order could be made; alpha and beta to the instrument held."""
        bars, first = self.experiment.bars, self.first_bar
        measured = metrics_of(
            self.equity[first:],
            periods_per_year=self.periods_per_year,
            start=float(self.experiment.assumptions.cash),
            results=[float(trade.pnl) for trade in self.trades],
            held=np.any([leg.is_held for leg in self.legs], axis=0)[first:],
            traded=sum(leg.traded for leg in self.legs),
            benchmark=bars.held(max(first - 1, 0)),
        )
        # What was at stake is known to the loop to the bit; a portfolio's does not look.
        in_r = self.figures.expectancy_r
        if math.isnan(in_r):
            in_r = expectancy(np.array([trade.result_r for trade in self.trades]))
        return msgspec.structs.replace(measured, expectancy_r=in_r)

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """Simple returns of the bars from `first_bar` on (k,)."""
        return returns_of(path_of(self.equity[self.first_bar :], float(self.experiment.assumptions.cash)))

    @cached_property
    def significance(self) -> Significance:
        """How far the Sharpe ratio can be believed after so many trials. The bootstrap takes seconds on long series."""
        return significance_of(
            self.returns,
            periods_per_year=self.periods_per_year,
            trades=len(self.trades),
            trials=self.trials,
            rng=np.random.default_rng(self.experiment.assumptions.seed),
            draws=min(DRAWS, max(LEAST_DRAWS, MOST_DRAWN // len(self.returns))),
        )

    @property
    def periods_per_year(self) -> float:
        """Bars of a year of the instrument's calendar."""
        return periods_per_year(self.experiment.bars.timeframe, self.experiment.assumptions.calendar)

    @property
    def figures(self) -> Figures:
        """What the loop itself kept count of."""
        return self.run.figures

    @property
    def first_bar(self) -> int:
        """The first bar on whose close an order could be made; the figures count from here."""
        experiment = self.experiment
        warm = experiment.strategy.warmup(self.run.params) - 1
        return min(max(experiment.assumptions.trade_from, warm), len(experiment.bars) - 1)

    @cached_property
    def metrics_by_name(self) -> dict[str, Any]:
        """As JSON has them: None where a figure is not known, or is infinite."""
        return msgspec.json.decode(msgspec.json.encode(self.metrics))

    def summary(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "run_id": self.run_id,
            "metrics": self.metrics_by_name,
            "significance": {
                "trials": self.trials,
                "sharpe_error": sharpe_error(self.returns, self.periods_per_year),
                "probabilistic_sharpe": probabilistic_sharpe(self.returns),
                "deflated_sharpe": deflated_sharpe(self.returns, self.trials),
            },
            "universe": self.experiment.bars.universe,
            "trades": len(self.trades),
            "orders": self.orders,
            "fees": float(self.fees),
            "equity_final": float(self.equity_final),
            "bars": len(self.experiment.bars),
            "elapsed_s": self.elapsed_s,
            **({"instruments": [leg.summary() for leg in self.legs]} if len(self.legs) > 1 else {}),
        }

    @cached_property
    def equity(self) -> NDArray[np.float64]:
        """Equity at each close (n,), quote currency."""
        assert self.run.curve is not None
        return self.run.curve / 10.0**self._scale.decimals

    @cached_property
    def legs(self) -> tuple[Leg, ...]:
        """Its part in each instrument."""
        scanner, run = self.experiment.scanner, self.run
        if isinstance(scanner, OverMany) and isinstance(run, PortfolioRun):
            return legs_of(run, scanner.terms, scanner.columns, self.experiment.filled_at_ms)
        assert isinstance(scanner, OverOne) and isinstance(run, Run)
        return (leg_of(run, scanner.terms.instrument, self.experiment.filled_at_ms, scanner.columns.close),)

    @property
    def equity_final(self) -> Decimal:
        return self._scale.amount(self.run.stats.equity)

    @property
    def fees(self) -> Decimal:
        return self._scale.amount(self.run.fees)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was inferred of the bars, and what the strategy wanted and could not have: for people."""
        refused = self.run.stats.shorts_refused
        told = f"{refused:,} times it wanted to be short where nothing can be owed, and was not" if refused else ""
        return (*self.experiment.bars.notes, *filter(None, [told]))

    @property
    def orders(self) -> int:
        """Orders that were filled."""
        return self.run.stats.fills

    @cached_property
    def trades(self) -> list[Trade]:
        """The round trips in all instruments, in the order in which they ended."""
        return sorted((trade for leg in self.legs for trade in leg.trades), key=lambda trade: trade.exit_at)

    @cached_property
    def manifest(self) -> Manifest:
        """Enough to run it again to the same bits."""
        experiment = self.experiment
        return Manifest(
            run_id=self.run_id,
            fingerprint=self.fingerprint,
            strategy=experiment.strategy.name,
            strategy_file=str(file_of(experiment.strategy) or ""),
            source_sha256=experiment.strategy.source,
            params=self.params,
            data=experiment.data,
            assumptions=experiment.assumptions,
            versions=versions(),
            result_sha256=self.result_sha256,
            metrics=self.metrics_by_name,
        )

    @cached_property
    def result_sha256(self) -> str:
        """Of every fill, charge, and the equity at every close, in ledger units: equal means the same to the last unit."""
        assert self.run.fills is not None and self.run.charges is not None and self.run.curve is not None
        digest = hashlib.sha256()
        for numbers in (self.run.fills[:, :5], self.run.charges[:, :3], self.run.curve):
            digest.update(np.ascontiguousarray(numbers, "<i8").tobytes())
        return digest.hexdigest()

    @property
    def _scale(self) -> Scale:
        return self.legs[0].scale  # money is counted alike in all of them
