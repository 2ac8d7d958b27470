"""Presets from backtests: tuned on the oldest bars, tried on those after them; the newest are left to the governor.

|<------ training ------>|<-- test -->|<-- holdout -->|
  every set is run here    the best     nobody looks: the governor's

Several horizons (timeframes) are split at the same instants and compete in one list, by what they earned in the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from services.backtest_suite.axes import Axes, table_of
from services.backtest_suite.candidates import Found, candidate_of
from services.backtest_suite.draws import draw
from services.backtest_suite.driver import Experiment
from services.backtest_suite.grids import Progress, check_metric, ranked, run_sets
from services.backtest_suite.manifests import Params, span_of
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.significance import LEAST_RETURNS
from services.backtest_suite.walk_forward import SETS, WARMUP_SHARE
from services.backtest_suite.windows import Window, training
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Figures, PresetCandidate
from shared.contracts.times import timeframe_length, timeframe_ms
from shared.trading.columns import Integers

OF_ONE = "a preset is of one instrument: the governor judges it there, and the engine trades it there; use `run`, `grid` and `walk-forward`"


@dataclass(frozen=True)
class Split:
    """How the bars are shared out, and who passes."""

    train: float = 0.5  # of the time that the bars span
    test: float = 0.25
    tested: int = 10  # sets a horizon that are tried on the test span, the best in training first
    best: int = 3  # of those that passed, over all horizons
    least_trades: int = 5  # in training, and in the test

    def __post_init__(self) -> None:
        if not (self.train > 0 and self.test > 0 and self.train + self.test <= 0.95):
            raise NeedsOperator(
                "The training and test shares must be above 0 and leave 0.05 or more of the bars unseen for the "
                f"governor, were {self.train:g} and {self.test:g}."
            )


@dataclass(frozen=True)
class Tried:
    """One set that was among the best in training, and how the test judged it."""

    experiment: Experiment  # of its horizon
    found: Found
    fault: str  # "" for one that passed

    @property
    def timeframe(self) -> str:
        return self.experiment.bars.timeframe


@dataclass(frozen=True)
class PresetSearch:
    """What became of all horizons of one instrument."""

    experiment: Experiment
    split: Split
    tried: list[Tried]  # on the test span, the best there first
    trials: int  # sets ever run on the training spans of all horizons

    @property
    def passed(self) -> list[Tried]:
        """The best of those that passed, at most `split.best`."""
        return [one for one in self.tried if not one.fault][: self.split.best]

    def candidates(self, venue: str) -> list[PresetCandidate]:
        """What may be proposed: only what passed out of sample. Proposed when the last bar had closed."""
        strategy, bars = self.experiment.of_one(OF_ONE)
        return [
            candidate_of(
                one.found,
                strategy,
                venue=venue,
                symbol=bars.symbol,
                timeframe=one.timeframe,
                costs=one.experiment.assumptions.costs,
                proposed_at=bars.last + timeframe_length(bars.timeframe),
            )
            for one in self.passed
        ]

    def summary(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "strategy": self.experiment.strategy.name,
            "symbol": self.experiment.bars.symbol,
            "universe": self.experiment.bars.universe,
            "trials": self.trials,
            "passed": len(self.passed),
            "tried": [
                {
                    "timeframe": one.timeframe,
                    "params": one.found.params,
                    "train": msgspec.to_builtins(one.found.train),
                    "in_sample": msgspec.to_builtins(one.found.train_figures),
                    "test": msgspec.to_builtins(one.found.test),
                    "out_of_sample": msgspec.to_builtins(one.found.test_figures),
                    "fault": one.fault,
                }
                for one in self.tried
            ],
        }


def find_presets(
    experiment: Experiment,
    split: Split,
    axes: Axes | None = None,
    store: RunStore | None = None,
    *,
    timeframes: Sequence[str] = (),
    sets: int = SETS,
    metric: str = "sharpe",
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> PresetSearch:
    """Tune every horizon on its training bars, try the best on its test bars, and let the horizons compete.

    What happens after the test span changes nothing. Raises NeedsOperator when a span is too short, Failure when one of
    the best raises in the test.
    """
    check_metric(metric)
    experiment.of_one(OF_ONE)
    horizons = [_longer(experiment, timeframe) for timeframe in timeframes] or [experiment]
    tried: list[Tried] = []
    trials = 0
    for i, horizon in enumerate(horizons):
        window = _window(horizon, experiment, split)
        table = _table(horizon, axes, sets, window)
        done = run_sets(training(horizon, window), table, store, workers=workers)
        trials += done.trials
        best = [
            (one.params, figures)
            for one, figures in ranked(done.outcomes, metric)
            if figures.trades >= split.least_trades
        ][: split.tested]
        tried += [_tried(horizon, window, params, figures, split) for params, figures in best]
        if store is not None:
            store.count(horizon.bars.sha256, horizon.strategy.name, table)
        if on_progress is not None:
            on_progress(i + 1, len(horizons))
    # Whoever competed was a try: each is the best of the sets of all horizons.
    tried = [replace(one, found=replace(one.found, trials=trials)) for one in tried]
    tried.sort(key=lambda one: one.found.test_figures.sharpe if not one.fault else -np.inf, reverse=True)
    return PresetSearch(experiment, split, tried, trials)


def _longer(experiment: Experiment, timeframe: str) -> Experiment:
    _, bars = experiment.of_one(OF_ONE)
    return replace(experiment, bars=bars if timeframe == bars.timeframe else bars.resampled(timeframe))


def _window(horizon: Experiment, base: Experiment, split: Split) -> Window:
    """Where the spans lie: the same instants for every horizon, each rounded to its bars."""
    times, bar = base.bars.columns.opened_at_ms, timeframe_ms(base.bars.timeframe)
    first, length = int(times[0]), int(times[-1]) + bar - int(times[0])
    edges = [first + int(length * split.train), first + int(length * (split.train + split.test))]
    trained, tested = _closed_by(horizon, edges)
    there = {"train": trained, "test": tested - trained, "leave to the governor": len(horizon.bars) - tested}
    for span, bars in there.items():
        if bars < LEAST_RETURNS:
            raise NeedsOperator(
                f"{horizon.bars.symbol} {horizon.bars.timeframe}: there are {bars} bars to {span}, {LEAST_RETURNS} are "
                "needed. Give more bars, or shorter timeframes."
            )
    return Window(0, trained, trained, tested)


def _closed_by(horizon: Experiment, instants_ms: list[int]) -> list[int]:
    """How many bars had closed at each instant: one that is still forming is nobody's."""
    closed: Integers = horizon.bars.columns.opened_at_ms + timeframe_ms(horizon.bars.timeframe)
    return np.searchsorted(closed, instants_ms, side="right").tolist()


