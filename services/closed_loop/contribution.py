"""What the bandit and the regime were worth: the same epochs, chosen in other ways. Pure.

Each preset is run alone over the whole span (the backtest, same costs), so what any choice would have earned in any
epoch is known, the chosen one and the others alike. A choice is charged with what its preset earned in that epoch;
what it would cost to change the preset in mid-position is left out, for every way alike.

    the loop         the presets that the loop's bandit chose
    equal choice     the mean over the presets that were admitted then
    best single      one preset from its admission on (the default before), the best one *in hindsight*
    default          the author's own parameters
    bandit, regime   LinTS again, learning from its own choices alone, with the regime as context
    bandit, blind    the same without: its context is always the same
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from services.param_controller.bandit import LinTS

Floats = npt.NDArray[np.float64]

SEEDS = 20  # replays of a bandit; their mean is told, for one draw is luck
BLIND = (1.0,)


class Epoch(msgspec.Struct, frozen=True):
    """One choice of the loop: what could be chosen, on what, and what was."""

    presets: tuple[str, ...]  # admitted then
    chosen: str
    context: tuple[float, ...]  # of the reading on which it was chosen


class Difference(msgspec.Struct, frozen=True):
    """Mean gain of one way over another in an epoch, as a fraction, and its standard error over epochs."""

    mean: float
    standard_error: float


class Contribution(msgspec.Struct, frozen=True):
    """One sleeve's epochs, chosen in several ways."""

    sleeve: str
    epochs: int
    presets: int
    net_return: dict[str, float]  # way -> compounded over all epochs
    best_single: str  # the preset's id
    bandit: Difference  # the loop over equal choice
    over_best: Difference  # the loop over the best single preset in hindsight
    regime: Difference  # a bandit that sees the regime over a blind one, mean of `SEEDS` replays each


def contribution(
    sleeve: str,
    epochs: Sequence[Epoch],
    gains: Mapping[str, Floats],
    default: str,
    risks: Floats,
    *,
    l2: float,
    exploration: float,
    seed: int,
) -> Contribution:
    """Compare the ways. `gains` is preset -> log return in each epoch (n,), net of costs; `risks` (n,) is the range of
    a bar as a fraction of its price where each epoch begins, which turns a gain into units of risk for the bandits.

    Raises ValueError when there is no epoch.
    """
    if not epochs:
        raise ValueError(f"{sleeve}: a comparison needs at least one epoch, there was none.")
    seen = sorted({preset for epoch in epochs for preset in epoch.presets})
    loop = np.array([gains[epoch.chosen][i] for i, epoch in enumerate(epochs)])
    equal = np.array(
        [math.fsum(gains[name][i] for name in epoch.presets) / len(epoch.presets) for i, epoch in enumerate(epochs)]
    )
    singles = {name: _held_from_admission(name, epochs, gains, default) for name in seen}
    best = max(seen, key=lambda name: float(singles[name].sum()))  # ties: the first by name
    sighted = _replays(epochs, gains, risks, True, l2, exploration, seed)
    blind = _replays(epochs, gains, risks, False, l2, exploration, seed)
    ways = {
        "the loop": loop,
        "equal choice": equal,
        "best single": singles[best],
        "default": gains[default],
        "bandit, regime": sighted,
        "bandit, blind": blind,
    }
    return Contribution(
        sleeve=sleeve,
        epochs=len(epochs),
        presets=len(seen),
        net_return={way: math.expm1(float(gain.sum())) for way, gain in ways.items()},
        best_single=best,
        bandit=difference(loop, equal),
        over_best=difference(loop, singles[best]),
        regime=difference(sighted, blind),
    )


def difference(one: Floats, other: Floats) -> Difference:
    """Paired over epochs; the error is NaN with fewer than two."""
    apart = one - other
    error = float(np.std(apart, ddof=1)) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
    return Difference(float(np.mean(apart)), error)


def _held_from_admission(name: str, epochs: Sequence[Epoch], gains: Mapping[str, Floats], default: str) -> Floats:
    admitted = next(i for i, epoch in enumerate(epochs) if name in epoch.presets)
    return np.concatenate([gains[default][:admitted], gains[name][admitted:]])


def _replays(
    epochs: Sequence[Epoch],
    gains: Mapping[str, Floats],
    risks: Floats,
    sees_regime: bool,
    l2: float,
    exploration: float,
    seed: int,
) -> Floats:
    """What bandits of `SEEDS` seeds earned in each epoch (n,), on average. Each learns only from what it chose."""
    total = np.zeros(len(epochs))
    for draw in range(SEEDS):
        rng = np.random.default_rng([seed, draw])
        bandits: dict[int, LinTS] = {}  # a context of another length begins anew
        for i, epoch in enumerate(epochs):
            x = epoch.context if sees_regime else BLIND
            bandit = bandits.setdefault(len(x), LinTS(len(x), l2=l2, exploration=exploration))
            chosen = bandit.choose(epoch.presets, x, rng)
            total[i] += gains[chosen][i]
            bandit.learn(chosen, x, float(gains[chosen][i] / risks[i]))
    return total / SEEDS
