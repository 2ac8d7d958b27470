"""A higher bar is seen when it has closed, and not before: with gaps, and wherever the bars begin."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from shared.trading.higher_bars import Higher, higher, higher_open, higher_step
from shared.trading.values import Bar

HOUR = 3_600_000


def seen(times: int, market: list[Bar]) -> list[list[Bar]]:
    """The higher bars that each bar shows to be closed."""
    state, told = higher(times), list[list[Bar]]()
    for bar in market:
        state = higher_open(state, bar)
        late = [state.closed] if state.has_closed else []
        state = higher_step(state, bar)
        told.append(late + ([state.closed] if state.has_closed else []))
    return told


def hours(at: list[int]) -> list[Bar]:
    """Hourly bars at these hours since 1970, each of its own prices."""
    return [Bar(h * HOUR, 100.0 + i, 102.0 + i, 99.0 + i, 101.0 + i, 1.0) for i, h in enumerate(at)]


def merged(bars: list[Bar], times: int) -> Bar:
    """What a higher bar is, by definition."""
    first = bars[0].opened_at_ms // (times * HOUR) * (times * HOUR)
    return Bar(
        first,
        bars[0].open,
        max(b.high for b in bars),
        min(b.low for b in bars),
        bars[-1].close,
        sum(b.volume for b in bars),
    )


def test_four_hours_are_seen_with_the_close_of_the_fourth() -> None:
    market = hours([7, 8, 9, 10, 11, 12])
    assert seen(4, market) == [[], [], [], [], [merged(market[1:5], 4)], []]


def test_a_higher_bar_whose_end_is_missing_is_seen_with_the_next_bar_that_comes() -> None:
    market = hours([7, 8, 9, 12, 13])
    assert seen(4, market) == [[], [], [], [merged(market[1:3], 4)], []]


def test_a_bar_after_a_gap_may_end_two_higher_bars_at_once() -> None:
    market = hours([7, 8, 9, 15, 16])
    assert seen(4, market)[3] == [merged(market[1:3], 4), merged(market[3:4], 4)]


def test_what_looked_like_a_long_bar_was_a_gap() -> None:
    market = hours([4, 7, 8, 9, 10, 11])  # three hours, so it seems, until bars of one hour come
    assert seen(4, market) == [[], [], [], [], [], [merged(market[2:6], 4)]]


@given(st.integers(2, 6), st.lists(st.integers(1, 12), min_size=3, max_size=60), st.integers(0, 50))
def test_each_higher_bar_is_seen_once_whole_and_as_early_as_it_can_be_known(
    times: int, gaps: list[int], first: int
) -> None:
    at = [first, first + 1]
    for gap in gaps:
        at.append(at[-1] + gap)
    market = hours(at)
    expected: list[list[Bar]] = [[] for _ in market]
    slots: dict[int, list[int]] = {}
    for i in range(1, len(market)):  # the first bar only tells when the second one comes
        slots.setdefault(at[i] // times, []).append(i)
    for slot, members in slots.items():
        ends_with = members[-1] if at[members[-1]] % times == times - 1 else members[-1] + 1
        if ends_with < len(market):
            expected[ends_with].append(merged([market[i] for i in members], times))
        assert slot * times * HOUR == merged([market[i] for i in members], times).opened_at_ms
    assert seen(times, market) == expected


def test_before_the_first_has_closed_there_is_nothing_to_compare_with() -> None:
    state: Higher = higher(4)
    assert math.isnan(state.closed.close)
    assert not state.closed.close > 0.0
