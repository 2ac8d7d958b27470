"""A grid of parameter sets: each is computed once, what is done is kept, and the best is judged by its neighbours."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from services.backtest_suite.axes import Axes, table_of
from services.backtest_suite.backends import Backend, outcomes
from services.backtest_suite.drawn import Drawn
from services.backtest_suite.driver import Experiment
from services.backtest_suite.manifests import Params
from services.backtest_suite.outcomes import Outcome
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.significance import deflated_sharpe
from services.backtest_suite.stability import PLATEAU, Surface
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Figures

METRICS = tuple(name for name in Figures.__struct_fields__ if name != "bars")
LESS_IS_BETTER = {"max_drawdown", "fees"}
TIMEOUT_S = 300.0  # for one parameter set in a process of its own

Progress = Callable[[int, int], None]  # (done, of)


@dataclass(frozen=True)
class Best:
    """One of the best sets, and how much it is to be believed."""

    outcome: Outcome
    figures: Figures
    value: float  # of the metric
    plateau: float  # see Surface.plateau
    edges: list[str]  # axes at whose end it lies

    @property
    def is_peak(self) -> bool:
        """Whether its neighbours do not support it."""
        return not self.plateau >= PLATEAU


@dataclass(frozen=True)
class GridResult(Drawn):
    """All outcomes of a grid, in the order of its table."""

    experiment: Experiment
    axes: Axes
    metric: str
    outcomes: list[Outcome]
    rule_broken: int  # combinations that the strategy's rule left out
    computed: int  # the others were known
    elapsed_s: float
    trials: int  # parameter sets ever tried on these bars, these included

    @property
    def sign(self) -> int:
        """-1 for a metric of which less is better."""
        return -1 if self.metric in LESS_IS_BETTER else 1

    @property
    def bar_evaluations(self) -> int:
        """Bars times the sets that were computed now."""
        return self.computed * len(self.experiment.bars)

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure]

    @cached_property
    def surface(self) -> Surface:
        """The metric over the axes, its sign turned where less is better."""
        return Surface(self.axes, [(outcome.params, self._value(outcome)) for outcome in self.outcomes])

    def best(self, count: int = 10) -> list[Best]:
        """The best sets, as `ranked`."""
        return [
            Best(
                one,
                figures,
                self.sign * worth(figures, self.metric),
                self.surface.plateau(one.params),
                self.surface.edges(one.params),
            )
            for one, figures in ranked(self.outcomes, self.metric)[:count]
        ]

    @cached_property
    def deflated(self) -> float:
        """Chance that the best set's Sharpe ratio is above what the luckiest of all trials would show. NaN without one.

        The trials' spread is that of this grid's own Sharpe ratios.
        """
        best = self.best(1)
        if not best:
            return math.nan
        run = self.experiment.run(best[0].outcome.params, trials=self.trials)
        ratios = np.array([one.figures.sharpe for one in self.outcomes if one.figures is not None])
        ratios = ratios[np.isfinite(ratios)]
        spread = float(np.std(ratios, ddof=1)) if len(ratios) > 1 else math.nan
        return deflated_sharpe(run.returns, self.trials, spread / math.sqrt(run.periods_per_year))

    def summary(self, count: int = 10) -> dict[str, Any]:
        """What `--json` prints."""
        rate = self.bar_evaluations / self.elapsed_s if self.computed else 0.0
        return {
            "combinations": len(self.outcomes),
            "rule_broken": self.rule_broken,
            "computed": self.computed,
            "failed": len(self.failures),
            "trials": self.trials,
            "deflated_sharpe": self.deflated,
            "universe": self.experiment.bars.universe,
            "metric": self.metric,
            "bar_evaluations": self.bar_evaluations,
            "bar_evaluations_per_s": rate,
            "elapsed_s": self.elapsed_s,
            "best": [
                {
                    "params": one.outcome.params,
                    "metrics": msgspec.to_builtins(one.figures),
                    "plateau": one.plateau,
                    "is_peak": one.is_peak,
                    "at_edge_of": one.edges,
                }
                for one in self.best(count)
            ],
        }

    def _value(self, outcome: Outcome) -> float:
        return math.nan if outcome.figures is None else worth(outcome.figures, self.metric)


def run_grid(
    experiment: Experiment,
    axes: Axes,
    store: RunStore | None = None,
    *,
    metric: str = "sharpe",
    backend: Backend = "threads",
    workers: int | None = None,
    timeout_s: float = TIMEOUT_S,
    use_cache: bool = True,
    on_progress: Progress | None = None,
) -> GridResult:
    """Run every combination that the strategy's rule allows.

    With a store nothing is computed twice, and what is done stays when this process is killed. `timeout_s` is the
    patience with one set, for `backend="processes"`. Raises NeedsOperator for a name or value that the strategy does not
    take; what a set raises is its outcome.
    """
    check_metric(metric)
    table = table_of(experiment.strategy, axes)
    done = run_sets(
        experiment,
        table.sets,
        store,
        backend=backend,
        workers=workers,
        timeout_s=timeout_s,
        use_cache=use_cache,
        on_progress=on_progress,
    )
    return GridResult(
        experiment=experiment,
        axes=axes,
        metric=metric,
        outcomes=done.outcomes,
        rule_broken=table.rule_broken,
        computed=done.computed,
        elapsed_s=done.elapsed_s,
        trials=done.trials,
    )


@dataclass(frozen=True)
class Done:
    """What came of many parameter sets, in their order."""

    outcomes: list[Outcome]
    computed: int  # the others were known
    elapsed_s: float
    trials: int  # parameter sets ever tried on these bars, these included


def run_sets(
    experiment: Experiment,
    sets: Sequence[Params],
    store: RunStore | None = None,
    *,
    backend: Backend = "threads",
    workers: int | None = None,
    timeout_s: float = TIMEOUT_S,
    use_cache: bool = True,
    on_progress: Progress | None = None,
) -> Done:
    """Run these checked sets, on the terms of `run_grid`."""
    fingerprints = [experiment.fingerprint(params) for params in sets]
    known = store.known(fingerprints) if store is not None and use_cache else {}
    missing = [params for params, name in zip(sets, fingerprints, strict=True) if name not in known]
    found, done = dict(known), len(known)
    begun = time.perf_counter()
    for some in outcomes(experiment, missing, backend, workers, timeout_s) if missing else ():
        if store is not None:
            store.keep(experiment.bars.sha256, experiment.strategy.name, some)
        found.update((outcome.fingerprint, outcome) for outcome in some)
        done += len(some)
        if on_progress is not None:
            on_progress(done, len(sets))
    return Done(
        outcomes=[
            msgspec.structs.replace(found[name], params=params) for params, name in zip(sets, fingerprints, strict=True)
        ],
        computed=len(missing),
        elapsed_s=time.perf_counter() - begun,
        trials=_trials(store, experiment, fingerprints),
    )


def check_metric(metric: str) -> None:
    """Raises NeedsOperator when it is none."""
    if metric not in METRICS:
        raise NeedsOperator(f"A grid's metric must be one of {', '.join(METRICS)}, was {metric!r}.")


def worth(figures: Figures, metric: str) -> float:
    """The metric, its sign turned where less is better."""
    return (-1.0 if metric in LESS_IS_BETTER else 1.0) * float(getattr(figures, metric))


def ranked(outcomes: Sequence[Outcome], metric: str) -> list[tuple[Outcome, Figures]]:
    """Best first; of equals the first one given. Those without the metric are left out."""
    known = [(one, one.figures) for one in outcomes if one.figures is not None]
    known = [each for each in known if not math.isnan(worth(each[1], metric))]
    return sorted(known, key=lambda each: worth(each[1], metric), reverse=True)


def _trials(store: RunStore | None, experiment: Experiment, fingerprints: Sequence[str]) -> int:
    if store is None:
        return len(fingerprints)
    return store.trials(experiment.bars.sha256, experiment.strategy.name)
