"""Lock-step is one wait: for those who are named, to the last bar, with nothing held, owed or unbooked."""

from datetime import UTC, datetime

from services.venue_sim.pace import LockStep, StepTimes
from shared.contracts.operations import Progress

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LAST = {"BTC-USDT.1m": 120_000, "ETH-USDT.1m": 120_000}


def progress(service: str, btc: int = 120_000, eth: int = 120_000, **said: object) -> Progress:
    return Progress(service=service, venue="sim", at={"BTC-USDT.1m": btc, "ETH-USDT.1m": eth}, said_at=NOW, **said)  # pyright: ignore[reportArgumentType]


def test_nobody_named_is_nobody_to_wait_for() -> None:
    assert LockStep([]).waiting_for(LAST, [1]) == []


def test_a_service_that_was_never_heard_is_waited_for_by_name() -> None:
    lockstep = LockStep(["engine", "ml_service"])
    lockstep.hear(progress("engine"))
    assert lockstep.waiting_for(LAST) == ["ml_service (has said nothing yet)"]


def test_who_is_idle_until_a_later_bar_is_waited_for_only_there() -> None:
    lockstep = LockStep(["backtest_suite"])
    idle = {"BTC-USDT.1m": 180_000, "ETH-USDT.1m": 120_000}
    lockstep.hear(progress("backtest_suite", btc=0, eth=60_000, idle_until=idle))
    assert lockstep.waiting_for(LAST) == ["backtest_suite (is behind on ETH-USDT.1m)"]
    lockstep.hear(progress("backtest_suite", btc=0, eth=120_000, idle_until=idle))
    assert lockstep.waiting_for(LAST) == []
    assert lockstep.waiting_for({**LAST, "BTC-USDT.1m": 180_000}) == ["backtest_suite (is behind on BTC-USDT.1m)"]


def test_who_is_idle_must_still_book_what_it_was_told() -> None:
    lockstep = LockStep(["param_controller"])
    lockstep.hear(progress("param_controller", btc=0, eth=0, idle_until=dict.fromkeys(LAST, 10**9)))
    lockstep.hear(progress("governor", told=("PresetDemoted:a",)))
    assert lockstep.waiting_for(LAST) == ["param_controller (has not booked PresetDemoted:a)"]


def test_who_slept_over_the_bars_before_is_to_be_woken_where_it_has_something_to_do() -> None:
    lockstep = LockStep(["param_controller", "engine"])
    lockstep.hear(progress("engine", btc=60_000, eth=60_000))
    lockstep.hear(progress("param_controller", btc=0, eth=0, idle_until=dict.fromkeys(LAST, 120_000)))
    before, first = dict.fromkeys(LAST, 60_000), dict.fromkeys(LAST, 0)

    assert lockstep.sleepers(first, before) == []
    assert lockstep.sleepers(before, LAST) == ["param_controller"]
    assert lockstep.sleepers(first, LAST) == []  # it came to the bars before: it is awake


def test_the_market_waits_for_the_slowest_instrument() -> None:
    lockstep = LockStep(["engine"])
    lockstep.hear(progress("engine", eth=60_000))
    assert lockstep.waiting_for(LAST) == ["engine (is behind on ETH-USDT.1m)"]
    lockstep.hear(progress("engine"))
    assert lockstep.waiting_for(LAST) == []


def test_a_service_that_holds_its_progress_says_why() -> None:
    lockstep = LockStep(["ml_service"])
    lockstep.hear(progress("ml_service", holding="training BTC-USDT"))
    assert lockstep.waiting_for(LAST) == ["ml_service (training BTC-USDT)"]


def test_what_was_told_must_be_booked_by_those_who_hear_it() -> None:
    lockstep = LockStep(["engine", "governor", "ml_service"])
    promoted = "ModelPromoted:sim.BTC-USDT.1m.v2"  # heard by engine and ml_service, said by the governor
    lockstep.hear(progress("governor", told=(promoted,)))
    lockstep.hear(progress("engine"))
    lockstep.hear(progress("ml_service", booked=(promoted,)))
    assert lockstep.waiting_for(LAST) == [f"engine (has not booked {promoted})"]
    lockstep.hear(progress("engine", booked=(promoted,)))
    assert lockstep.waiting_for(LAST) == []
    lockstep.hear(progress("engine", booked=("ModelPromoted:newer",)))  # an old one may leave the list of the last 256
    assert lockstep.waiting_for(LAST) == []


def test_what_was_told_before_a_restart_of_the_venue_is_not_waited_for() -> None:
    lockstep = LockStep(["engine", "governor"], goes_on=True)
    lockstep.hear(progress("engine"))
    lockstep.hear(progress("governor", told=("ModelPromoted:long-ago",)))  # booked, and no longer in the last 256
    assert lockstep.waiting_for(LAST) == []
    lockstep.hear(progress("governor", told=("ModelPromoted:long-ago", "ModelPromoted:now")))
    assert lockstep.waiting_for(LAST) == ["engine (has not booked ModelPromoted:now)"]


def test_fills_of_resting_orders_are_booked_before_the_candle_is_told() -> None:
    lockstep = LockStep(["engine", "ml_service"])
    for service in ("engine", "ml_service"):
        lockstep.hear(progress(service))
    assert lockstep.waiting_for(LAST, fills=[17, 18]) == ["engine (has not booked trade 17)"]
    lockstep.hear(progress("engine", booked=("17",)))
    lockstep.hear(progress("engine", booked=("TradeFill:sim.BTC-USDT.18",)))
    assert lockstep.waiting_for(LAST, fills=[17, 18]) == []


def test_the_pace_is_that_of_the_loop_and_what_was_waited_for_stands_beside_it() -> None:
    times = StepTimes()
    for seconds in (0.002, 0.004, 0.006):
        times.took(seconds, 2, ["engine (is behind on BTC-USDT.1m)", "param_controller (decision BTC-USDT)"])
    times.took(1.5, 2, ["ml_service (training 2/4 BTC-USDT)"])
    # 6 bars in 12 ms
    assert times.shown() == {"step_p50_ms": 4.0, "bars_per_s": 500.0, "work_s": 1.5}
