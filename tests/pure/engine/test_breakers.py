"""What holds trading back as a whole, and how it ends."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec

from services.engine.breakers import Standing, Trips, on_close, on_command, on_trouble, with_trade
from services.engine.risk import Limits
from shared.contracts.risk import Command, Flatten, Halt, Pause, Resume
from tests.pure.engine.house import START

LIMITS = Limits(loss_streak=3, cooldown_bars=24)
HOUR = timedelta(hours=1)


def begun(equity: int = 1000) -> Standing:
    return Standing(equity=Decimal(equity), peak=Decimal(equity))


def close(standing: Standing, equity: int, hours: int = 1) -> Trips:
    return on_close(standing, "main", Decimal(equity), {}, START + hours * HOUR, LIMITS, HOUR)


def command(kind: type[Command]) -> Command:
    return kind(command_id="c", account="main", actor="me", reason="a test", at=START)


def lost(standing: Standing, *results: int) -> Standing:
    for number, result in enumerate(results):
        standing = with_trade(standing, f"t{number}", Decimal(result))
    return standing


def test_a_days_loss_stops_entries_until_the_next_day_and_ends_by_itself() -> None:
    standing, _ = close(begun(), 1000)
    standing, trips = close(standing, 949, hours=2)

    (trip,) = trips
    assert (trip.breaker, trip.before, trip.after) == ("daily_loss", "active", "reducing")
    assert trip.until == START + 24 * HOUR
    assert not standing.may_enter and standing.may_order
    standing, trips = close(standing, 949, hours=23)
    assert trips == []
    standing, (trip,) = close(standing, 949, hours=24)
    assert (trip.breaker, trip.after) == ("cooldown_over", "active")
    assert standing.may_enter


def test_a_days_loss_is_counted_from_where_the_day_began() -> None:
    standing, _ = close(begun(), 1000, hours=23)
    standing, trips = close(standing, 960, hours=24)  # 4 % on the day before, whose last bar this no longer is

    standing, trips = close(standing, 915, hours=25)  # 4.7 % on the new one

    assert trips == [] and standing.may_enter


def test_a_streak_of_losses_cools_down_by_itself() -> None:
    standing, (trip,) = close(lost(begun(), -1, -1, -1), 997)

    assert (trip.breaker, trip.after, trip.until) == ("loss_streak", "reducing", START + 25 * HOUR)
    standing, trips = close(standing, 997, hours=24)
    assert trips == []
    standing, (trip,) = close(standing, 997, hours=25)
    assert trip.breaker == "cooldown_over"
    _, trips = close(lost(standing, -1, -1), 995, hours=26)  # the streak began anew
    assert trips == []


def test_a_win_ends_a_streak() -> None:
    _, trips = close(lost(begun(), -1, -1, 5, -1), 998)

    assert trips == []


def test_trades_of_one_bar_are_judged_in_one_order_whichever_came_first() -> None:
    results = (("a", Decimal(-1)), ("b", Decimal(-1)), ("c", Decimal(5)), ("d", Decimal(-1)))

    one, other = (msgspec.structs.replace(begun(), unjudged=order) for order in (results, results[::-1]))

    assert close(one, 1000)[0].losses == close(other, 1000)[0].losses == 1


def test_a_drawdown_closes_everything_and_halts_until_a_person_resumes() -> None:
    standing, _ = close(begun(), 1200)
    standing, trips = close(standing, 960, hours=30)

    assert [(t.breaker, t.after, t.until) for t in trips][-1] == ("drawdown", "halted", None)
    assert standing.is_closing and not standing.may_order
    standing, trips = close(standing, 960, hours=500)
    assert trips == []  # no time ends it
    standing, (trip,) = on_command(standing, command(Resume), START + 501 * HOUR)
    assert (trip.breaker, trip.after, trip.reason) == ("command", "active", "me: a test")
    _, trips = close(standing, 955, hours=502)
    assert trips == []  # measured from where the person resumed


def test_people_pause_flatten_halt_and_resume() -> None:
    standing = begun()
    for kind, state, is_closing in (
        (Pause, "paused", False),
        (Flatten, "paused", True),
        (Halt, "halted", False),
        (Pause, "halted", False),
        (Resume, "active", False),
    ):
        standing, _ = on_command(standing, command(kind), START)
        assert (standing.state, standing.is_closing) == (state, is_closing)


def test_nothing_weaker_lifts_what_holds_trading_back() -> None:
    paused, _ = on_command(begun(), command(Pause), START)

    standing, trips = close(lost(paused, -1, -1, -1), 990)

    assert (standing.state, trips) == ("paused", [])


def test_trouble_with_the_books_waits_for_a_person() -> None:
    standing, (trip,) = on_trouble(begun(), "main", "ledger_mismatch", "BTC", START)

    assert (trip.after, trip.until) == ("paused", None)
    assert not standing.may_enter and standing.may_order


def test_where_trading_stands_survives_as_bytes() -> None:
    standing, _ = close(lost(begun(), -1, -1, -1), 940)

    assert msgspec.json.decode(msgspec.json.encode(standing), type=Standing) == standing
