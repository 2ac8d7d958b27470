"""A strategy's loop: compiled, or interpreted where numba cannot; and what it raised, with a traceback that helps."""

# pyright: standard
# numba's decorators are typed too narrowly for functions that are given to it at run time.

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numba.core.errors import NumbaError, NumbaIRAssumptionWarning
from numba.extending import overload

from shared.contracts.errors import TrimtabError
from shared.contracts.times import from_ms
from shared.trading import fills, indicators, ledger, loop, performance, risk, values
from shared.trading.columns import Columns, Floats
from shared.trading.compiled import cache, lending
from shared.trading.kernel import KERNELS
from shared.trading.scales import Rules
from shared.trading.strategy import Strategy
from shared.trading.values import Bar, Regime

# Execution guards its own few divisions; what authors write raises as Python does.
EXECUTION = {module.__name__ for module in (fills, ledger, loop, performance, risk)}
# Kept one by one, so that a new strategy compiles in half the time. Others are kept within their loop alone: an entry names
# the classes of its arguments, and a user's class cannot be found once its file has moved.
KEPT = EXECUTION | {indicators.__name__, values.__name__}
GENERIC = {indicators.value, indicators.is_ready}
UNKNOWN_COLUMN = np.array([np.nan])  # of a run without regimes
_loops: dict[str, Callable[..., Any]] = {}  # source -> loop
cache.install()


class Failure(TrimtabError):
    """A strategy could not go on at a bar. The cause is the author's exception, with its own traceback."""


def failure(strategy: Strategy, bars: Columns, params: Any, regimes: Sequence[Floats]) -> Failure:
    """What the strategy raised, found again interpreted: the bits are the same, bar and traceback are Python's."""
    state = strategy.start(params)
    columns = [column.tolist() for column in bars.all()]
    odds = [column.tolist() for column in regimes]
    for i, bar in enumerate(map(Bar._make, zip(*columns, strict=True))):
        k = i if len(odds[0]) > 1 else 0
        try:
            state, _ = strategy.step(state, bar, Regime(odds[0][k], odds[1][k], odds[2][k]), params)
        except Exception as error:  # noqa: BLE001 - it is handed on as the cause
            opened_at = f"{from_ms(bar.opened_at_ms):%Y-%m-%d %H:%M}"
            told = Failure(f"{strategy.name} {params} raised {type(error).__name__} at bar {i} ({opened_at}): {error}")
            told.__cause__ = error
            return told
    return Failure(f"{strategy.name} {params} failed compiled, but not interpreted: please report this.")


def interpreted_loop(strategy: Strategy) -> Callable[..., Any]:
    """The same loop as plain Python, over columns as lists: 1,000 times slower, same bits."""
    python = loop.bound(loop.run, step=strategy.step, lent=lambda state: state)

    def call(columns: Sequence[Any], params: Any, owner: Any, *rest: Any) -> Any:
        *settings, written = rest
        fills = written.tolist()
        result = python(*(column.tolist() for column in columns), params, owner, *settings, fills)
        written[:] = fills
        return result

    return call


def compiled_loop(strategy: Strategy) -> Callable[..., Any]:
    """The loop compiled for this strategy; interpreted, said once, where numba cannot compile it."""
    if strategy.source not in _loops:
        _loops[strategy.source] = _compiled(strategy) or interpreted_loop(strategy)
    return _loops[strategy.source]


def _compiled(strategy: Strategy) -> Callable[..., Any] | None:
    function = loop.bound(loop.run, step=strategy.step)
    cache.LOOPS[function] = strategy.Params.__module__
    _register()
    compiled = njit(function, nogil=True, cache=True, error_model="numpy")

    def call(columns: Sequence[Any], params: Any, owner: Any, *rest: Any) -> Any:
        return compiled(*columns, params, lending.owned(owner), *rest)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", NumbaIRAssumptionWarning)  # it announces miscompiled code
            call(*_nothing(strategy))
    except (NumbaError, NumbaIRAssumptionWarning) as error:
        warnings.warn(
            f"Strategy {strategy.name} does not compile and runs interpreted, about 1,000 times slower: {_reason(error)}",
            stacklevel=4,
        )
        return None
    return call


@functools.cache
def follow_loop() -> Callable[..., Any]:
    """The loop over given targets, compiled. It has no strategy in it, so there is one for all."""
    cache.LOOPS[loop.follow] = ""
    _register()
    return njit(loop.follow, nogil=True, cache=True, error_model="numpy")


def _register() -> None:
    """Give numba every kernel that it has not seen."""
    for function in [f for f, is_known in KERNELS.items() if not is_known]:
        KERNELS[function] = True
        model = "numpy" if function.__module__ in EXECUTION else "python"
        is_kept = function.__module__ in KEPT and function not in GENERIC
        options: Any = {**lending.INLINED, "cache": is_kept, "nogil": True, "error_model": model}
        overload(function, jit_options=options, strict=False)(_returning(function))


def _returning(function: Callable[..., Any]) -> Callable[..., Any]:
    def implementation(*_: Any, **__: Any) -> Callable[..., Any]:
        return function

    return implementation


def _nothing(strategy: Strategy) -> tuple[Any, ...]:
    """Arguments of the right types and no bars: a call with them compiles."""
    floats, integers = np.zeros(0), np.zeros(0, np.int64)
    rules = Rules(1.0, 1, 0, 0, 0.0, 0, 1, 0, 1.0, False, 1.0)
    params = strategy.params()
    columns = (integers, *[floats] * 5, *[UNKNOWN_COLUMN] * 3)
    return columns, params, strategy.start(params), rules, 1, 0, integers


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
