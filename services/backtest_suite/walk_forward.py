"""Walk-forward: tune on a span, trade the span after it, go on. Only what nobody tuned on is told as the result.

Test spans follow one another without a hole. What was decided in them is traded in one run on one account: positions are
carried from window to window, and each change is paid for. So the out-of-sample equity is one that could have been had.

Source: R. Pardo, "The Evaluation and Optimization of Trading Strategies", 2nd ed., Wiley 2008, chapter 11.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np

from services.backtest_suite.axes import Axes, table_of
from services.backtest_suite.data import Bars
from services.backtest_suite.drawn import Drawn
from services.backtest_suite.draws import draw
from services.backtest_suite.driver import DECIDED, DECIDED_WEIGHTS, WARMUPS, Experiment
from services.backtest_suite.formulas import drawdown, path_of, returns_of, sharpe, total_return
from services.backtest_suite.grids import Progress, check_metric, ranked, run_sets
from services.backtest_suite.manifests import Params
from services.backtest_suite.outcomes import Outcome
from services.backtest_suite.panels import Panel
from services.backtest_suite.results import Result
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.significance import LEAST_RETURNS
from services.backtest_suite.windows import Scheme, Window, training, windows_of
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Figures
from shared.contracts.times import from_ms, to_ms
from shared.trading.columns import Columns, Integers, MarketColumns
from shared.trading.compiled import Targets
from shared.trading.compiled.callbacks import stepped_targets
from shared.trading.compiled.weights import Weights, stepped_weights
from shared.trading.strategy import Declared, PortfolioStrategy, Strategy

SETS = 40  # drawn where no grid says which
BARS_A_PARAMETER = 30  # beyond the warm-up, for each parameter that is tuned: with fewer anything can be fitted
WARMUP_SHARE = 4  # a drawn set may warm up for at most this part of a training span, as in a search
UNKNOWN = [np.array([math.nan])] * 3  # regimes


class Earned(NamedTuple):
    """What a span shows. NaN where it cannot be known."""

    net_return: float  # fraction
    sharpe: float  # annual
    max_drawdown: float  # fraction, >= 0
    trades: int  # that were entered within it


@dataclass(frozen=True)
class Step:
    """One window: what was chosen in it, what that had earned in training, and what it earned after it."""

    window: Window
    chosen: Outcome | None  # None: no set had the metric, and nothing was traded
    trials: int  # sets ever tried on this training span
    in_sample: Earned
    out_of_sample: Earned

    @property
    def degradation(self) -> float:
        """Sharpe ratio out of sample less that in sample: below 0 it fell."""
        return self.out_of_sample.sharpe - self.in_sample.sharpe


@dataclass(frozen=True)
class WalkForward(Drawn):
    """All windows, and the one run that was never tuned on."""

    experiment: Experiment
    scheme: Scheme
    metric: str
    steps: list[Step]
    sets: int  # tried in each window
    result: Result  # out of sample
    computed: int  # runs that were not known before
    elapsed_s: float

    @property
    def unused_bars(self) -> int:
        """Bars at the end that fill no test span."""
        return len(self.experiment.bars) - self.steps[-1].window.test_end

    @property
    def out_of_sample(self) -> Earned:
        """Of the one run, over all test spans."""
        return earned(self.result, self.steps[0].window.test_from, self.steps[-1].window.test_end)

    @property
    def in_sample_sharpe(self) -> float:
        """Mean over the windows of what was chosen."""
        return _mean([step.in_sample.sharpe for step in self.steps if step.chosen is not None])

    @property
    def degradation(self) -> float:
        """Sharpe ratio out of sample less the mean of those in sample."""
        return self.out_of_sample.sharpe - self.in_sample_sharpe

    @cached_property
    def efficiency(self) -> float:
        """Growth a year out of sample / in sample, both logarithmic. 1: it kept its promise; NaN: none was made.

        Source: Pardo's walk-forward efficiency, chapter 11; there of profits, here of growth, since equity compounds.
        """
        chosen = [step for step in self.steps if step.chosen is not None]
        bars = sum(step.window.train_end - step.window.train_from for step in chosen)
        promised = sum(_growth(step.in_sample.net_return) for step in chosen) / bars if bars else math.nan
        tested = self.steps[-1].window.test_end - self.steps[0].window.test_from
        return _growth(self.out_of_sample.net_return) / tested / promised if promised > 0.0 else math.nan

    @property
    def kept_sign(self) -> float:
        """Share of the windows that earned something out of sample, among those in which something was chosen."""
        return _mean([float(step.out_of_sample.net_return > 0.0) for step in self.steps if step.chosen is not None])

    def summary(self) -> dict[str, Any]:
        """What `--json` prints. The headline is out of sample."""
        times, scheme = self.experiment.bars.columns.opened_at_ms, self.scheme
        told = {
            "strategy": self.experiment.strategy.name,
            "scheme": {
                "train_s": scheme.train.total_seconds(),
                "test_s": scheme.test.total_seconds(),
                "anchored": scheme.anchored,
                "embargo_bars": scheme.embargo,
            },
            "metric": self.metric,
            "sets": self.sets,
            "trials": self.result.trials,
            "unused_bars": self.unused_bars,
            "out_of_sample": {key: value for key, value in self.result.summary().items() if key != "run_id"},
            "in_sample": {"sharpe": self.in_sample_sharpe},
            "degradation": {"sharpe": self.degradation, "efficiency": self.efficiency, "kept_sign": self.kept_sign},
            "windows": [
                {
                    "train": _span(times, step.window.train_from, step.window.train_end),
                    "test": _span(times, step.window.test_from, step.window.test_end),
                    "params": None if step.chosen is None else step.chosen.params,
                    "trials": step.trials,
                    "in_sample": step.in_sample._asdict(),
                    "out_of_sample": step.out_of_sample._asdict(),
                    "degradation": step.degradation,
                }
                for step in self.steps
            ],
            "computed": self.computed,
            "elapsed_s": self.elapsed_s,
        }
        return msgspec.json.decode(msgspec.json.encode(told))


def walk_forward(
    experiment: Experiment,
    scheme: Scheme,
    axes: Axes | None = None,
    store: RunStore | None = None,
    *,
    sets: int = SETS,
    metric: str = "sharpe",
    workers: int | None = None,
    use_cache: bool = True,
    on_progress: Progress | None = None,
) -> WalkForward:
    """Tune in each window over `axes`, or over `sets` that are drawn from the schema by the experiment's seed.

    With a store each window counts its trials on its own training span, and every set once more on the whole bars.
    Raises NeedsOperator when a window is too short, and says how many bars are needed; Failure when what was chosen raises
    in its test span.
    """
    check_metric(metric)
    bars = experiment.bars
    windows = windows_of(bars.columns.opened_at_ms, bars.timeframe, scheme)
    table = _table(experiment, axes, sets, windows)
    _refuse_short(experiment.strategy, bars, windows, table, len(axes) if axes else len(experiment.strategy.fields))
    chosen: list[tuple[Outcome, Figures] | None] = []
    trials: list[int] = []
    computed, elapsed_s = 0, 0.0
    for i, window in enumerate(windows):
        done = run_sets(
            training(experiment, window), table, store, workers=workers, use_cache=use_cache, on_progress=None
        )
        chosen.append(next(iter(ranked(done.outcomes, metric)), None))
        trials.append(done.trials)
        computed, elapsed_s = computed + done.computed, elapsed_s + done.elapsed_s
        if on_progress is not None:
            on_progress((i + 1) * len(table), len(windows) * len(table))
    tried = len(table) if store is None else store.count(bars.sha256, experiment.strategy.name, table)
    result = stitched(experiment, windows, [None if one is None else one[0].params for one in chosen], tried)
    steps = [
        Step(window, one and one[0], count, _in_sample(one), earned(result, window.test_from, window.test_end))
        for window, one, count in zip(windows, chosen, trials, strict=True)
    ]
    return WalkForward(experiment, scheme, metric, steps, len(table), result, computed, elapsed_s + result.elapsed_s)


def stitched(experiment: Experiment, windows: Sequence[Window], chosen: Sequence[Params | None], trials: int) -> Result:
    """What the chosen sets decided in their test spans, traded as one run. Bars before a span warm up, and no more.

    A newcomer enters on a change of its own target, as in live trading; what is held when its span begins it keeps if it
    wants the same, else that is left. A portfolio is put right where another set begins, as where its trading begins.
    """
    strategy, bars = experiment.strategy, experiment.bars
    first, end = windows[0].test_from, windows[-1].test_end
    if isinstance(strategy, PortfolioStrategy) and isinstance(bars, Panel):
        whole = _stitched_weights(strategy, bars.columns, windows, chosen)
        decided = replace(DECIDED_WEIGHTS, is_one_intent=strategy.is_one_intent)
    else:
        whole = _stitched_targets(*experiment.of_one("needs the bars of all its instruments"), windows, chosen)
        decided = DECIDED
    traded = Experiment(
        strategy=replace(decided, name=f"{strategy.name} walk-forward"),
        bars=bars.part(0, end),
        assumptions=msgspec.structs.replace(experiment.assumptions, trade_from=first),
        readings=experiment.readings,
        targets=whole,
    )
    return traded.run(trials=trials)


def _stitched_targets(
    strategy: Strategy, bars: Bars, windows: Sequence[Window], chosen: Sequence[Params | None]
) -> Targets:
    """What was decided in the test spans, one after the other."""
    columns = bars.columns
    whole = Targets.of(np.zeros(windows[-1].test_end))
    for window, params in zip(windows, chosen, strict=True):
        if params is not None:
            decided = _decided(strategy, columns, window, strategy.params(params))
            held, span = whole.exposure[window.test_from - 1], slice(window.test_from, window.test_end)
            for all_bars, own in zip(whole.all(), decided.all(), strict=True):
                all_bars[span] = own[-(window.test_end - window.test_from) :]
            before = decided.exposure[-(window.test_end - window.test_from) - 1]
            if before != held:
                whole.exposure[span][np.logical_and.accumulate(whole.exposure[span] == before)] = 0.0
    return whole


def _stitched_weights(
    strategy: PortfolioStrategy, columns: MarketColumns, windows: Sequence[Window], chosen: Sequence[Params | None]
) -> Weights:
    """The same of a portfolio: where another set is chosen, what it holds already is decided anew."""
    end = windows[-1].test_end
    whole = Weights(np.zeros((end, len(columns.symbols))), np.zeros(end, np.bool_))
    before: Params | None = None
    for window, params in zip(windows, chosen, strict=True):
        span = slice(window.test_from, window.test_end)
        if params is not None:
            checked = strategy.params(params)
            begin = max(0, window.test_from - WARMUPS * strategy.warmup(checked))
            decided, failure = stepped_weights(strategy, checked, columns.part(begin, window.test_end), UNKNOWN)
            if failure is not None:
                raise failure
            whole.weights[span] = decided.weights[window.test_from - begin :]
            whole.is_decided[span] = decided.is_decided[window.test_from - begin :]
        whole.is_decided[window.test_from] |= params != before
        before = params
    return whole


def earned(result: Result, first: int, end: int) -> Earned:
    """What a run earned in the bars [first, end)."""
    start = float(result.experiment.assumptions.cash) if first == 0 else float(result.equity[first - 1])
    path = path_of(result.equity[first:end], start)
    times = result.experiment.filled_at_ms
    until = int(times[end]) if end < len(times) else math.inf
    return Earned(
        net_return=total_return(path),
        sharpe=sharpe(returns_of(path), result.periods_per_year),
        max_drawdown=drawdown(path).depth,
        trades=sum(int(times[first]) <= to_ms(trade.entry_at) < until for trade in result.trades),
    )


def _table(experiment: Experiment, axes: Axes | None, sets: int, windows: Sequence[Window]) -> list[Params]:
    """The sets that every window tries: known before any bar is looked at."""
    if axes:
        return table_of(experiment.strategy, axes).sets
    shortest = min(window.train_end - window.train_from for window in windows)
    rng = np.random.default_rng(experiment.assumptions.seed)
    drawn = draw(experiment.strategy, sets, rng, most_warmup=shortest // WARMUP_SHARE)
    if not drawn:
        raise NeedsOperator(
            f"Strategy {experiment.strategy.name} warms up for {experiment.strategy.warmup(experiment.strategy.defaults):,} "
            f"bars; a training span must have {WARMUP_SHARE} times as many, the shortest has {shortest:,}."
        )
    return [params._asdict() for params in drawn]


def _refuse_short(
    strategy: Declared, bars: Bars | Panel, windows: Sequence[Window], table: Sequence[Params], tuned: int
) -> None:
    """Raise NeedsOperator for the first window with too few bars to say anything."""
    warmup = max(strategy.warmup(strategy.params(params)) for params in table)
    needed = {"train": warmup + BARS_A_PARAMETER * tuned, "test": LEAST_RETURNS}
    for number, window in enumerate(windows, 1):
        there = {
            "train": (window.train_from, window.train_end),
            "test": (window.test_from, window.test_end),
        }
        for span, (first, end) in there.items():
            if end - first < needed[span]:
                at = from_ms(int(bars.columns.opened_at_ms[min(first, len(bars) - 1)]))
                why = f"a warm-up of {warmup:,} and {BARS_A_PARAMETER} for each of {tuned} parameters"
                raise NeedsOperator(
                    f"Window {number} has {end - first:,} bars to {span} from {at:%Y-%m-%d %H:%M} on, it needs "
                    f"{needed[span]:,}{f' ({why})' if span == 'train' else ''}. Give a longer --{span}."
                )


def _decided(strategy: Strategy, columns: Columns, window: Window, params: Any) -> Targets:
    """What this set decides on the bars that warm it up, and on those of the test span."""
    begin = max(0, window.test_from - WARMUPS * strategy.warmup(params))
    targets, failure = stepped_targets(strategy, params, columns.part(begin, window.test_end), UNKNOWN)
    if failure is not None:
        raise failure
    return targets


def _in_sample(chosen: tuple[Outcome, Figures] | None) -> Earned:
    if chosen is None:
        return Earned(0.0, math.nan, 0.0, 0)
    figures = chosen[1]
    return Earned(figures.net_return, figures.sharpe, figures.max_drawdown, figures.trades)


def _growth(net_return: float) -> float:
    return math.log1p(net_return) if net_return > -1.0 else -math.inf


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _span(times: Integers, first: int, end: int) -> dict[str, Any]:
    return {"from": from_ms(int(times[first])), "to": from_ms(int(times[end - 1])), "bars": end - first}
