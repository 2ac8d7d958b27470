"""What a strategy over many instruments wishes for from each bar on, as columns: what deciding leaves to executing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.contracts.times import from_ms
from shared.trading.columns import Floats, MarketColumns
from shared.trading.compiled.callbacks import Failure
from shared.trading.kernel import kernel
from shared.trading.portfolio import Market
from shared.trading.portfolio_loop import row
from shared.trading.strategy import MOST_INSTRUMENTS, PortfolioStrategy
from shared.trading.values import Regime


@dataclass(frozen=True)
class Weights:
    """What stands to be held after each bar, and where that was decided: only there orders are made."""

    weights: Floats  # (n_bars, n) of the equity
    is_decided: NDArray[np.bool_]  # (n_bars,)

    def __len__(self) -> int:
        return len(self.is_decided)

    def all(self) -> tuple[Floats, NDArray[np.bool_]]:
        return self.weights, self.is_decided


class Followed(NamedTuple):
    """`Weights` in the place of parameters."""

    weights: Any  # (n_bars, n) float64
    is_decided: Any  # (n_bars,) int64


class Bars(NamedTuple):
    """How many have been seen."""

    seen: int


@kernel
def start_following(p: Followed, instruments: int) -> Bars:
    return Bars(0)


@kernel
def follow_step(s: Bars, market: Market, regime: Regime, p: Followed, weights: list[float]) -> tuple[Bars, bool]:
    """Wish for what was decided elsewhere."""
    decided = row(p.weights, s.seen)
    for k in range(len(weights)):
        weights[k] = decided[k]
    return Bars(s.seen + 1), p.is_decided[s.seen] != 0


FOLLOWING = PortfolioStrategy(
    name="weights",
    Params=Followed,
    start=start_following,
    step=follow_step,
    bounds={},
    rule=lambda _: True,
    warmup=lambda _: 0,
    needs_regime=False,
    summary="Decided elsewhere",
    instruments=(1, MOST_INSTRUMENTS),
    is_one_intent=False,
)


def stepped_weights(
    strategy: PortfolioStrategy, params: Any, market: MarketColumns, regimes: Sequence[Floats]
) -> tuple[Weights, Failure | None]:
    """What a strategy decides, stepped by Python; and its Failure, when it has one: then up to the bar before that.

    `regimes` are bull, bear, chop, each of shape (n_bars,), or of shape (1,) where they never change.
    """
    bars, n = len(market), len(market.symbols)
    told, is_decided = np.zeros((bars, n)), np.zeros(bars, np.bool_)
    state, weights = strategy.start(params, n), [0.0] * n
    times, *tables = market.all()
    for i, opened_at_ms in enumerate(times.tolist()):
        k = i if len(regimes[0]) > 1 else 0
        regime = Regime(*(float(column[k]) for column in regimes))
        try:
            rows = Market(opened_at_ms, *(table[i].tolist() for table in tables))
            state, is_decided[i] = strategy.step(state, rows, regime, params, weights)
        except Exception as error:  # noqa: BLE001 - it is handed on as the cause
            opened_at = f"{from_ms(opened_at_ms):%Y-%m-%d %H:%M}"
            failure = Failure(
                f"{strategy.name} {params} raised {type(error).__name__} at bar {i} ({opened_at}): {error}"
            )
            failure.__cause__ = error
            return Weights(told[:i], is_decided[:i]), failure
        told[i] = weights
    return Weights(told, is_decided), None
