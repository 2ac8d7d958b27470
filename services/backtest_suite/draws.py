"""Parameter sets drawn at random from what a strategy's schema allows. Pure, seeded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shared.trading.strategy import Declared, Field

DRAWS_A_SET = 50  # tries at a set that keeps the strategy's rule, before fewer sets are taken
DIGITS = 3  # of a drawn number: 2.37 says as much as 2.3684210526


def draw(strategy: Declared, sets: int, rng: np.random.Generator, *, most_warmup: int) -> list[Any]:
    """The defaults and different sets beside them, within the bounds and the strategy's rule, as many as are found."""
    drawn: dict[Any, None] = {}
    defaults = strategy.params()
    if strategy.warmup(defaults) <= most_warmup:
        drawn[defaults] = None
    for _ in range(sets * DRAWS_A_SET):
        if len(drawn) >= sets:
            break
        made = strategy.Params(**{field.name: _value(field, rng) for field in strategy.fields})
        if strategy.rule(made) and strategy.warmup(made) <= most_warmup:
            drawn[made] = None
    return list(drawn)[:sets]


def _value(field: Field, rng: np.random.Generator) -> int | float | bool:
    """One value within the bounds; evenly on a logarithmic scale where they are above zero, as lengths are felt."""
    if field.kind is bool:
        return bool(rng.random() < 0.5)
    if field.low > 0:
        value = math.exp(rng.uniform(math.log(field.low), math.log(field.high)))
    else:
        value = rng.uniform(field.low, field.high)
    if field.kind is int:
        return min(max(round(value), math.ceil(field.low)), math.floor(field.high))
    return min(max(float(f"{value:.{DIGITS}g}"), field.low), field.high)
