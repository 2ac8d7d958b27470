"""Rails: an order is made small enough, or refused with the rule that it breaks."""

from __future__ import annotations

import math
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from services.engine.risk import EXIT_CUSHION, Account, Limits, Wanted, judged
from tests.pure.engine.house import instrument

BTC = instrument()
LIMITS = Limits()


def account(**changes: object) -> Account:
    """10,000 USDT, flat, at a price of 100."""
    values: dict[str, object] = {
        "equity": Decimal(10_000),
        "instrument": Decimal(0),
        "gross": Decimal(0),
        "orders_last_minute": 0,
        "close": 100.0,
        "close_before": 100.0,
    }
    return Account(**{**values, **changes})  # type: ignore[arg-type]


def entry(quantity: int | str) -> Wanted:
    return Wanted(Decimal(quantity), Decimal(0))


def test_an_order_within_all_limits_passes_untouched() -> None:
    assert judged(entry(10), account(), BTC, LIMITS) == (Decimal(10), ())


def test_an_order_above_the_largest_is_made_smaller_and_says_so() -> None:
    verdict = judged(entry(50), account(), BTC, LIMITS)

    assert verdict.quantity == 35  # 35 % of 10,000 at 100
    assert [(t.rail, t.action, t.limit, t.was) for t in verdict.touches] == [
        ("max_order", "resized", "35% of 10000.00", "5000.00"),
        ("max_position", "resized", "35% of 10000.00", "5000.00"),
    ]


def test_what_is_held_of_the_instrument_already_counts() -> None:
    verdict = judged(entry(20), account(instrument=Decimal(3000), gross=Decimal(3000)), BTC, LIMITS)

    assert verdict.quantity == 5
    assert [touch.rail for touch in verdict.touches] == ["max_position"]


def test_no_room_at_all_is_a_refusal() -> None:
    verdict = judged(entry(20), account(gross=Decimal(10_000)), BTC, LIMITS)

    assert verdict.quantity == 0
    assert [(t.rail, t.action) for t in verdict.touches] == [("max_gross", "refused")]


def test_an_order_that_would_be_too_small_to_sell_again_is_refused() -> None:
    assert judged(entry("0.074"), account(), BTC, LIMITS).touches[0].rail == "min_notional"  # 7.40, below 1.5 x 5
    assert judged(entry("0.076"), account(), BTC, LIMITS).quantity == Decimal("0.076")


def test_more_orders_a_minute_than_allowed_are_refused() -> None:
    verdict = judged(entry(1), account(orders_last_minute=30), BTC, LIMITS)

    assert (verdict.quantity, verdict.touches[0].rail) == (0, "orders_per_minute")


def test_no_entry_on_a_price_that_is_not_believed() -> None:
    assert judged(entry(1), account(close_before=79.0), BTC, LIMITS).touches[0].rail == "price_jump"  # 26.6 % up
    assert judged(entry(1), account(close_before=math.nan), BTC, LIMITS).quantity == 1  # the first bar


def test_what_makes_a_position_smaller_always_passes() -> None:
    trouble = account(equity=Decimal(-5), orders_last_minute=99, close_before=1.0, gross=Decimal(99_999))

    assert judged(Wanted(Decimal(70), Decimal(70)), trouble, BTC, LIMITS) == (Decimal(70), ())


@given(
    quantity=st.decimals("0.0001", "1000", places=4),
    share=st.decimals(0, 1, places=4),
    equity=st.decimals(0, 1_000_000, places=2),
    instrument_worth=st.decimals(0, 1_000_000, places=2),
    others=st.decimals(0, 1_000_000, places=2),
    orders=st.integers(0, 60),
    close=st.floats(0.01, 1e5),
    before=st.floats(0.01, 1e5),
)
def test_no_order_breaks_a_rail(
    quantity: Decimal,
    share: Decimal,
    equity: Decimal,
    instrument_worth: Decimal,
    others: Decimal,
    orders: int,
    close: float,
    before: float,
) -> None:
    reduces = (quantity * share).quantize(BTC.lot)
    seen = Account(equity, instrument_worth, instrument_worth + others, orders, close, before)

    verdict = judged(Wanted(quantity, reduces), seen, BTC, LIMITS)

    added = verdict.quantity - reduces
    worth = added * Decimal(repr(close))
    assert reduces <= verdict.quantity <= quantity and verdict.quantity % BTC.lot == 0
    assert (verdict.quantity < quantity) == bool(verdict.touches)
    if added > 0:
        assert worth <= equity * LIMITS.max_order
        assert instrument_worth + worth <= equity * LIMITS.max_position
        assert seen.gross + worth <= equity * LIMITS.max_gross
        assert orders < LIMITS.orders_per_minute
        assert reduces > 0 or worth >= BTC.min_notional * EXIT_CUSHION
