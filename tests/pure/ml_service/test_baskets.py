"""The index of a basket, and how its regimes go with its members'."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ml_service.bars import is_sound
from services.ml_service.baskets import Index, IndexState, coupled, index_of, joint, shared_bits
from shared.regimes.features import Candle
from tests.candles import candles

MINUTE = 60_000


def history(seed: int, count: int = 50, first: int = 0) -> list[tuple[int, Candle]]:
    closes = 100.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0, 0.01, count)))
    return [((first + at) * MINUTE, bar) for at, bar in enumerate(candles(closes.tolist(), seed))]


def test_the_index_moves_as_its_members_do_on_average() -> None:
    up = [(0, Candle(10.0, 10.0, 10.0, 10.0, 1.0)), (MINUTE, Candle(10.0, 12.1, 10.0, 12.1, 2.0))]
    flat = [(0, Candle(7.0, 7.0, 7.0, 7.0, 1.0)), (MINUTE, Candle(7.0, 7.0, 7.0, 7.0, 3.0))]
    ((opened, bar),) = index_of({"A": up, "B": flat})
    # ln 1.21 and 0 have the mean ln 1.1; 2 at 12.1 and 3 at 7 were traded for 45.2.
    assert opened == MINUTE and bar == pytest.approx((100.0, 110.0, 100.0, 110.0, 45.2))


def test_a_slot_is_complete_when_each_member_has_a_bar_or_none() -> None:
    index = Index(IndexState(("A", "B")))
    a, b = history(1, 3), history(2, 3)
    assert [index.on_bar("A", *bar) for bar in a] == [[], [], []], "B may have a past"
    assert [len(index.on_bar("B", *bar)) for bar in b] == [0, 1, 1], "the first bars have no return"
    assert index.on_bar("A", 3 * MINUTE, a[0][1]) == []
    assert [ms for ms, _ in index.on_gap("B", 3 * MINUTE)] == [3 * MINUTE]


@given(st.permutations(["A"] * 40 + ["B"] * 40 + ["C"] * 30), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_whatever_order_the_members_come_in_the_index_is_that_of_their_history(order: list[str], seed: int) -> None:
    members = {"A": history(seed, 40), "B": history(seed + 1, 40), "C": history(seed + 2, 30, first=5)}
    index, told, coming = Index(IndexState(tuple(members))), [], {name: iter(bars) for name, bars in members.items()}
    for symbol in order:
        told += index.on_bar(symbol, *next(coming[symbol]))
    told += index.on_gap("C", 40 * MINUTE)
    assert told == list(index_of(members)) and all(is_sound(bar) for _, bar in told)


def believed(count: int, follows: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Odds of a market and of a member that is in its regime so often, and the member's truth; both see dimly."""
    chance = np.random.default_rng(seed)
    market = chance.integers(0, 3, count)
    member = np.where(chance.random(count) < follows, market, chance.integers(0, 3, count))

    def seen(truth: np.ndarray) -> np.ndarray:
        told = np.where(chance.random(count) < 0.6, truth, chance.integers(0, 3, count))
        return 0.6 * np.eye(3)[told] + 0.4 / 3

    return seen(market), seen(member), member


def test_the_market_makes_a_members_odds_better_where_they_go_together_and_no_worse_where_they_do_not() -> None:
    for follows, gain in ((0.8, 0.02), (0.0, -0.002)):
        market, member, truth = believed(20_000, follows, seed=1)
        index = Index(IndexState(("A",)))
        for m, a in zip(market[:10_000], member[:10_000], strict=True):
            index.pair("A", m.tolist(), a.tolist())
        pairs = joint(index.state.pairs["A"])
        both = [coupled(a.tolist(), m.tolist(), pairs) for m, a in zip(market[10_000:], member[10_000:], strict=True)]
        alone = -np.log(member[10_000:][np.arange(10_000), truth[10_000:]]).mean()
        together = -np.log(np.array(both)[np.arange(10_000), truth[10_000:]]).mean()
        assert alone - together > gain, (follows, alone, together)


def test_what_two_regimes_tell_of_each_other() -> None:
    same = [[1 / 3 if i == j else 0.0 for j in range(3)] for i in range(3)]
    certain = [[1e-12 if p == 0.0 else p for p in row] for row in same]
    assert shared_bits(certain) == pytest.approx(math.log2(3), abs=1e-6)
    assert shared_bits([[1 / 9] * 3] * 3) == pytest.approx(0.0, abs=1e-12)
    assert coupled((0.2, 0.5, 0.3), (0.9, 0.05, 0.05), [[1 / 9] * 3] * 3) == pytest.approx((0.2, 0.5, 0.3))
