"""The tape: history is behind, the open bar shows its open only, a step closes what opened first, gaps stay gaps."""

from pathlib import Path

import pytest

from services.venue_sim.market import STARTS_AT, SimulatedSeries
from services.venue_sim.recorded import RecordedSeries, read_series
from services.venue_sim.tape import Tape
from shared.contracts.errors import NeedsOperator
from shared.contracts.times import parse_time, timeframe_length, to_ms

FIRST = to_ms(parse_time("2022-01-01"))
HOUR = 3_600_000


def recorded(folder: Path, symbol: str, hours: list[int]) -> RecordedSeries:
    path = folder / f"{symbol.replace('-', '')}_1h.csv"
    bars = [f"{FIRST + hour * HOUR},{100 + hour},{101 + hour},{99 + hour},{100.5 + hour},5" for hour in hours]
    path.write_text("timestamp,open,high,low,close,volume\n" + "\n".join(bars) + "\n")
    return read_series(path)


def steps_of(tape: Tape) -> list[list[tuple[str, int]]]:
    steps: list[list[tuple[str, int]]] = []
    while not tape.is_finished:
        steps.append([(symbol, (bar.opened_at - FIRST) // HOUR) for symbol, bar in tape.advance()])
    return steps


def test_a_step_closes_all_bars_that_opened_first_and_an_absent_one_is_a_gap(tmp_path: Path) -> None:
    series = [recorded(tmp_path, "BTC-USDT", [0, 1, 4]), recorded(tmp_path, "ETH-USDT", [0, 2, 4])]
    tape = Tape(series, "1h", None, None)
    assert steps_of(tape) == [
        [("BTC-USDT", 0), ("ETH-USDT", 0)],
        [("BTC-USDT", 1)],
        [("ETH-USDT", 2)],
        [("BTC-USDT", 4), ("ETH-USDT", 4)],
    ]
    assert tape.missing("BTC-USDT") == 2 and tape.missing("ETH-USDT") == 2
    assert tape.now == FIRST + 5 * HOUR


def test_bars_before_the_beginning_are_history_and_those_at_the_end_are_never_told(tmp_path: Path) -> None:
    tape = Tape(
        [recorded(tmp_path, "BTC-USDT", list(range(10)))],
        "1h",
        parse_time("2022-01-01T04:00"),
        parse_time("2022-01-01T07:00"),
    )
    assert [bar.opened_at for bar in tape.between("BTC-USDT", None, None, 100)] == [FIRST + h * HOUR for h in range(4)]
    assert tape.told("BTC-USDT") == 0 and tape.now == FIRST + 4 * HOUR
    assert steps_of(tape) == [[("BTC-USDT", hour)] for hour in (4, 5, 6)]
    assert tape.told("BTC-USDT") == 3


def test_a_span_without_bars_is_refused(tmp_path: Path) -> None:
    series = [recorded(tmp_path, "BTC-USDT", [0, 1])]
    with pytest.raises(NeedsOperator, match="has no bar from 2022-02-01 00:00 on"):
        Tape(series, "1h", parse_time("2022-02-01"), None)


def test_the_open_bar_is_the_next_one_that_exists(tmp_path: Path) -> None:
    tape = Tape([recorded(tmp_path, "BTC-USDT", [0, 3])], "1h", None, None)
    tape.advance()
    bar = tape.open_bar("BTC-USDT")
    assert bar is not None and bar.opened_at == FIRST + 3 * HOUR
    tape.advance()
    assert tape.open_bar("BTC-USDT") is None and tape.is_finished


def test_what_is_asked_for_never_holds_a_bar_that_has_not_closed() -> None:
    tape = Tape([SimulatedSeries("BTC-USDT", 7)], "1m", STARTS_AT + 50 * timeframe_length("1m"), None)
    begins = to_ms(STARTS_AT)
    assert len(tape.between("BTC-USDT", begins, None, 1000)) == 50
    assert len(tape.between("BTC-USDT", begins + 40 * 60_000, begins + 90 * 60_000, 1000)) == 10
    assert [bar.opened_at for bar in tape.between("BTC-USDT", None, None, 2)] == [
        begins + 48 * 60_000,
        begins + 49 * 60_000,
    ]


def test_a_tape_that_is_put_back_goes_on_with_the_same_bars() -> None:
    begins_at = STARTS_AT + 50 * timeframe_length("1m")
    tapes = [
        Tape([SimulatedSeries("BTC-USDT", 7), SimulatedSeries("SOL-USDT", 7)], "1m", begins_at, None) for _ in "ab"
    ]
    for _ in range(20):
        after = tapes[0].position_after
        tapes[0].advance()
        assert tapes[0].position == after
    tapes[1].position = tapes[0].position
    assert tapes[1].now == tapes[0].now
    assert [tapes[1].advance() for _ in range(5)] == [tapes[0].advance() for _ in range(5)]
