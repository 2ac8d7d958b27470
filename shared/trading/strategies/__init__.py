"""The strategies: those we bring, and those in the user's folder `TRIMTAB_STRATEGIES`. One file each.

Strategies over many instruments stand beside those of one and share their names and their folder. What hosts one
instrument cannot host them, so it asks for `load_strategies` and `find_strategy`, and a backtest for `find_any`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from shared.contracts.errors import NeedsOperator
from shared.trading.strategies import (
    cross_sectional_momentum,
    mean_reversion,
    momentum,
    multi_timeframe,
    pairs,
    trend_follow,
)
from shared.trading.strategy import Declared, PortfolioStrategy, Strategy

D = TypeVar("D", bound=Declared)
BUILT_IN: dict[str, Strategy] = {
    module.STRATEGY.name: module.STRATEGY for module in (mean_reversion, momentum, multi_timeframe, trend_follow)
}
BUILT_IN_PORTFOLIOS: dict[str, PortfolioStrategy] = {
    module.STRATEGY.name: module.STRATEGY for module in (cross_sectional_momentum, pairs)
}
OVER_MANY = "it trades a portfolio: `trimtab backtest` runs it, but nothing that trades one instrument can."


def all_strategies() -> dict[str, Strategy]:
    """Those of one instrument: ours, and those of the folder `TRIMTAB_STRATEGIES` (by default `./strategies`)."""
    return load_strategies(_users_folder())


def load_strategies(folder: Path | None = None) -> dict[str, Strategy]:
    """All strategies of one instrument by name: ours, and those of the folder. Raises as `load_all` does."""
    return of_one_instrument(load_all(folder))


def of_one_instrument(found: Mapping[str, Strategy | PortfolioStrategy]) -> dict[str, Strategy]:
    """Those of one instrument among these."""
    return {name: made for name, made in found.items() if isinstance(made, Strategy)}


def load_all(folder: Path | None = None) -> dict[str, Strategy | PortfolioStrategy]:
    """All strategies by name: ours, and each `*.py` of the folder (none when it does not exist).

    A file that does not load, has no STRATEGY, or takes a name that is taken raises NeedsOperator with its path: a
    strategy that silently is not there would be worse.
    """
    found: dict[str, Strategy | PortfolioStrategy] = {**BUILT_IN, **BUILT_IN_PORTFOLIOS}
    for file in sorted(folder.glob("*.py")) if folder is not None and folder.is_dir() else ():
        if file.name.startswith("_"):
            continue
        made = load_any(file)
        if made.name in found:
            raise NeedsOperator(f"{file}: the name {made.name!r} is taken; give this strategy another.")
        found[made.name] = made
    return found


def load_strategy(file: Path) -> Strategy:
    """The STRATEGY of one file, which must be of one instrument."""
    made = load_any(file)
    if not isinstance(made, Strategy):
        raise NeedsOperator(f"{file}: {OVER_MANY}")
    return made


def load_any(file: Path) -> Strategy | PortfolioStrategy:
    """The STRATEGY of one file, of either kind. Its module is named by its path, so that two files of one name do not meet."""
    path = file.resolve()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise NeedsOperator(f"{file} must be a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # numba finds tuple classes by their module's name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise NeedsOperator(f"{file} does not load: {type(error).__name__}: {error}") from error
    made = getattr(module, "STRATEGY", None)
    if not isinstance(made, Strategy | PortfolioStrategy):
        raise NeedsOperator(f"{file} must end with `STRATEGY = strategy(...)`; see docs/strategies.md.")
    return made


def is_built_in(strategy: Declared) -> bool:
    """Whether it is one that we bring."""
    return strategy is BUILT_IN.get(strategy.name) or strategy is BUILT_IN_PORTFOLIOS.get(strategy.name)


def find_any(name: str) -> Strategy | PortfolioStrategy:
    """The strategy of this name, of either kind, ours or of the user's folder."""
    return find_strategy(name, load_all(_users_folder()))


def find_strategy(name: str, among: Mapping[str, D] = BUILT_IN) -> D:
    """The strategy of this name, or NeedsOperator with the nearest right one."""
    if name in among:
        return among[name]
    if isinstance(load_all(_users_folder()).get(name), PortfolioStrategy):
        raise NeedsOperator(f"{name}: {OVER_MANY}")
    near: list[Any] = difflib.get_close_matches(name, among, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise NeedsOperator(f"A strategy must be one of {', '.join(sorted(among))}, was {name!r}.{meant}")


def _users_folder() -> Path:
    return Path(os.environ.get("TRIMTAB_STRATEGIES", "strategies"))
