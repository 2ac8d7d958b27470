"""What a grid tries: `fast=5:50:5` and `slow=50,100,200` to a table of parameter sets that the strategy takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from services.backtest_suite.manifests import Params
from shared.contracts.errors import NeedsOperator
from shared.trading.strategy import BadParams, Declared

Number = int | float | bool
Axes = Mapping[str, Sequence[Number]]
MOST_SETS = 5_000_000  # beyond it somebody mistyped a step
WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Table:
    """The parameter sets of a grid, in order, and how many combinations the strategy's rule left out."""

    sets: list[Params]
    rule_broken: int


def axes_of(texts: Iterable[str]) -> dict[str, tuple[Number, ...]]:
    """`["fast=5:50:5", "slow=50,100"]` -> values by name. `start:stop:step` includes the stop when a step meets it."""
    axes: dict[str, tuple[Number, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not name or not values.strip():
            raise NeedsOperator(f"A grid must look like fast=5:50:5 or fast=5,10,20, was {text!r}.")
        if name in axes:
            raise NeedsOperator(f"Each parameter is named once in a grid, {name} was named again in {text!r}.")
        axes[name] = _range(text, values) if ":" in values else tuple(number(v, text) for v in values.split(","))
    return axes


def params_of(text: str) -> Params:
    """`fast=20,slow=100` -> values by name."""
    given: Params = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or name.strip() in given:
            raise NeedsOperator(f"Parameters must look like fast=20,slow=100, each once, was {text!r}.")
        given[name.strip()] = number(value, text)
    return given


def number(text: str, within: str) -> Number:
    """One value: a whole number, another number, true or false."""
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    value = _decimal(text, within)
    return int(value) if value == value.to_integral_value() else float(value)


def table_of(strategy: Declared, axes: Axes) -> Table:
    """Every combination, the last axis running fastest; parameters without an axis have their defaults.

    Raises BadParams for a name that the strategy does not have, a value outside its bounds, or a value given twice.
    """
    size = math.prod(map(len, axes.values()))
    if not axes or size > MOST_SETS:
        raise NeedsOperator(f"A grid must have 1 to {MOST_SETS:,} combinations, had {size if axes else 0:,}.")
    _check(strategy, axes)
    sets: dict[Any, None] = {}
    for values in itertools.product(*axes.values()):
        made = strategy.Params(**_typed(strategy, dict(zip(axes, values, strict=True))))
        if strategy.rule(made):
            sets[made] = None
    if not sets:
        raise BadParams(
            f"Strategy {strategy.name}: its rule between parameters holds for none of {size:,} combinations."
        )
    return Table([made._asdict() for made in sets], size - len(sets))


def _check(strategy: Declared, axes: Axes) -> None:
    """Each name and each value on its own: then only the rule is left to ask."""
    free = replace(strategy, rule=lambda _: True)
    for name, values in axes.items():
        if len(set(values)) != len(values):
            raise BadParams(f"Strategy {strategy.name}: the values of {name} must differ, were {list(values)}.")
        for value in values:
            free.params({name: value})


def _typed(strategy: Declared, given: Params) -> Params:
    kinds = {field.name: field.kind for field in strategy.fields}
    return {name: kinds[name](value) for name, value in given.items()}


def _range(text: str, values: str) -> tuple[Number, ...]:
    parts = [_decimal(part, text) for part in values.split(":")]
    if len(parts) == 2:
        parts.append(Decimal(1))
    if len(parts) != 3 or parts[2] <= 0 or parts[1] < parts[0]:
        raise NeedsOperator(f"A range must be start:stop:step with start <= stop and step > 0, was {text!r}.")
    start, stop, step = parts
    count = int((stop - start) / step) + 1  # in decimals: 0.1:0.3:0.1 has three values, in floats it has two
    if count > MOST_SETS:
        raise NeedsOperator(f"A grid must have 1 to {MOST_SETS:,} combinations, {text!r} alone has {count:,}.")
    return tuple(number(str(start + i * step), text) for i in range(count))


def _decimal(text: str, within: str) -> Decimal:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise NeedsOperator(f"Expected a number, true or false in {within!r}, was {text!r}.")
    return value
