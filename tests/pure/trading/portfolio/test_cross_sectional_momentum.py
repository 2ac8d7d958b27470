"""Cross-sectional momentum: the trades of a small market worked by hand, and the rank by which it chooses."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.trading.checker import faults
from shared.trading.compiled.portfolios import PortfolioTerms, scan_portfolio
from shared.trading.ranking import kth_largest, weigh_largest
from shared.trading.strategies.cross_sectional_momentum import STRATEGY
from tests.pure.trading.portfolio.markets import FREE, Told, equity, instrument, market_of, trades


def flat_opens(*closes: float | None) -> list[Told | None]:
    """Bars that open where they close."""
    return [None if close is None else Told(close, close) for close in closes]


def test_the_strongest_are_held_in_equal_parts_and_replaced_when_others_are() -> None:
    # rises over 2 bars, every 2 bars, the best two of three; ticks of 1, so a quantity is sized for 1 above the close
    market = market_of(
        flat_opens(10, 11, 12, 12, 12, 12),
        flat_opens(20, 20, 19, 19, 19, 19),
        flat_opens(40, 40, 39, 40, 60, 60),
    )
    instruments = tuple(instrument(symbol, tick="1") for symbol in market.symbols)
    terms = PortfolioTerms(instruments, "1d", FREE, Decimal(1000))
    params = {"bars": 2, "top": 2, "every": 2}
    run = scan_portfolio(STRATEGY, market, params, terms, with_curve=True, with_fills=True)
    # bar 2: A 12/10 = 1.2, B 19/20 = 0.95, C 39/40 = 0.975: A and C. 500 / 13 = 38.46, 500 / 40 = 12.5
    # bar 4: A 12/12 = 1, B 19/19 = 1, C 60/39: C, and of the equals A, which stands first.
    #   equity 1000 + 12.5 x (60 - 40) = 1250: A 625 / 13 = 48.07, C 625 / 61 = 10.24
    assert trades(run) == [
        (3, "A-USDT", "38.46", "12"),
        (3, "C-USDT", "12.5", "40"),
        (5, "C-USDT", "-2.26", "60"),
        (5, "A-USDT", "9.61", "12"),
    ]
    assert equity(run) == [1000, 1000, 1000, 1000, 1250, 1250]


def test_what_has_no_price_at_either_end_has_no_rank() -> None:
    market = market_of(
        flat_opens(None, 1, 50, 50, 50, 50, 50),  # listed late: nothing to compare with at bar 2, and 50/50 at bar 4
        flat_opens(10, 10, 11, 11, 11, 11, 11),
        flat_opens(10, 10, 20, 20, None, 20, 20),  # absent at bar 4
    )
    terms = PortfolioTerms(tuple(map(instrument, market.symbols)), "1d", FREE, Decimal(1000))
    run = scan_portfolio(STRATEGY, market, {"bars": 2, "top": 1, "every": 2}, terms, with_fills=True)
    # bar 2: C rose most, 1000 / 20.01 = 49.97 of it. Bar 4: A and B stand still, A stands first. C has no bar, so it is
    # not sold, and A is bought for the 0.60 that are left, 0.01 of it at 50
    assert trades(run) == [(3, "C-USDT", "49.97", "20"), (5, "A-USDT", "0.01", "50")]


def test_a_rank_that_is_not_filled_leaves_its_part_in_cash() -> None:
    market = market_of(flat_opens(10, 11, 11, 11), flat_opens(None, 20, 21, 21))
    terms = PortfolioTerms(tuple(map(instrument, market.symbols)), "1d", FREE, Decimal(1000))
    run = scan_portfolio(STRATEGY, market, {"bars": 1, "top": 4, "every": 9}, terms, with_fills=True)
    assert trades(run) == [(2, "A-USDT", "22.7", "11")]  # a quarter: 250 / 11.01 = 22.70


def test_a_look_back_that_is_no_multiple_of_the_pause_compares_with_the_right_bar() -> None:
    # bars = 3, every = 2: decisions at 3, 5, 7 look back at 0, 2, 4
    closes = [10.0, 1000.0, 10.0, 20.0, 10.0, 5.0, 1000.0, 40.0, 40.0, 40.0]
    market = market_of(flat_opens(*closes), flat_opens(*[15.0] * 10))
    terms = PortfolioTerms(tuple(map(instrument, market.symbols)), "1d", FREE, Decimal(1000))
    run = scan_portfolio(STRATEGY, market, {"bars": 3, "top": 1, "every": 2}, terms, with_fills=True)
    # 20/10 against 1: A; 5/10: B; 40/10: A
    bought = [(bar, name) for bar, name, lots, _ in trades(run) if lots[0] != "-"]
    assert bought == [(4, "A-USDT"), (6, "B-USDT"), (8, "A-USDT")]


@given(
    st.lists(st.one_of(st.integers(-4, 4).map(float), st.just(math.nan)), min_size=1, max_size=40), st.integers(1, 50)
)
def test_the_largest_are_chosen_and_of_equals_those_that_stand_first(scores: list[float], top: int) -> None:
    weights = [7.0] * len(scores)
    weigh_largest(scores, top, 0.5, weights, [0.0] * len(scores))
    ranked = sorted(
        (k for k, score in enumerate(scores) if not math.isnan(score)), key=lambda k: -scores[k]
    )  # keeps positions
    assert weights == [0.5 if k in ranked[:top] else 0.0 for k in range(len(scores))]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=60), st.data())
def test_the_kth_largest_is_what_sorting_finds(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    assert kth_largest(values.copy(), len(values), k) == sorted(values, reverse=True)[k - 1]


@pytest.mark.parametrize("wrong", [{"top": 0}, {"every": 0}, {"bars": 0}])
def test_a_rotation_holds_something_now_and_then(wrong: dict[str, int]) -> None:
    assert faults(STRATEGY) == []
    with pytest.raises(ValueError, match=r"must be within 1\.\.1000, was 0"):
        STRATEGY.params(wrong)
