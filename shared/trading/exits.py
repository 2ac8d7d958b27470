"""Stops, trails and take-profits that wait at the venue: whether a bar comes to them, and at what price they end it.

Only prices are judged here; `matching` fills. A position's watch (`fills.Watch`) says what waits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shared.trading.fills import MAX_BARS, NOISE, STOP, TAKE_PROFIT, TRAIL, Plan, Sleeve, Watch, slipped_ticks
from shared.trading.kernel import kernel
from shared.trading.scales import Rules
from shared.trading.values import Bar


class Exit(NamedTuple):
    """How a position ends inside a bar. A reason of 0 means that it does not."""

    reason: int
    price: float  # at the market
    limit: int  # ticks, of a take-profit that rested; 0: at the market


STAYS = Exit(0, 0.0, 0)


@kernel
def exit_at_open(sleeve: Sleeve, bar: Bar, rules: Rules) -> Exit:
    """The exit that this open has already passed: it is filled at the open, for better or worse."""
    watch = sleeve.watch
    if not watch.is_armed or sleeve.plan.lock != 0:
        return STAYS
    side = 1.0 if sleeve.book.lots > 0 else -1.0
    level = protection(watch, side)
    if (level - bar.open) * side >= 0.0:
        return Exit(protector(watch, side), bar.open, 0)
    if watch.target.take_profit > 0.0:
        goal = resting_ticks(watch.entry + side * watch.target.take_profit, -sleeve.book.lots, bar, rules)
        at_open = slipped_ticks(bar.open, -sleeve.book.lots, 0.0, rules)
        if float(at_open - goal) * side >= 0.0:
            return Exit(TAKE_PROFIT, bar.open, at_open)
    return STAYS


@kernel
def exit_inside(sleeve: Sleeve, bar: Bar, is_inside: bool, rules: Rules) -> Exit:
    """The exit that this bar comes to. Touching is enough for a stop, a take-profit must be passed.

    A bar that comes to both is taken to have come to the stop first. In the bar in which the position was begun
    (`is_inside`) only the close can pass the take-profit: its extreme may have come before.
    """
    watch = sleeve.watch
    if not watch.is_armed or sleeve.plan.lock != 0:
        return STAYS
    side = 1.0 if sleeve.book.lots > 0 else -1.0
    worst = bar.low if side > 0.0 else bar.high
    best = bar.high if side > 0.0 else bar.low
    level = protection(watch, side)
    if (level - worst) * side >= 0.0:
        return Exit(protector(watch, side), best if (level - best) * side > 0.0 else level, 0)
    if watch.target.take_profit > 0.0:
        goal = resting_ticks(watch.entry + side * watch.target.take_profit, -sleeve.book.lots, bar, rules)
        furthest = bar.close if is_inside else best
        if (furthest * rules.ticks - float(goal)) * side > NOISE:
            return Exit(TAKE_PROFIT, bar.close, goal)
    if watch.target.trail > 0.0:
        furthest = bar.close if is_inside else best
        level = furthest - side * watch.target.trail  # the bar's own best, from which its close has come back
        if (furthest - watch.best) * side > 0.0 and (level - bar.close) * side >= 0.0:
            return Exit(TRAIL, level, 0)
    return STAYS


@kernel
def protection(watch: Watch, side: float) -> float:
    """The nearer of stop and trail; NaN when there is neither. Falling back never loosens it: `best` only improves."""
    target = watch.target
    stop = watch.entry - side * target.stop if target.stop > 0.0 else math.nan
    trail = watch.best - side * target.trail if target.trail > 0.0 else math.nan
    return stop if (stop - trail) * side >= 0.0 or not target.trail > 0.0 else trail


@kernel
def protector(watch: Watch, side: float) -> int:
    """Which of the two that is."""
    stop = watch.entry - side * watch.target.stop if watch.target.stop > 0.0 else math.nan
    return STOP if protection(watch, side) == stop else TRAIL


@kernel
def with_best(sleeve: Sleeve, bar: Bar, is_inside: bool) -> Sleeve:
    """The watch after this bar: its best price, or its close, may be the best since entry."""
    w = sleeve.watch
    if not w.is_armed:
        return sleeve
    is_long = sleeve.book.lots > 0
    reached = bar.close if is_inside else bar.high if is_long else bar.low
    best = reached if (reached > w.best) == is_long else w.best
    return Sleeve(
        sleeve.book,
        sleeve.plan,
        Watch(w.is_armed, w.target, w.entry, best, w.bars, w.distance, w.risk),
        sleeve.refused,
    )


@kernel
def aged(sleeve: Sleeve) -> Sleeve:
    """A bar older: a venue knows no exit by age, so it is judged here even when the others rest there."""
    w = sleeve.watch
    plan = sleeve.plan
    bars = w.bars + 1
    if w.target.max_bars > 0 and bars >= w.target.max_bars and plan.lock == 0:
        plan = Plan(plan.want, plan.acted, 1 if sleeve.book.lots > 0 else -1, MAX_BARS, plan.target)
    return Sleeve(
        sleeve.book, plan, Watch(w.is_armed, w.target, w.entry, w.best, bars, w.distance, w.risk), sleeve.refused
    )


@kernel
def resting_ticks(price: float, lots: int, bar: Bar, rules: Rules) -> int:
    """The ticks at which an order of `lots` (signed) rests: never worse than its price. Beyond reach is cut off."""
    price = min(max(price, 0.0), 2.0 * bar.high)
    if lots > 0:
        return math.floor(price * rules.ticks + NOISE)
    return math.ceil(price * rules.ticks - NOISE)
