"""When a new model or preset is good enough: figures of the evidence, held against a profile's rules. Pure.

The limits are data, in profiles.toml. What the evidence does not tell is unknown, and unknown passes no rule.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Literal, NamedTuple

import msgspec

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Figures
from shared.contracts.jobs import EvidenceGiven
from shared.contracts.times import TIMEFRAMES, timeframe_length

PROFILES = Path(__file__).with_name("profiles.toml")
DAYS_PER_YEAR = 365.2425  # of a market that never closes, as in shared/trading/performance
EULER = 0.5772156649015329


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One figure and what it must be."""

    figure: str
    at_least: float = -math.inf
    at_most: float = math.inf

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether the figure is known and within its limits."""
        return self.at_least <= figures.get(self.figure, math.nan) <= self.at_most

    def told(self, figures: Mapping[str, float]) -> str:
        """`sharpe at least 1, was 0.42`."""
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("at least", self.at_least), ("at most", self.at_most))
            if math.isfinite(limit)
        ]
        found = figures.get(self.figure, math.nan)
        return f"{self.figure} {' and '.join(limits)}, was {'unknown' if math.isnan(found) else f'{found:.6g}'}"


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of `all`, at least `some_needed` of `some`, and all of `successor` for who takes the place of another."""

    all: tuple[Rule, ...]
    successor: tuple[Rule, ...] = ()
    some: tuple[Rule, ...] = ()
    some_needed: int = 0

    @property
    def least_bars(self) -> int:
        """Bars without which a holdout need not be tried."""
        return max((math.ceil(rule.at_least) for rule in self.all if rule.figure == "holdout_bars"), default=1)


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A gate. `modes` are those in which it may stand."""

    version: int
    modes: tuple[Literal["paper", "live"], ...]
    drift_nats: float
    preset: Rules
    model: Rules
    name: str = ""

    @property
    def title(self) -> str:
        """As the record names it."""
        return f"{self.name}/{self.version}"


class Verdict(NamedTuple):
    """What the rules say: each reason names its rule, its limit and what was found."""

    passed: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def is_passed(self) -> bool:
        return not self.failed


def profile(name: str, mode: Literal["paper", "live"], file: Path = PROFILES) -> Profile:
    """The gate of this name. Raises NeedsOperator when there is none, it cannot be read, or it may not stand in `mode`."""
    try:
        found = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), dict[str, Profile])
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise NeedsOperator(f"The gate profiles in {file.name} cannot be read: {error}.") from error
    if name not in found:
        raise NeedsOperator(f"A gate profile must be one of {', '.join(found)}, was {name!r}.")
    if mode not in found[name].modes:
        fitting = ", ".join(other for other, one in found.items() if mode in one.modes)
        raise NeedsOperator(f"The gate profile {name!r} is not for {mode} trading: set one of {fitting}.")
    return msgspec.structs.replace(found[name], name=name)


def judge(figures: Mapping[str, float], rules: Rules, *, succeeds: bool = False) -> Verdict:
    """Hold the figures against the rules. Of `some`, those that failed are told only when too few held."""
    needed = (*rules.all, *rules.successor) if succeeds else rules.all
    passed = [rule.told(figures) for rule in needed if rule.holds(figures)]
    failed = [rule.told(figures) for rule in needed if not rule.holds(figures)]
    held = [rule for rule in rules.some if rule.holds(figures)]
    passed += [rule.told(figures) for rule in held]
    if len(held) < rules.some_needed:
        missing = "; ".join(rule.told(figures) for rule in rules.some if not rule.holds(figures))
        failed.append(f"{rules.some_needed} of {len(rules.some)} must hold, did {len(held)}: {missing}")
    return Verdict(tuple(passed), tuple(failed))


def preset_figures(evidence: EvidenceGiven, timeframe: str, trials: int) -> dict[str, float]:
    """What is known of a preset: its figures on the holdout, the same with doubled slippage, and what follows.

    holdout_bars         bars that were really there
    calmar               net return a year (compounded) / max drawdown
    confidence           chance that its true Sharpe ratio is above 0, by the returns' skew and kurtosis where told
    deflated_confidence  the same above what the best of `trials` worthless sets would show by luck
    and `evidence.metrics` as they came: correlation, bootstrap_sharpe_p5, ...

    Source: Bailey & López de Prado, "The Deflated Sharpe Ratio", Journal of Portfolio Management 40(5), 2014.
    """
    found = dict(evidence.metrics)
    found["trials"] = float(trials)
    if evidence.span is not None:
        found["holdout_bars"] = float(evidence.span.bars)
    if evidence.figures is not None:
        found |= _named(evidence.figures)
        a_bar = evidence.figures.sharpe / math.sqrt(_bars_per_year(timeframe))
        found["calmar"] = _calmar(evidence.figures, timeframe)
        shape = found.get("skew", 0.0), found.get("kurtosis", 3.0)  # of a normal distribution, where nobody says
        found["confidence"] = _chance_above(a_bar, 0.0, evidence.figures.bars, *shape)
        luck = _luck(trials, evidence.figures.bars)
        found["deflated_confidence"] = _chance_above(a_bar, luck, evidence.figures.bars, *shape)
    if evidence.stressed is not None:
        found |= {f"stressed_{name}": value for name, value in _named(evidence.stressed).items()}
    return found


def model_figures(evidence: EvidenceGiven, is_synthetic: bool) -> dict[str, float]:
    """What is known of a model: the worker's metrics, and

    gain_over_one_gaussian  nats a bar by which it explains the holdout better than one Gaussian fitted to it
    largest_share           fraction of bars that its most frequent regime takes
    """
    found = dict(evidence.metrics)
    found["synthetic"] = float(is_synthetic)
    if evidence.span is not None:
        found["holdout_bars"] = float(evidence.span.bars)
    shares = [value for name, value in evidence.metrics.items() if name.startswith("share_")]
    found["largest_share"] = max(shares, default=math.nan)
    found["gain_over_one_gaussian"] = evidence.metrics.get("log_likelihood", math.nan) - evidence.metrics.get(
        "log_likelihood_one_gaussian", math.nan
    )
    return found


def _named(figures: Figures) -> dict[str, float]:
    return {name: float(getattr(figures, name)) for name in Figures.__struct_fields__ if name != "bars"}


def _bars_per_year(timeframe: str) -> float:
    return DAYS_PER_YEAR * (TIMEFRAMES["1d"] / timeframe_length(timeframe))


def _calmar(figures: Figures, timeframe: str) -> float:
    """NaN without bars; infinite for a gain without a drawdown."""
    if figures.bars == 0 or not figures.net_return > -1.0:
        return math.nan
    years = figures.bars / _bars_per_year(timeframe)
    log_growth = math.log1p(figures.net_return) / years
    a_year = math.expm1(log_growth) if log_growth < 700.0 else math.inf
    if figures.max_drawdown > 0.0:
        return a_year / figures.max_drawdown
    return math.inf if a_year > 0.0 else math.nan


def _chance_above(sharpe: float, threshold: float, bars: int, skew: float, kurtosis: float) -> float:
    """Probabilistic Sharpe ratio: chance that the true one (a bar) is above the threshold."""
    if bars < 2 or not math.isfinite(sharpe):
        return math.nan
    variance = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe
    if not variance > 0.0:
        return math.nan
    return NormalDist().cdf((sharpe - threshold) / math.sqrt(variance / (bars - 1)))


def _luck(trials: int, bars: int) -> float:
    """The Sharpe ratio (a bar) that the best of `trials` sets without any edge is expected to show on `bars` bars."""
    if trials < 2 or bars < 2:
        return 0.0
    normal = NormalDist()
    best = (1.0 - EULER) * normal.inv_cdf(1.0 - 1.0 / trials) + EULER * normal.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return best / math.sqrt(bars - 1)
