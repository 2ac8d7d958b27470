"""What a strategy is: parameters with bounds, a state, `start`, `step`, and how long it warms up. One file each.

`strategy(...)` makes one of one instrument, `portfolio_strategy(...)` one that sees many at once and weighs them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

from shared.contracts.errors import NeedsOperator
from shared.trading.kernel import fingerprint, kernel
from shared.trading.values import Bar, Regime, Target, flat, is_known

Number = int | float | bool
Rule = Callable[[Any], bool]
D = TypeVar("D", bound="Declared")
MOST_INSTRUMENTS = 100_000


class BadParams(NeedsOperator, ValueError):
    """Parameters that this strategy does not take. The text names each bound that was broken."""


@dataclass(frozen=True)
class Field:
    """One parameter, as plain data: enough for a form, a search, or a check."""

    name: str
    kind: type[int | float | bool]
    default: Number
    low: float
    high: float


@dataclass(frozen=True)
class Declared:
    """What strategies of both kinds declare: their code, and parameters that can be checked."""

    name: str
    Params: type[Any]
    start: Callable[..., Any]
    step: Callable[..., Any]
    bounds: Mapping[str, tuple[float, float]]
    rule: Rule
    warmup: Callable[[Any], int]  # (params) -> bars before it can say something
    needs_regime: bool  # flat while the regime is unknown
    summary: str

    @cached_property
    def source(self) -> str:
        """SHA-256 of the code that decides, wherever it stands (hex). A state or preset of another source is not ours."""
        return fingerprint(self.Params, self.start, self.step)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The parameters in order."""
        return tuple(_field(self, name) for name in self.Params._fields)

    @property
    def defaults(self) -> Any:
        """The parameters that the author chose."""
        return self.Params()

    def params(self, given: Mapping[str, object] | None = None) -> Any:
        """Checked parameters, those not given by default. Raises BadParams that names what was expected.

        Whole numbers become int and others float, so that interpreted and compiled code see the same kinds.
        """
        given = given or {}
        faults = [self._unknown(name) for name in given if name not in self.Params._fields]
        values: dict[str, Number] = {}
        for field in self.fields:
            value = given.get(field.name, field.default)
            fault = _fault(field, value)
            if fault:
                faults.append(fault)
            else:
                values[field.name] = field.kind(cast(Number, value))
        if faults:
            raise BadParams(f"Strategy {self.name}: " + "; ".join(faults) + ".")
        made = self.Params(**values)
        if not self.rule(made):
            shown = ", ".join(f"{name}={value}" for name, value in values.items())
            raise BadParams(f"Strategy {self.name}: its rule between parameters does not hold for {shown}.")
        return made

    def schema(self) -> dict[str, Any]:
        """What there is to set, as plain data: for a page, an API, a file."""
        return {
            "name": self.name,
            "summary": self.summary,
            "source": self.source,
            "needs_regime": self.needs_regime,
            "params": {
                f.name: {"type": f.kind.__name__, "default": f.default, "low": f.low, "high": f.high}
                for f in self.fields
            },
        }

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, [field.name for field in self.fields], n=1)
        meant = f", did you mean {near[0]!r}?" if near else ""
        return f"no parameter {name!r} among {', '.join(self.Params._fields)}{meant}"


@dataclass(frozen=True)
class Strategy(Declared):
    """A strategy of one instrument. Authors make one with `strategy(...)` at the end of their file.

    start  (params) -> state
    step   (state, bar, regime, params) -> (state, target); consumes the state
    """


@dataclass(frozen=True)
class PortfolioStrategy(Declared):
    """A strategy over many instruments. Authors make one with `portfolio_strategy(...)` at the end of their file.

    start  (params, instruments) -> state
    step   (state, market, regime, params, weights) -> (state, is_decided); consumes the state, writes `weights` in place
    """

    instruments: tuple[int, int]  # the least and the most that it can be given
    is_one_intent: bool  # all legs are ordered and filled together, or none is

    def schema(self) -> dict[str, Any]:
        least, most = self.instruments
        return {**super().schema(), "instruments": {"least": least, "most": most}}


