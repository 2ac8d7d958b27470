"""Targets decided in Python: by a callback, by a function over whole columns, by a strategy that numba cannot compile.

Because deciding never sees the account, it is done first, for all bars; then the compiled loop of `execute` trades what
was decided, and earns the bits that the fused loop would have earned.

    execute(callback_targets(decide, bars), bars, terms)             # decide(bar) -> Target
    execute(vector_targets(decide, bars, params), bars, terms)       # decide(bars, params) -> exposures (n,), or Targets
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, cast

import numpy as np

from shared.contracts.errors import TrimtabError
from shared.contracts.times import from_ms
from shared.trading.columns import Columns, Floats
from shared.trading.compiled.targets import Targets
from shared.trading.strategy import Strategy
from shared.trading.values import Bar, Regime, Target

BARS_AT_ONCE = (
    2_000  # as Python's floats: they stay in the processor's cache, where all bars at once could be a gigabyte
)


class Failure(TrimtabError):
    """Somebody who decides could not go on at a bar. The cause is the author's exception, with its own traceback."""


def callback_targets(decide: Callable[[Bar], Target], bars: Columns) -> Targets:
    """What a Python function decides, called once for each closed bar, oldest first: about a million bars a second.

    The function may keep what it likes between two calls. Raises Failure, with its bar, when it raises.
    """
    targets, failure = _collected(_name(decide), decide, bars)
    if failure is not None:
        raise failure
    return targets


def vector_targets(decide: Callable[..., Any], bars: Columns, *params: Any) -> Targets:
    """What a function over whole columns decides: `decide(bars, *params)` gives exposures of shape (n,), or Targets.

    Such a function can see the future without meaning to (a centred window, a shift the wrong way, a mean of all bars):
    let `leakcheck` look at it. Raises Failure when it raises, or names the first bar without an exposure in -1..1.
    """
    who = _name(decide)
    try:
        told = decide(bars, *params)
        targets = told if isinstance(told, Targets) else Targets.of(told)
    except Exception as error:
        span = f"{from_ms(int(bars.opened_at_ms[0])):%Y-%m-%d %H:%M} to {from_ms(int(bars.opened_at_ms[-1])):%Y-%m-%d %H:%M}"
        given = ", ".join([f"{len(bars):,} bars from {span}", *map(repr, params)])
        raise Failure(f"{who} raised {type(error).__name__}, given {given}: {error}") from error
    if targets.exposure.shape != (len(bars),):
        raise Failure(f"{who} must give one exposure for each of the {len(bars)} bars, gave {targets.exposure.shape}.")
    is_exposure = np.abs(targets.exposure) <= 1.0
    if not is_exposure.all():
        i = int(np.argmin(is_exposure))
        raise Failure(
            f"{who} must give an exposure in -1..1 for every bar (0.0 where nothing is to be held), gave "
            f"{targets.exposure[i]} at {place(bars, i)}."
        )
    return targets


def stepped_targets(
    strategy: Strategy, params: Any, bars: Columns, regimes: Sequence[Floats]
) -> tuple[Targets, Failure | None]:
    """What a strategy decides, stepped by Python; and its Failure, when it has one: then up to the bar before that.

    `regimes` are bull, bear, chop, each of shape (n,), or of shape (1,) where they never change.
    """
    state, step = strategy.start(params), strategy.step
    readings = map(Regime, *(column.tolist() for column in regimes))
    every = iter(readings) if len(regimes[0]) > 1 else repeat(next(readings))

    def decide(bar: Bar) -> Target:
        nonlocal state
        state, target = step(state, bar, next(every), params)
        return target

    collected = _collected(f"{strategy.name} {params}", decide, bars)
    state = None  # a failure's frames keep `decide`, which would keep the state
    return collected


def failure(strategy: Strategy, bars: Columns, params: Any, regimes: Sequence[Floats]) -> Failure:
    """What the strategy raised, found again interpreted: the bits are the same, bar and traceback are Python's."""
    _, told = stepped_targets(strategy, params, bars, regimes)
    if told is not None and told.__cause__ is not None:
        _let_go(told.__cause__)
    return told or Failure(f"{strategy.name} {params} failed compiled, but not interpreted: please report this.")


def place(bars: Columns, i: int) -> str:
    """Which bar it was, and what it held."""
    opened_at, *values = (column[i].item() for column in bars.all())
    shown = " ".join(f"{name}={value!r}" for name, value in zip(Bar._fields[1:], values, strict=True))
    return f"bar {i} ({from_ms(opened_at):%Y-%m-%d %H:%M}, {shown})"


def _collected(who: str, decide: Callable[[Bar], Target], bars: Columns) -> tuple[Targets, Failure | None]:
    """A target for each bar before the one at which `decide` fails. Only changes are noted: most bars change nothing."""
    since, told = list[int](), list[tuple[float, ...]]()  # times (ms) and targets
    last: Target | None = None
    bar: Bar | None = None
    failure: Failure | None = None
    stepped = len(bars)
    try:
        for portion in _python_bars(bars):
            for bar in portion:
                target = decide(bar)
                if target is not last and target != last:
                    told.append(_numbers(target))
                    since.append(bar.opened_at_ms)
                    last = target
    except Exception as error:  # noqa: BLE001 - the author's, told as the cause of a Failure
        stepped = int(np.searchsorted(bars.opened_at_ms, bar.opened_at_ms)) if bar is not None else 0
        failure = Failure(f"{who} raised {type(error).__name__} at {place(bars, stepped)}: {error}")
        failure.__cause__ = error
    changes = np.array(told, np.float64).reshape(len(told), len(Target._fields))
    lasted = np.diff(np.searchsorted(bars.opened_at_ms, since), append=stepped)
    kinds = (np.int64 if name == "max_bars" else np.float64 for name in Target._fields)
    columns: list[Any] = [np.repeat(c.astype(kind), lasted) for c, kind in zip(changes.T, kinds, strict=True)]
    return Targets(*columns), failure


def _let_go(error: BaseException) -> None:
    """Empty the frames that an error holds: without this it keeps every bar and the whole state alive."""
    traceback.clear_frames(error.__traceback__)
    frame = error.__traceback__ and error.__traceback__.tb_frame.f_back
    while frame is not None and frame.f_code is stepped_targets.__code__:
        frame.clear()
        frame = frame.f_back


def _numbers(target: Any) -> tuple[float, ...]:
    if not isinstance(target, Target):
        raise TypeError(f"what decides must say a Target, said {target!r}")
    return tuple(map(float, target))


def _python_bars(bars: Columns) -> Iterator[Iterator[Bar]]:
    """The bars in portions, as Python has them: plain floats, which raise where numpy's would not."""
    made = cast("Callable[[type[Bar], Any], Bar]", cast(Any, tuple).__new__)  # Bar._make without its checks
    for first in range(0, len(bars), BARS_AT_ONCE):
        columns = (column[first : first + BARS_AT_ONCE].tolist() for column in bars.all())
        yield map(made, repeat(Bar), zip(*columns, strict=True))


def _name(decide: Callable[..., Any]) -> str:
    return getattr(decide, "__qualname__", repr(decide))
