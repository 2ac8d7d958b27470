"""Prints `docs/metrics.md` from the docstrings of the formulas, so that the page cannot say what the code does not."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

from services.backtest_suite import formulas, significance

INTRODUCTION = """# What the figures mean

Every figure that a backtest is told by, with its formula and its source, printed from `services/backtest_suite` by
`just metrics`. A test keeps this page fresh, and other libraries are asked in tests as oracles.

r are simple returns a bar (n,), E the worth at each close, P the bars of a mean year of the instrument's calendar:
365.2425 days for a market that never closes, 251.46 sessions for New York (counted over 2000 to 2027, special closures
included). An instrument without a known calendar is an error: 252 is nobody's default.

What cannot be known is NaN: no value, one value where two are needed, all NaN, constant returns where their dispersion
divides. A NaN among the values makes the figure NaN; it is never dropped.
"""
DIFFERENCES = """## Where other libraries say something else

Asked: empyrical-reloaded 0.7 and vectorbt 1.2. Where nothing is said below, all three agree to 1e-9.

| figure | theirs | ours, and why |
| --- | --- | --- |
| drawdown, VaR, CVaR | negative numbers | positive fractions: a limit reads `at most 0.15` |
| periods a year | 252 or what one types in; vectorbt 365 days | counted by the instrument's calendar |
| NaN among returns | dropped (both) | the figure is unknown: a bar that is not known is not a bar without a return |
| Sharpe of equal returns | infinite (both; vectorbt also for returns of 0) | NaN: there is no dispersion to divide by |
| omega without a loss | NaN (empyrical), infinite (vectorbt, also for returns of 0) | infinite for a gain, NaN for nothing |
| Calmar without a drawdown | NaN (both) | infinite for a gain, NaN for nothing |
| tail ratio of returns of 0 | infinite (vectorbt) | NaN: 0 / 0 |
| kurtosis | an excess over 3 (scipy's default, pandas) | m4 / m2^2: 3 is normal, as the probabilistic Sharpe takes it |
| skew | corrected for n (pandas) | without, as the probabilistic Sharpe takes it; scipy's default |
| SQN | in money, all trades (vectorbt) | in R where the risk is known, and at most 100 trades count, as Tharp writes |
"""


def handbook() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION, "## Figures", ""]
    parts += _described(formulas)
    parts += ["## How far a figure can be believed", "", inspect.cleandoc(significance.__doc__ or ""), ""]
    parts += _described(significance)
    return "\n".join([*parts, DIFFERENCES])


def _described(module: ModuleType) -> list[str]:
    told: list[str] = []
    for name, function in vars(module).items():
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
            told += [f"### {name}", "", inspect.cleandoc(function.__doc__ or ""), ""]
    return told


if __name__ == "__main__":
    sys.stdout.write(handbook())