def _table(horizon: Experiment, axes: Axes | None, sets: int, window: Window) -> list[Params]:
    if axes:
        return table_of(horizon.strategy, axes).sets
    rng = np.random.default_rng(horizon.assumptions.seed)
    drawn = draw(horizon.strategy, sets, rng, most_warmup=window.train_end // WARMUP_SHARE)
    return [params._asdict() for params in drawn]


def _tried(horizon: Experiment, window: Window, params: Params, in_sample: Figures, split: Split) -> Tried:
    _, bars = horizon.of_one(OF_ONE)
    columns = bars.columns
    test = replace(
        horizon,
        bars=bars.part(0, window.test_end),
        assumptions=msgspec.structs.replace(horizon.assumptions, trade_from=window.test_from),
    )
    figures = test.run(params).figures
    found = Found(
        params=params,
        train=span_of(columns.part(0, window.train_end)),
        train_figures=in_sample,
        test=span_of(columns.part(window.test_from, window.test_end)),
        test_figures=figures,
        trials=0,  # known when all horizons are done
    )
    return Tried(horizon, found, _fault(figures, split))


def _fault(test: Figures, split: Split) -> str:
    """What keeps a set from being proposed; nothing when it passed."""
    if test.trades < split.least_trades:
        return f"trades at least {split.least_trades}, were {test.trades}"
    if not test.net_return > 0.0:
        return f"net return above 0, was {test.net_return:.4g}"
    return "" if test.sharpe > 0.0 else f"Sharpe ratio above 0, was {test.sharpe:.4g}"
