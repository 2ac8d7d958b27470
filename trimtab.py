"""The face: what strategies and notebooks may import, and nothing else.

    from trimtab import Bar, Regime, Target, flat, kernel, long, ring, sma, sma_step, strategy
    from trimtab import Bars, backtest, find_presets, grid, targets_from_signals, walk_forward

Backtests bring numba; it is imported when one of them is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.contracts.governance import Costs, Figures, SlippageModel
from shared.contracts.instruments import Instrument
from shared.trading.arithmetic import safe_exp, safe_log, safe_sqrt, whole
from shared.trading.checker import faults
from shared.trading.higher_bars import Higher, higher, higher_open, higher_step
from shared.trading.indicators import (
    Atr,
    Bollinger,
    Deviation,
    Donchian,
    Ema,
    Highest,
    Rsi,
    Sma,
    atr,
    atr_step,
    bollinger,
    bollinger_step,
    deviation,
    deviation_step,
    donchian,
    donchian_step,
    ema,
    ema_step,
    highest,
    highest_step,
    is_ready,
    rsi,
    rsi_step,
    sma,
    sma_step,
    true_range,
    value,
)
from shared.trading.kernel import copy, freeze, kernel, ring, same, thaw
from shared.trading.leakcheck import Leak, leaks
from shared.trading.portfolio import Market
from shared.trading.ranking import kth_largest, weigh_largest
from shared.trading.strategies import all_strategies, find_strategy, load_all, load_any, load_strategies, load_strategy
from shared.trading.strategy import PortfolioStrategy, Strategy, portfolio_strategy, strategy
from shared.trading.trader import Trader
from shared.trading.values import UNKNOWN, Bar, Regime, Target, flat, is_known, long, short

if TYPE_CHECKING:
    from services.backtest_suite.data import Bars, read_bars
    from services.backtest_suite.notebook import backtest, find_presets, grid, walk_forward
    from shared.trading.columns import Columns, MarketColumns
    from shared.trading.compiled import (
        Failure,
        Run,
        Targets,
        Terms,
        callback_targets,
        execute,
        scan,
        vector_targets,
    )
    from shared.trading.compiled.portfolios import PortfolioRun, PortfolioTerms, scan_portfolio
    from shared.trading.compiled.signals import targets_from_signals

HEAVY = {
    **dict.fromkeys(("Bars", "read_bars"), "services.backtest_suite.data"),
    **dict.fromkeys(("backtest", "find_presets", "grid", "walk_forward"), "services.backtest_suite.notebook"),
    "targets_from_signals": "shared.trading.compiled.signals",
    **dict.fromkeys(("Columns", "MarketColumns"), "shared.trading.columns"),
    **dict.fromkeys(("PortfolioRun", "PortfolioTerms", "scan_portfolio"), "shared.trading.compiled.portfolios"),
    **dict.fromkeys(
        ("Failure", "Run", "Targets", "Terms", "callback_targets", "execute", "scan", "vector_targets"),
        "shared.trading.compiled",
    ),
}

__all__ = [
    "UNKNOWN",
    "Atr",
    "Bar",
    "Bars",
    "Bollinger",
    "Columns",
    "Costs",
    "Deviation",
    "Donchian",
    "Ema",
    "Failure",
    "Figures",
    "Higher",
    "Highest",
    "Instrument",
    "Leak",
    "Market",
    "MarketColumns",
    "PortfolioRun",
    "PortfolioStrategy",
    "PortfolioTerms",
    "Regime",
    "Rsi",
    "Run",
    "SlippageModel",
    "Sma",
    "Strategy",
    "Target",
    "Targets",
    "Terms",
    "Trader",
    "all_strategies",
    "atr",
    "atr_step",
    "backtest",
    "bollinger",
    "bollinger_step",
    "callback_targets",
    "copy",
    "deviation",
    "deviation_step",
    "donchian",
    "donchian_step",
    "ema",
    "ema_step",
    "execute",
    "faults",
    "find_presets",
    "find_strategy",
    "flat",
    "freeze",
    "grid",
    "higher",
    "higher_open",
    "higher_step",
    "highest",
    "highest_step",
    "is_known",
    "is_ready",
    "kernel",
    "kth_largest",
    "leaks",
    "load_all",
    "load_any",
    "load_strategies",
    "load_strategy",
    "long",
    "portfolio_strategy",
    "read_bars",
    "ring",
    "rsi",
    "rsi_step",
    "safe_exp",
    "safe_log",
    "safe_sqrt",
    "same",
    "scan",
    "scan_portfolio",
    "short",
    "sma",
    "sma_step",
    "strategy",
    "targets_from_signals",
    "thaw",
    "true_range",
    "value",
    "vector_targets",
    "walk_forward",
    "weigh_largest",
    "whole",
]


def __getattr__(name: str) -> Any:
    if name in HEAVY:
        import importlib

        return getattr(importlib.import_module(HEAVY[name]), name)
    raise AttributeError(f"trimtab offers {', '.join(__all__)}; there is no {name!r}.")
