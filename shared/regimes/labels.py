"""States get their names by what they emit, never by their index: a fit may return them in any order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, permutations

from shared.contracts.regime import RegimeName
from shared.regimes.features import TRENDS, VOLATILITY

NAMES: tuple[RegimeName, RegimeName, RegimeName] = ("BULL", "BEAR", "CHOP")

# A state whose trend is within a tenth of a standard error of none has no direction to be named after.
SMALLEST_DRIFT = 0.1


def drift_per_risk(mean: Sequence[float]) -> float:
    """How far a state's emissions trend, in units of their risk: the mean of its trend features."""
    return sum(mean[i] for i in TRENDS) / len(TRENDS)


def name_states(means: Sequence[Sequence[float]]) -> tuple[RegimeName, ...]:
    """A name for each state, from the emission means (n_states, n_features) in the units of `features`.

    The state with the most drift per unit of risk is BULL and the one with the least is BEAR, as long as they rise
    and fall at all; all others are CHOP. Of two with equal drift the calmer one counts as the better. Of more than
    three, those that rise at least half as much as the first are BULL too, and those that fall so are BEAR.
    """
    drifts = [drift_per_risk(mean) for mean in means]
    order = sorted(range(len(means)), key=lambda k: (drifts[k], -means[k][VOLATILITY]))
    falls, rises = drifts[order[0]], drifts[order[-1]]
    names: list[RegimeName] = ["CHOP"] * len(means)
    for k in order[:1] if len(means) <= len(NAMES) else order:
        if drifts[k] < -SMALLEST_DRIFT and drifts[k] <= falls / 2:
            names[k] = "BEAR"
    for k in order[-1:] if len(means) <= len(NAMES) else order:
        if drifts[k] > SMALLEST_DRIFT and drifts[k] >= rises / 2:
            names[k] = "BULL"
    return tuple(names)


def carried_names(
    overlap: Sequence[Sequence[float]], means: Sequence[Sequence[float]], known: Sequence[RegimeName]
) -> tuple[RegimeName, ...]:
    """A name for each state of a model that succeeds another: the one under which the other knows the same bars.

    `overlap` (n_states, 3) sums over bars that both have read how much the new state and the old BULL, BEAR or CHOP
    were believed at once; `known` are the names that the old model uses. Each of those goes to one state, so that the
    whole overlap is as large as it can be; a state that is left over takes the name that it overlaps most. A name that
    emissions contradict is not carried on: when a BULL would fall or a BEAR rise, all are named by what they emit.
    """
    names = [index for index, name in enumerate(NAMES) if name in known]
    states = range(len(means))
    most = min(len(names), len(means))
    pairs = max(
        (
            tuple(zip(chosen, named, strict=True))
            for chosen in permutations(states, most)
            for named in permutations(names, most)
        ),
        key=lambda pairs: sum(overlap[k][name] for k, name in pairs),
    )
    rest = {k: max(names, key=lambda name: overlap[k][name]) for k in states}
    carried: tuple[RegimeName, ...] = tuple(NAMES[(rest | dict(pairs))[k]] for k in states)
    return carried if is_told_by(carried, means) else name_states(means)


def is_told_by(names: Sequence[RegimeName], means: Sequence[Sequence[float]]) -> bool:
    """Whether what each state emits agrees with its name: every BULL drifts more than all others, every BEAR less."""
    drifts = {
        name: [drift_per_risk(mean) for mean, own in zip(means, names, strict=True) if own == name] for name in NAMES
    }
    falling, idle, rising = drifts["BEAR"], drifts["CHOP"], drifts["BULL"]
    ladder = [drifts for drifts in (falling, idle, rising) if drifts]
    in_order = all(max(below) < min(above) for below, above in pairwise(ladder))
    return in_order and all(drift < 0.0 for drift in falling) and all(drift > 0.0 for drift in rising)
