"""Strict order, whatever comes when: before its turn a candle waits, after its turn it is a double."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingester.candles import Candle, closed_rows, from_frame, from_row
from services.ingester.sequence import Hole, Sequence

MINUTE = 60_000


def candle(number: int) -> Candle:
    return Candle(number * MINUTE, 100.0, 101.0, 99.0, 100.5, 1.0)


def numbers(candles: list[Candle]) -> list[int]:
    return [each.opened_at // MINUTE for each in candles]


def test_a_frame_that_overtakes_a_fill_waits_its_turn() -> None:
    sequence = Sequence(MINUTE, next_at=5 * MINUTE)
    assert sequence.offer([candle(7)]) == [] and sequence.is_waiting
    assert sequence.holes([], None) == [Hole(5 * MINUTE, 6 * MINUTE)]
    assert numbers(sequence.offer([candle(5), candle(6), candle(7)])) == [5, 6, 7]
    assert not sequence.is_waiting


def test_nothing_leaves_before_the_beginning_is_known() -> None:
    sequence = Sequence(MINUTE)
    assert sequence.offer([candle(9)]) == []
    sequence.begin(8 * MINUTE)
    assert numbers(sequence.offer([candle(8)])) == [8, 9]


@given(
    offers=st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=40),
    missing=st.sets(st.integers(0, 30), max_size=6),
)
def test_each_candle_leaves_once_and_in_order_whatever_comes_when(offers: list[list[int]], missing: set[int]) -> None:
    sequence = Sequence(MINUTE, next_at=0)
    left: list[int] = []
    for offer in offers:
        left += numbers(sequence.offer([candle(number) for number in offer if number not in missing]))
        assert left == list(range(len(left)))  # strictly in order, none twice, none before its turn
    left += numbers(sequence.offer([candle(number) for number in range(31) if number not in missing]))
    for hole in sequence.holes([], None):
        while (passed := sequence.pass_over(hole)) is not None:
            left += [-1] * ((passed.last - passed.first) // MINUTE + 1)  # said to be absent
            left += numbers(sequence.offer([]))
    highest = max(set(range(31)) - missing)
    assert left == [-1 if number in missing else number for number in range(highest + 1)]


def test_a_bar_that_comes_while_a_hole_is_given_up_is_not_given_up() -> None:
    sequence = Sequence(MINUTE, next_at=5 * MINUTE)
    sequence.offer([candle(8)])
    [hole] = sequence.holes([], None)
    sequence.offer([candle(6)])  # after all
    assert sequence.pass_over(hole) == Hole(5 * MINUTE, 5 * MINUTE)
    assert numbers(sequence.offer([])) == [6]
    assert sequence.pass_over(hole) == Hole(7 * MINUTE, 7 * MINUTE)
    assert numbers(sequence.offer([])) == [8]
    assert sequence.pass_over(hole) is None


def test_the_last_row_of_an_answer_is_not_closed() -> None:
    rows = [[at * MINUTE, 1, 2, 0.5, 1.5, 3] for at in range(3)]
    assert [row[0] for row in closed_rows(rows)] == [0, MINUTE]
    assert closed_rows(rows[:1]) == [] and closed_rows([]) == []


@pytest.mark.parametrize(
    "row",
    [
        [0, 1.0, 0.5, 0.4, 0.6, 1.0],  # high below open
        [0, 1.0, 2.0, 1.5, 1.5, 1.0],  # low above open
        [0, float("nan"), 2.0, 0.5, 1.5, 1.0],
        [0, 1.0, float("inf"), 0.5, 1.5, 1.0],
        [0, 1.0, 2.0, 0.0, 1.5, 1.0],
        [0, 1.0, 2.0, 0.5, 1.5, -1.0],
        [0, None, 2.0, 0.5, 1.5, 1.0],
        [0, 1.0, 2.0],
        ["", 1.0, 2.0, 0.5, 1.5, 1.0],
    ],
)
def test_a_row_that_no_candle_can_be_is_not_believed(row: list[object]) -> None:
    assert from_row(row) is None


def test_a_frame_and_a_row_of_one_bar_are_the_same_candle() -> None:
    frame = {"t": MINUTE, "o": "100.10000000", "h": "101.00000000", "l": "99.5", "c": "100.2", "v": "7.25"}
    assert from_frame(frame) == from_row([MINUTE, 100.1, 101.0, 99.5, 100.2, 7.25])
    assert from_frame({**frame, "o": "nan"}) is None
    assert from_frame({"t": MINUTE}) is None
