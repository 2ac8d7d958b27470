"""The account: orders fill where they should, cost what they should, and no unit of money appears or is lost."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.venue_sim.exchange import Balance, Costs, Exchange, Order
from services.venue_sim.market import Candle, SimulatedSeries
from services.venue_sim.refusals import Refused
from services.venue_sim.requests import OrderRequest, OrderType, Side, TimeInForce, order_request

BTC = SimulatedSeries("BTC-USDT", 7).instrument  # tick 0.01, lot 0.00001, at least 5 USDT
COSTS = Costs(maker_fee_bps=Decimal(10), taker_fee_bps=Decimal(10), slippage_bps=Decimal(5))
FREE = Costs(maker_fee_bps=Decimal(0), taker_fee_bps=Decimal(0), slippage_bps=Decimal(0))
D = Decimal


def an_exchange(cash: str = "10000", btc: str = "0", costs: Costs = COSTS) -> Exchange:
    return Exchange([BTC], {"USDT": D(cash), "BTC": D(btc)}, costs)


def bar(opened: float, high: float | None = None, low: float | None = None, closed: float | None = None) -> Candle:
    last = opened if closed is None else closed
    return Candle(0, opened, max(opened, last, high or opened), min(opened, last, low or opened), last, 1.0)


AT_60_000 = bar(60_000)


def wish(
    side: Side,
    quantity: str,
    price: str = "0",
    kind: OrderType | None = None,
    time_in_force: TimeInForce = "GTC",
    client_id: str = "",
) -> OrderRequest:
    return OrderRequest(
        side, kind or ("LIMIT" if price != "0" else "MARKET"), time_in_force, D(quantity), D(price), client_id
    )


def refusal_of(exchange: Exchange, wanted: OrderRequest, now: Candle | None = AT_60_000) -> tuple[int, str]:
    before = dict(exchange.balances), dict(exchange.orders)
    with pytest.raises(Refused) as caught:
        exchange.place("BTC-USDT", wanted, now, 0)
    assert (exchange.balances, exchange.orders) == before  # a refusal changes nothing
    return caught.value.refusal.code, caught.value.refusal.message


def test_a_market_order_is_filled_at_the_open_with_slippage_against_the_trader() -> None:
    order, trade = an_exchange().place("BTC-USDT", wish("BUY", "0.1"), bar(60_000), at=5)
    assert trade is not None and order.status == "FILLED"
    assert trade.price == D("60030.00")  # 60,000 x 1.0005
    assert (trade.fee, trade.fee_asset) == (D("0.0001"), "BTC")  # 10 bps of 0.1 BTC: a buy pays in what it gets
    order, trade = an_exchange(btc="1").place("BTC-USDT", wish("SELL", "0.1"), bar(60_000), at=5)
    assert trade is not None and trade.price == D("59970.00")
    assert (trade.fee, trade.fee_asset) == (D("5.997"), "USDT")  # 10 bps of 0.1 x 59,970


def test_a_slipped_price_is_rounded_to_the_tick_against_the_trader() -> None:
    # 60,000.01 x 1.0005 = 60,030.010005 and x 0.9995 = 59,970.009995
    _, bought = an_exchange().place("BTC-USDT", wish("BUY", "0.01"), bar(60_000.01), at=0)
    _, sold = an_exchange(btc="1").place("BTC-USDT", wish("SELL", "0.01"), bar(60_000.01), at=0)
    assert bought is not None and bought.price == D("60030.02")
    assert sold is not None and sold.price == D("59970.00")


def test_a_resting_order_fills_at_its_price_once_the_bar_trades_through_it() -> None:
    exchange = an_exchange()
    _, trade = exchange.place("BTC-USDT", wish("BUY", "0.1", "59000"), bar(60_000), at=0)
    assert trade is None and exchange.balances["USDT"] == Balance(D("4100"), D("5900"))
    assert exchange.match("BTC-USDT", bar(60_000, low=59_000), at=1) == []  # touched, not traded through
    [(filled, trade)] = exchange.match("BTC-USDT", bar(60_000, low=58_999.99), at=2)
    assert (filled.status, trade.price, trade.is_maker, trade.at) == ("FILLED", D("59000"), True, 2)
    assert exchange.balances == {"BTC": Balance(D("0.0999")), "USDT": Balance(D("4100"))}
    assert exchange.match("BTC-USDT", bar(60_000, low=1.0), at=3) == []


def test_a_limit_order_that_can_trade_at_once_takes_at_the_better_price() -> None:
    exchange = an_exchange()
    order, trade = exchange.place("BTC-USDT", wish("BUY", "0.1", "61000"), bar(60_000), at=0)
    assert order.status == "FILLED" and trade is not None and trade.price == D("60030")
    assert exchange.balances["USDT"] == Balance(D("3997"))


def test_an_order_that_must_trade_now_expires_when_it_cannot() -> None:
    exchange = an_exchange()
    for time_in_force in ("IOC", "FOK"):
        wanted = wish("BUY", "0.1", "59000", time_in_force=time_in_force)
        order, trade = exchange.place("BTC-USDT", wanted, bar(60_000), at=0)
        assert (order.status, trade) == ("EXPIRED", None)
    assert exchange.balances["USDT"] == Balance(D(10_000))


def test_a_canceled_order_gives_back_what_it_held() -> None:
    exchange = an_exchange(btc="1")
    order, _ = exchange.place("BTC-USDT", wish("SELL", "0.4", "70000"), bar(60_000), at=0)
    assert exchange.balances["BTC"] == Balance(D("0.6"), D("0.4"))
    assert exchange.cancel(order, at=1).status == "CANCELED"
    assert exchange.balances["BTC"] == Balance(D(1))
    with pytest.raises(Refused, match="-2011"):
        exchange.cancel(order, at=2)


def test_a_client_id_is_unique_among_open_orders_only() -> None:
    exchange = an_exchange()
    first, _ = exchange.place("BTC-USDT", wish("BUY", "0.01", "50000", client_id="mine"), bar(60_000), at=0)
    again = wish("BUY", "0.01", "50000", client_id="mine")
    assert refusal_of(exchange, again) == (-2010, "Duplicate order sent.")
    exchange.cancel(first, at=1)
    second, _ = exchange.place("BTC-USDT", again, bar(60_000), at=2)
    assert exchange.find("BTC-USDT", None, "mine") == second  # the latest of that name


def test_what_the_venue_cannot_do_is_refused_and_changes_nothing() -> None:
    exchange = an_exchange(btc="0.5")
    assert refusal_of(exchange, wish("BUY", "0.17"))[0] == -2010  # 0.17 x 60,030 = 10,205 USDT
    assert refusal_of(exchange, wish("SELL", "0.50001"))[0] == -2010
    assert refusal_of(exchange, wish("BUY", "0.00008")) == (-1013, "Filter failure: NOTIONAL")  # 4.80 USDT
    assert refusal_of(exchange, wish("BUY", "0.1", "61000", "LIMIT_MAKER"))[0] == -2010
    assert refusal_of(exchange, wish("BUY", "0.1"), now=None) == (-1013, "Market is closed.")


def test_it_goes_on_from_what_was_kept() -> None:
    exchange = an_exchange()
    exchange.place("BTC-USDT", wish("BUY", "0.01"), bar(60_000), at=0)
    exchange.place("BTC-USDT", wish("BUY", "0.01", "50000"), bar(60_000), at=0)
    again = an_exchange()
    again.recover(exchange.balances, exchange.orders.values(), exchange.trades.values())
    assert again.match("BTC-USDT", bar(49_000), 9) == exchange.match("BTC-USDT", bar(49_000), 9)
    assert (again.balances, again.orders, again.trades) == (exchange.balances, exchange.orders, exchange.trades)


prices = st.integers(1_000_000, 9_000_000).map(lambda ticks: D(ticks) / 100)  # 10,000 to 90,000 USDT
wishes = st.builds(
    lambda side, lots, limit, maker: wish(
        side, str(D(lots) / 100_000), str(limit or 0), "LIMIT_MAKER" if maker and limit else None
    ),
    st.sampled_from(["BUY", "SELL"]),
    st.integers(10, 40_000),
    st.none() | prices,
    st.booleans(),
)
markets = st.tuples(prices, prices, prices).map(
    lambda p: Candle(0, float(p[0]), float(max(p)), float(min(p)), float(p[1]), 1.0)
)
happenings = st.lists(st.one_of(wishes, markets, st.integers(0, 20)), max_size=60)


def held(exchange: Exchange, asset: str) -> Decimal:
    return exchange.balances[asset].free + exchange.balances[asset].locked


@settings(max_examples=200, deadline=None)
@given(happenings=happenings, costs=st.sampled_from([COSTS, FREE]))
def test_money_is_conserved(happenings: list[OrderRequest | Candle | int], costs: Costs) -> None:
    exchange, now = an_exchange(btc="0.2", costs=costs), bar(60_000)
    for at, event in enumerate(happenings):
        try:
            match event:
                case OrderRequest():
                    exchange.place("BTC-USDT", event, now, at)
                case Candle():
                    exchange.match("BTC-USDT", event, at)
                    now = event
                case number:
                    known: list[Order] = list(exchange.orders.values())
                    if known:
                        exchange.cancel(known[number % len(known)], at)
        except Refused:
            pass  # a refusal is an answer; that it changes nothing shows in the sums
        trades = exchange.trades.values()
        bought = [trade for trade in trades if trade.side == "BUY"]
        sold = [trade for trade in trades if trade.side == "SELL"]
        assert held(exchange, "USDT") == 10_000 - sum(t.notional for t in bought) + sum(
            t.notional - t.fee for t in sold
        )
        assert held(exchange, "BTC") == D("0.2") + sum(t.quantity - t.fee for t in bought) - sum(
            t.quantity for t in sold
        )
        assert all(balance.free >= 0 and balance.locked >= 0 for balance in exchange.balances.values())
        assert exchange.balances["USDT"].locked == sum(
            order.quantity * order.price for order in exchange.open.values() if order.side == "BUY"
        )
        assert all(not trade.fee for trade in trades) or costs is COSTS


def test_an_order_from_a_client_passes_the_filters_of_its_instrument() -> None:
    sent = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01000", "price": "50000.10"}
    assert order_request(sent, BTC) == wish("BUY", "0.01", "50000.10")
