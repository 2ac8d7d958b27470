"""A strategy's loop: compiled, or decided by Python first where numba cannot."""

# pyright: standard
# numba's decorators are typed too narrowly for functions that are given to it at run time.

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numba.core.errors import NumbaError, NumbaIRAssumptionWarning
from numba.extending import overload

from shared.trading import (
    arithmetic,
    exits,
    fills,
    frictions,
    indicators,
    ledger,
    loop,
    matching,
    performance,
    portfolio,
    portfolio_loop,
    risk,
    values,
)
from shared.trading.columns import Columns, Integers
from shared.trading.compiled import cache, lending, packing
from shared.trading.compiled.callbacks import stepped_targets
from shared.trading.compiled.linking import KernelCompiler
from shared.trading.kernel import KERNELS, kernel
from shared.trading.scales import Rules
from shared.trading.strategy import Declared, Strategy

# Execution guards its own few divisions; what authors write raises as Python does.
EXECUTION = {
    module.__name__
    for module in (exits, fills, frictions, ledger, loop, matching, performance, portfolio, portfolio_loop, risk)
}
# Kept one by one, so that a new strategy compiles in half the time. Others are kept within their loop alone: an entry names
# the classes of its arguments, and a user's class cannot be found once its file has moved.
KEPT = EXECUTION | {arithmetic.__name__, indicators.__name__, values.__name__}
# Reached at orders only; inlined it costs a tenth of the time to compile. Not so `opened_bar`: as a call it would have the
# forty numbers of the account copied on each bar, which is then half as slow again.
RARE = {fills.planned}
DIVIDES_SAFELY = {indicators.sma_step}  # by NaN or the length of a ring that it has read
GENERIC = {indicators.value, indicators.is_ready}
F = TypeVar("F", bound=Callable[..., Any])
UNKNOWN_COLUMN = np.array([np.nan])  # of a run without regimes
cache.install(KEPT)


@dataclass(frozen=True)
class Events:
    """What happens on a bar: the functions that `loop.run` calls by these names, and rules of the kind that they take."""

    opening: Callable[..., Any]
    opened_bar: Callable[..., Any]
    closed_bar: Callable[..., Any]
    like: Any = field(compare=False)

    @property
    def named(self) -> dict[str, Callable[..., Any]]:
        return {"opened_bar": self.opened_bar, "closed_bar": self.closed_bar}


_RULES = Rules(1.0, 1, 0, 0, 0.0, 0, 1, 0, 1.0, False, False, 1.0)
_SLIPPAGE = frictions.Slippage(False, 0.0, 0.0, False, False, 1.0, 1.0, 0.0, 0.0, 0, 1, 1.0)
_FRICTIONS = frictions.Frictions(_RULES, 0, False, -1, [], [], 0.0, 0.0, [], [], 1, _SLIPPAGE)
PLAIN = Events(loop.opening, loop.opened_bar, loop.closed_bar, _RULES)
IN_DETAIL = Events(matching.opening, matching.opened_bar, matching.closed_bar, _FRICTIONS)
_loops: dict[tuple[str, Events], Loop] = {}  # of a source and a kind of events


@dataclass(frozen=True)
class Call:
    """What a run needs beside a strategy and its parameters."""

    events: Events
    bars: loop.Series
    beside: Any  # one of each bar as well: `loop.Regimes`, or columns of targets
    rules: Any
    cash: int
    notes: Integers  # room for notes

    def first(self, count: int) -> Call:
        """The same over the first bars."""

        def cut(columns: Any) -> Any:
            return getattr(columns, "_make", tuple)(column[:count] for column in columns)

        return replace(self, bars=cut(self.bars), beside=cut(self.beside))


Loop = Callable[[Call, Sequence[Any], Sequence[int]], list[Any]]  # (call, params, trade_from of each) -> results


def _whole(result: tuple[Any, Any, int, bool]) -> tuple[Any, Any, int] | None:
    *told, raised = result
    return None if raised else (told[0], told[1], told[2])


def decided_loop(strategy: Strategy, events: Events = PLAIN) -> Loop:
    """What numba cannot compile: decided by Python, for all bars, then followed by the compiled loop."""

    def call(call: Call, table: Sequence[Any], trade_from: Sequence[int]) -> list[Any]:
        results: list[Any] = []
        for params, first in zip(table, trade_from, strict=True):
            columns: Any = call.bars
            targets, failed = stepped_targets(strategy, params, Columns(*columns), call.beside)
            known = call.first(len(targets))
            result = follow_loop(events)(replace(known, beside=targets.all()), first)
            # A sleeve that refused had stopped the loop before its strategy failed.
            results.append(None if failed is not None and result[0].refused == 0 else result)
        return results

    return call