def strategy(
    name: str,
    Params: type[Any],
    start: Callable[[Any], Any],
    step: Callable[..., Any],
    *,
    bounds: Mapping[str, tuple[float, float]],
    warmup: Callable[[Any], int],
    rule: Rule = lambda _: True,
    needs_regime: bool = False,
) -> Strategy:
    """Put a strategy together. Raises BadParams when its defaults are outside its own bounds, or a bound is missing."""
    decided = _flat_while_unknown(step) if needs_regime else step
    return _checked(
        Strategy(name, Params, start, decided, dict(bounds), rule, warmup, needs_regime, _summary(name, start, step))
    )


def portfolio_strategy(
    name: str,
    Params: type[Any],
    start: Callable[[Any, int], Any],
    step: Callable[..., Any],
    *,
    bounds: Mapping[str, tuple[float, float]],
    warmup: Callable[[Any], int],
    rule: Rule = lambda _: True,
    needs_regime: bool = False,
    instruments: tuple[int, int] = (1, MOST_INSTRUMENTS),
    is_one_intent: bool = False,
) -> PortfolioStrategy:
    """Put a strategy over many instruments together, on the same terms as `strategy`."""
    return _checked(
        PortfolioStrategy(
            name=name,
            Params=Params,
            start=start,
            step=_weightless_while_unknown(step) if needs_regime else step,
            bounds=dict(bounds),
            rule=rule,
            warmup=warmup,
            needs_regime=needs_regime,
            summary=_summary(name, start, step),
            instruments=instruments,
            is_one_intent=is_one_intent,
        )
    )


def _checked(made: D) -> D:
    names = made.Params._fields
    missing = [name for name in names if name not in made.bounds and _kind(made.Params, name) is not bool]
    extra = [name for name in made.bounds if name not in names]
    if missing or extra:
        raise BadParams(
            f"Strategy {made.name}: bounds must name the parameters {', '.join(names)}, "
            f"missing {missing or 'none'}, unknown {extra or 'none'}."
        )
    made.params()
    return made


def _summary(name: str, start: Callable[..., Any], step: Callable[..., Any]) -> str:
    return (step.__doc__ or start.__doc__ or name).strip().splitlines()[0]


def _flat_while_unknown(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that holds nothing without a model, whatever the author wrote. The others pay nothing for this."""

    @kernel
    def known_step(state: Any, bar: Bar, regime: Regime, params: Any) -> tuple[Any, Target]:
        state, target = step(state, bar, regime, params)
        return state, (target if is_known(regime) else flat())

    return known_step


def _weightless_while_unknown(step: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a strategy over many instruments: from then on it is flat until it decides with a model."""

    @kernel
    def known_step(state: Any, market: Any, regime: Regime, params: Any, weights: list[float]) -> tuple[Any, bool]:
        state, is_decided = step(state, market, regime, params, weights)
        if is_known(regime):
            return state, is_decided
        for k in range(len(weights)):
            weights[k] = 0.0
        return state, True

    return known_step


def _kind(params: type[Any], name: str) -> type[int | float | bool]:
    annotation = params.__annotations__[name]
    told = getattr(annotation, "__forward_arg__", None) or getattr(annotation, "__name__", annotation)
    kinds: dict[object, type[int | float | bool]] = {"int": int, "float": float, "bool": bool}
    if told not in kinds:
        raise BadParams(f"Parameter {name!r} must be annotated int, float or bool, was {told!r}.")
    return kinds[told]


def _field(of: Declared, name: str) -> Field:
    if name not in of.Params._field_defaults:
        raise BadParams(f"Strategy {of.name}: parameter {name!r} needs a default.")
    kind = _kind(of.Params, name)
    low, high = of.bounds.get(name, (0, 1))
    return Field(name, kind, of.Params._field_defaults[name], low, high)


def _fault(field: Field, value: object) -> str:
    """What is wrong with a value, or nothing."""
    if field.kind is bool:
        return "" if value in (True, False) else f"{field.name} must be true or false, was {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return f"{field.name} must be a number, was {value!r}"
    if field.kind is int and value != int(value):
        return f"{field.name} must be a whole number, was {value!r}"
    if not field.low <= value <= field.high:
        return f"{field.name} must be within {field.low}..{field.high}, was {value!r}"
    return ""