def compiled_loop(strategy: Strategy, events: Events = PLAIN) -> Loop:
    """The loop compiled for this strategy; decided first, said once, where numba cannot compile it.

    A result is what `loop.run` returns, or None where the strategy raised.
    """
    key = strategy.source, events
    if key not in _loops:
        _loops[key] = _compiled(strategy, events) or decided_loop(strategy, events)
    return _loops[key]


def _compiled(strategy: Strategy, events: Events) -> Loop | None:
    run = kernel(loop.bound(loop.run, step=strategy.step, **events.named))
    attempt = kernel(loop.bound(loop.attempt, run=run))
    function = loop.bound(loop.rows, attempt=attempt, start=strategy.start, opening=events.opening)
    cache.LOOPS[function] = cache.LOOPS[attempt] = cache.LOOPS[run] = strategy.Params.__module__
    register()
    compiled = njit(function, nogil=True, cache=True, error_model="numpy")

    def call(call: Call, table: Sequence[Any], trade_from: Sequence[int]) -> list[Any]:
        purse = events.opening(call.cash, call.rules)
        like = (purse.sleeve, purse.stats, purse.written, False)
        told = np.zeros((len(table), packing.width(like)), np.int64)
        rows, first, rules = packing.packed(table), np.array(trade_from, np.int64), lending.owned(call.rules)
        compiled(call.bars, call.beside, rows, table[0], call.cash, rules, first, call.notes, told)
        return [_whole(result) for result in packing.unpacked(told, like)]

    return compiled_or_none(strategy, call, *_nothing(strategy, events))


def compiled_or_none(strategy: Declared, call: F, *nothing: Any) -> F | None:
    """This call, tried on nothing, which compiles it; None, said once, where numba cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", NumbaIRAssumptionWarning)  # it announces miscompiled code
            call(*nothing)
    except (NumbaError, NumbaIRAssumptionWarning) as error:
        warnings.warn(
            f"Strategy {strategy.name} does not compile and runs interpreted, about 200 times slower: {_reason(error)}",
            stacklevel=5,
        )
        return None
    return call


@functools.cache
def follow_loop(events: Events = PLAIN) -> Callable[..., Any]:
    """The loop over given targets, compiled. It has no strategy in it, so there is one for all."""
    function = loop.bound(loop.follow, **events.named)
    cache.LOOPS[function] = ""
    register()
    compiled = njit(function, nogil=True, cache=True, error_model="numpy")

    def call(call: Call, trade_from: int) -> Any:
        purse = lending.owned(events.opening(call.cash, call.rules))
        result = compiled(call.bars, call.beside, purse, lending.owned(call.rules), trade_from, call.notes)
        return tuple(map(as_python, result))

    return call


def as_python(value: Any) -> Any:
    """Numbers as Python has them, so that a compiled result equals an interpreted one in kind as well."""
    if hasattr(value, "_fields"):
        return type(value)(*map(as_python, value))
    return cast(Any, value).item() if isinstance(value, np.generic) else value


def register() -> None:
    """Give numba every kernel that it has not seen."""
    for function in [f for f, is_known in KERNELS.items() if not is_known]:
        KERNELS[function] = True
        model = "numpy" if function.__module__ in EXECUTION or function in DIVIDES_SAFELY else "python"
        is_kept = function.__module__ in KEPT and function not in GENERIC and function not in cache.LOOPS
        options: Any = {
            # Never inline="always": it miscompiles conditional expressions (numba issue 9489).
            "forceinline": function not in RARE,
            "no_cfunc_wrapper": True,  # C calls no kernel, and a wrapper is a twelfth of the time to compile
            "nogil": True,
            "error_model": model,
            "cache": is_kept,
            "pipeline_class": KernelCompiler,
        }
        overload(function, jit_options=options, strict=False)(_returning(function))


def _returning(function: Callable[..., Any]) -> Callable[..., Any]:
    def implementation(*_: Any, **__: Any) -> Callable[..., Any]:
        return function

    return implementation


def _nothing(strategy: Strategy, events: Events) -> tuple[Call, list[Any], list[int]]:
    """Arguments of the right types and no bars: a call with them compiles."""
    floats, integers = np.zeros(0), np.zeros(0, np.int64)
    bars, regimes = loop.Series(integers, *[floats] * 5), loop.Regimes(*[UNKNOWN_COLUMN] * 3)
    return Call(events, bars, regimes, events.like, 1, integers), [strategy.params()], [0]


def _reason(error: BaseException) -> str:
    """The line of numba's report that says what it met, and the last place in a file that it names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = (
        "Unknown attribute",
        "Untyped global name",
        "Cannot unify",
        "No implementation",
        "Unsupported",
        "not supported",
    )
    said = next((line for line in reversed(lines) if any(mark in line for mark in telling)), lines[0] if lines else "")
    place = next((line for line in reversed(lines) if line.startswith('File "')), "")
    return f"{said} {place}".strip()
